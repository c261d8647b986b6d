package sim_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/sim"
)

var (
	seedFlag = flag.String("sim.seed", "", "run this seed alone")
	manyFlag = flag.Int("sim.n", 0, "run so many seeds (default 3, or 1 with -short)")
	fromFlag = flag.Uint64("sim.from", 1, "the first of them")
)

// TestMain has the collector of garbage work less often: a simulation makes little else, and
// has the memory.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(4 << 30) // and more often from there on
	os.Exit(m.Run())
}

// seeds lists the seeds to run. A failure names the command that runs its seed.
func seeds(t *testing.T) []uint64 {
	t.Helper()
	if *seedFlag != "" {
		seed, err := strconv.ParseUint(*seedFlag, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	n := *manyFlag
	if n == 0 {
		n = 3
		if testing.Short() {
			n = 1
		}
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = *fromFlag + uint64(i)
	}
	return list
}

// long leaves a test to those who have minutes.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
}

// quick are the scenarios that those run who have no minutes.
var quick = []string{"TestSimDivergence", "TestSimOwnerGone"}

func forSeeds(t *testing.T, scenario func(t *testing.T, seed uint64)) {
	if !slices.Contains(quick, t.Name()) {
		long(t)
	}
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("again: make sim SEED=%d", seed)
				}
			})
			synctest.Test(t, func(t *testing.T) { scenario(t, seed) })
		})
	}
}

// Five minutes of writes in three regions; at a random moment one of them loses
// power, and comes back after a while.
func TestSimPowerLoss(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		outage(t, seed, (*sim.Region).PowerLoss, (*sim.Region).Start)
	})
}

// The same, but the region's disk is gone too: it is restored from a backup that
// was made at a random moment before, under load, and replays the rest.
func TestSimDiskLoss(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		outage(t, seed, (*sim.Region).DiskLoss, func(r *sim.Region) {
			r.Restore()
			r.Start()
		})
	})
}

// outage has three regions written to for five minutes. At a random moment one
// of them is lost and after a while recovered.
func outage(t *testing.T, seed uint64, lose, restart func(*sim.Region)) {
	w := sim.New(t, seed, "us-east-1", "us-west-1", "eu-central-1")
	defer w.Close()
	victim := w.Regions[w.Rand.IntN(len(w.Regions))]
	darkFor := time.Duration(1+w.Rand.IntN(60_000)) * time.Millisecond
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	before, end := context.WithTimeout(ctx, time.Duration(60+w.Rand.IntN(150))*time.Second)
	defer end()

	var others, own sync.WaitGroup
	for i, r := range w.Regions {
		pause := time.Duration(50+w.Rand.IntN(200)) * time.Millisecond
		if r == victim {
			own.Go(func() { writeWith(before, r.Writer(i), pause) })
			continue
		}
		others.Go(func() { writeWith(ctx, r.Writer(i), pause) })
	}
	time.Sleep(time.Duration(1+w.Rand.IntN(59)) * time.Second)
	if _, err := victim.Node().CreateBackup(t.Context()); err != nil {
		t.Fatal(err)
	}
	own.Wait()
	lose(victim)
	time.Sleep(darkFor)
	restart(victim)
	others.Go(func() { writeWith(ctx, victim.Writer(len(w.Regions)), 70*time.Millisecond) })
	others.Wait()

	w.Settle()
	w.Check()
	if acked := w.Acked(); acked < 1_000 {
		t.Errorf("only %d writes were acknowledged in five minutes", acked)
	}
}
