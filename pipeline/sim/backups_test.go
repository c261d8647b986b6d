package sim_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/sim"
)

// Three regions of two nodes each back up what has changed twice a minute, while they are
// written to and nodes lose power and disks, freeze, and take over each other's shards.
// Whatever backup exists is the fold of its vector.
func TestSimDeltas(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		w := sim.NewShaped(t, seed, sim.Shape{Nodes: 2, AllRules: true, Deltas: 30 * time.Second}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		const minutes = 5
		ctx, stop := context.WithTimeout(t.Context(), time.Duration(minutes)*time.Minute)
		defer stop()
		var writers sync.WaitGroup
		for i, r := range w.Regions {
			for j, n := range r.Nodes {
				pause := time.Duration(300+w.Rand.IntN(900)) * time.Millisecond
				writers.Go(func() { writeWith(ctx, n.Writer(10*i+j), pause) })
			}
		}
		for ctx.Err() == nil {
			time.Sleep(time.Duration(w.Rand.IntN(40_000)) * time.Millisecond)
			trouble(w)
		}
		writers.Wait()
		w.Settle()
		w.Check()
		time.Sleep(2 * time.Minute) // whatever has failed before
		fulls, deltas := w.CheckBackups()
		t.Logf("%d full backups, %d deltas", fulls, deltas)
		if fulls < 3 || deltas < 3*minutes {
			t.Errorf("%d full backups and %d deltas", fulls, deltas)
		}
	})
}
