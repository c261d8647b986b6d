package sim_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/sim"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// Half a minute of writes in three regions and some trouble, and then in two of three runs one
// fault: a byte that is flipped in a mirror, a record that is skipped by a fold, one that is
// folded twice. It is found in the right layer by exactly those that can see it; where nothing
// is wrong nothing is found. With every other seed regions have two nodes, and shards move
// before. It is short, to be run with very many seeds.
func TestSimDivergence(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		shape := sim.Shape{Nodes: 2 - int(seed%2), AllRules: true, NoBackups: true, Models: []string{}}
		w := sim.NewShaped(t, seed, shape, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		var writers sync.WaitGroup
		for i, r := range w.Regions {
			pause := time.Duration(100+w.Rand.IntN(400)) * time.Millisecond
			writers.Go(func() { writeWith(ctx, r.Writer(i), pause) })
		}
		for range 1 + w.Rand.IntN(3) {
			time.Sleep(time.Duration(w.Rand.IntN(4_000)) * time.Millisecond)
			briefTrouble(w)
		}
		writers.Wait()
		w.Settle()
		w.AwaitFindings(func(*sim.Region, events.Log) (divergence.Layer, bool) { return "", false })
		if fault := w.Rand.IntN(6); fault < 4 {
			w.AwaitFindings(inject(t, w, fault))
		} else {
			w.Check()
		}
	})
}

// briefTrouble is trouble that is over soon.
func briefTrouble(w *sim.World) {
	r, other := w.Regions[w.Rand.IntN(3)], w.Regions[w.Rand.IntN(3)]
	n, long := r.Nodes[w.Rand.IntN(len(r.Nodes))], time.Duration(w.Rand.IntN(3_000))*time.Millisecond
	end := n.Start
	switch w.Rand.IntN(6) {
	case 0:
		n.PowerLoss()
	case 1:
		n.DiskLoss()
	case 2:
		n.Stop()
	case 3:
		n.Kill()
	case 4:
		n.Freeze()
		end = n.Thaw
	case 5:
		w.Cut(r, other)
		end = func() { w.Mend(r, other) }
	}
	time.Sleep(long)
	end()
}

// inject does one thing wrong, and says what is to be found.
func inject(t *testing.T, w *sim.World, fault int) sim.Wrong {
	origin := w.Regions[w.Rand.IntN(3)]
	culprit := w.Regions[w.Rand.IntN(3)]
	stream := w.Streams()[w.Rand.IntN(3)]
	log := events.Log{Origin: events.FirstOrigin(origin.Name), Stream: stream, Partition: int32(w.Rand.IntN(3))}
	const poison = `{"is":"poison"}` // a value that has a meaning for every rule
	if fault < 2 && culprit != origin {
		flipped := culprit.Flip(log.Origin.MirrorTopic(stream.String()), "poison")
		origin.ProduceTo(log, "poisoned", poison)
		await(t, "flipped", func() error {
			if flipped() {
				return nil
			}
			return errors.New("nothing is flipped")
		})
		return func(r *sim.Region, l events.Log) (divergence.Layer, bool) {
			if r == culprit && l == log {
				return divergence.LayerLog, false
			}
			return "", false
		}
	}
	times := 2 * (fault % 2)
	for _, n := range culprit.Nodes[1:] {
		n.Stop() // or it would fold what the other one is to fold wrongly
	}
	w.Settle()
	culprit.Nodes[0].Stop()
	origin.ProduceTo(log, "poisoned", poison)
	culprit.Nodes[0].FoldWrongly(log, "poisoned", times)
	culprit.Nodes[0].Start()
	return func(r *sim.Region, l events.Log) (divergence.Layer, bool) {
		switch {
		case l != log, r != culprit && culprit != origin:
			return "", false
		}
		// An origin that folds its own log wrongly agrees with itself.
		return divergence.LayerFold, r == origin
	}
}

func await(t *testing.T, what string, condition func() error) {
	t.Helper()
	var err error
	for range 600 {
		if err = condition(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("not %s: %v", what, err)
}
