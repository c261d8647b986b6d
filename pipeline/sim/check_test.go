package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/sim"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// logs is how many logs of a node's shards have a result.
func logs(n *sim.Node, result divergence.Result) int {
	return int(n.Metric("evenkeel_check_logs", map[string]string{"result": string(result)}))
}

// The alerts add up what the nodes of a region say: each of the logs in its own shards, so
// that all of them are consistent while every node does its work, and some are not while a shard is
// nobody's.
func TestSimVerifiedByAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := threeRegions(t, 1)
		defer w.Close()
		const configured = 3 * 3 // of each of three origins, three partitions
		consistent := func(r *sim.Region) (sum int) {
			for _, n := range r.Nodes {
				sum += logs(n, divergence.Consistent)
			}
			return sum
		}
		allConsistent := func(r *sim.Region) error {
			if sum := consistent(r); sum != configured {
				return fmt.Errorf("%s: %d logs are consistent, there are %d", r.Name, sum, configured)
			}
			return nil
		}
		for _, r := range w.Regions {
			spread(t, r)
			await(t, "consistent", func() error { return allConsistent(r) })
			for _, n := range r.Nodes {
				if all := n.Metric("evenkeel_check_logs_configured", nil); all != configured {
					t.Errorf("%s: %g logs are configured", n, all)
				}
				if held := 3 * len(ownOf(t, n)); logs(n, divergence.Consistent) != held || logs(n, divergence.Indeterminate) != 0 {
					t.Errorf("%s: %d logs are consistent and %d indeterminate, of %d in its shards", n, logs(n, divergence.Consistent), logs(n, divergence.Indeterminate), held)
				}
			}
		}
		r := w.Regions[2]
		r.Nodes[1].Kill()
		if sum := consistent(r); sum >= configured {
			t.Errorf("with shards that nobody holds %d logs are consistent", sum)
		}
		await(t, "consistent on one node", func() error { return allConsistent(r) })
	})
}

// A divergence that a node has found goes with the shard: the new owner finds what lasts, and
// the old one, which goes on, says no more of it.
func TestSimDivergenceOfAMovedShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := threeRegions(t, 1)
		defer w.Close()
		r := w.Regions[2]
		spread(t, r)
		for p := range int32(3) {
			w.Regions[0].ProduceTo(events.Log{Stream: "session", Partition: p}, "key", "value")
		}
		w.Settle()
		was, heir := r.Nodes[0], r.Nodes[1]
		var log events.Log
		for p := range ownOf(t, was) {
			log = events.Log{Origin: events.FirstOrigin(w.Regions[0].Name), Stream: "session", Partition: p}
		}
		finding := func(n *sim.Node) divergence.Finding {
			c, err := n.Process().Check(t.Context(), api.CheckParams{})
			if err != nil {
				t.Fatal(err)
			}
			return c.Logs[slices.IndexFunc(c.Logs, func(f divergence.Finding) bool { return f.Log == log })]
		}
		is := func(n *sim.Node, result divergence.Result) error {
			if f := finding(n); f.Result != result {
				return fmt.Errorf("%s: %s", n, f.Describe(r.Name))
			}
			return nil
		}
		await(t, "consistent", func() error { return is(was, divergence.Consistent) })
		w.Lie(log)
		await(t, "diverged", func() error { return is(was, divergence.Diverged) })

		was.Freeze()
		time.Sleep(30 * time.Second)
		if held := ownOf(t, heir); len(held) != 3 {
			t.Fatalf("the other node has %d shards, want all 3", len(held))
		}
		was.Thaw()
		for _, n := range r.Nodes {
			await(t, "consistent", func() error { return is(n, divergence.Consistent) })
		}
		s, err := was.Own()
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(s.Problems, "\n"); strings.Contains(text, log.String()) {
			t.Errorf("the former owner says: %s", text)
		}
		if diverged := was.Metric("evenkeel_check_diverged", nil); diverged != 0 {
			t.Errorf("the former owner shows %g logs that have diverged", diverged)
		}
	})
}
