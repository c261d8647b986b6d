package sim_test

import (
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/sim"
)

// A node that dies while it waits for its place in the group, and does not come back under
// its name, holds up nothing for good: what the group had assigned to it goes to the node
// that came after it. Who leads the group is left to chance, so it happens a few times.
func TestSimDeadJoin(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		w := sim.NewShaped(t, seed, sim.Shape{Nodes: 1, NoBackups: true, Models: []string{}}, "us-east-1")
		defer w.Close()
		n := w.Regions[0].Nodes[0]
		for range 8 {
			n.DiskLoss()
			n.Start() // under a new name: it waits until the one before is missed
			time.Sleep(time.Duration(w.Rand.IntN(5_000)) * time.Millisecond)
			n.DiskLoss()
			n.Start()
			n.AwaitReady()
			w.Settle()
		}
		w.Check()
	})
}
