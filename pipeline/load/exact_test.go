package load_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

// forSeeds runs a scenario in simulated time, for many seeds.
func forSeeds(t *testing.T, seeds uint64, scenario func(t *testing.T, rng *rand.Rand)) {
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { scenario(t, newRand(seed)) })
		})
	}
}

// troubleAt draws troubles, and now and then has a node gone for a while.
func troubleAt(rng *rand.Rand, probability float64) func() trouble {
	goneUntil := time.Now()
	return func() trouble {
		switch {
		case time.Now().Before(goneUntil):
			return refused
		case rng.Float64() < probability/4:
			goneUntil = time.Now().Add(time.Duration(rng.IntN(20_000)) * time.Millisecond)
			return refused
		case rng.Float64() < probability:
			return trouble(rng.IntN(int(troubles)))
		}
		return none
	}
}

// lateCalls waits until calls that the nodes were still at have ended.
func lateCalls() { time.Sleep(time.Minute) }

// Whatever fails when, and however often the load is interrupted and begun
// again, every event is in its region's logs once and in order.
func TestExactlyOnce(t *testing.T) {
	forSeeds(t, 60, func(t *testing.T, rng *rand.Rand) {
		regions := []*region{newRegion(us), newRegion(eu)}
		items := makeItems(rng, rng.IntN(80), us, eu)
		probability := rng.Float64() * 0.7
		for _, r := range regions {
			// Each has its own generator: their calls come in any order.
			r.trouble = troubleAt(newRand(rng.Uint64()), probability)
		}
		cfg := configFor(t)
		cfg.SetBatchEvents(1 + rng.IntN(12))
		old := &oldProgress{path: cfg.Progress, rng: newRand(rng.Uint64())}
		cfg.Written = func(events.Region, int) { old.keep() }

		runs := 0
		for {
			runs++
			ctx, interrupt := context.WithTimeout(t.Context(), time.Duration(1+rng.IntN(20_000))*time.Millisecond)
			_, err := load.Run(ctx, inputOf(items), nodesOf(regions...), cfg)
			interrupt()
			if err == nil {
				break
			}
			if kind := events.KindOf(err); !errors.Is(err, context.DeadlineExceeded) && kind != events.KindNotReady {
				t.Fatalf("run %d: %v", runs, err)
			}
			if runs == 1_000 {
				t.Fatal("the load does not come to an end")
			}
			old.maybeBack(t)
		}
		lateCalls()
		for _, r := range regions {
			if err := r.checkExact(items); err != nil {
				t.Errorf("after %d runs: %v", runs, err)
			}
		}
	})
}

// oldProgress brings back an earlier state of the progress file, as if the load
// had been killed between an answer and its note. Only the note of a region's
// beginning is not taken back: it is on disk before anything is sent.
type oldProgress struct {
	path string
	rng  *rand.Rand

	mu   sync.Mutex
	text []byte
}

func (o *oldProgress) keep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	text, _ := os.ReadFile(o.path) // may not be there yet
	bothBegun := strings.Contains(string(text), us.String()) && strings.Contains(string(text), eu.String())
	if bothBegun && o.rng.IntN(3) == 0 {
		o.text = text
	}
}

func (o *oldProgress) maybeBack(t *testing.T) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text == nil || o.rng.IntN(3) > 0 {
		return
	}
	if err := os.WriteFile(o.path, o.text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Two runs of the same load at one time are a mistake, and write every event
// once all the same: neither writes in the other's turn.
func TestTwoRunsAtOnce(t *testing.T) {
	forSeeds(t, 30, func(t *testing.T, rng *rand.Rand) {
		r := newRegion(us)
		r.trouble = troubleAt(newRand(rng.Uint64()), rng.Float64()*0.3)
		items := makeItems(rng, 1+rng.IntN(40), us)
		cfg := configFor(t)
		cfg.Patience = time.Hour
		cfg.SetBatchEvents(1 + rng.IntN(12))
		begun := make(chan bool, len(items))
		var runs sync.WaitGroup
		run := func() {
			_, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg)
			if err != nil && events.KindOf(err) != events.KindRefused { // refused: the other was done before this began
				t.Error(err)
			}
		}
		first := cfg
		first.Written = func(events.Region, int) { begun <- true }
		runs.Go(func() {
			_, err := load.Run(t.Context(), inputOf(items), nodesOf(r), first)
			if err != nil {
				t.Error(err)
			}
		})
		<-begun
		time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
		runs.Go(run)
		runs.Wait()
		lateCalls()
		if err := r.checkExact(items); err != nil {
			t.Error(err)
		}
	})
}
