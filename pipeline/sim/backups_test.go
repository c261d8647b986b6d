package sim_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/sim"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// Three regions of two nodes each are at work for a while on each of some days, and back up what
// has changed twice a minute. Meanwhile they are written to, nodes lose power and disks, freeze, and take over
// each other's shards, and die in the middle of backups, prunes, drills and restores. Whatever backup
// exists is the fold of its vector, and none is gone that was to stay.
func TestSimBackups(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		w := sim.NewShaped(t, seed, sim.Shape{
			Nodes: 2, AllRules: true, Deltas: 30 * time.Second, Keep: someKeep(seed),
		}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		const days = 3
		gone := 0
		for day := range days {
			if day > 0 {
				w.Rest(time.Duration(24*60+w.Rand.IntN(8*60)) * time.Minute)
			}
			gone += backupDay(t, w, day)
		}
		w.Settle()
		w.Check()
		time.Sleep(time.Minute) // whatever has failed before
		for _, r := range w.Regions {
			before := r.Stock()
			if _, err := r.Node().PruneBackups(t.Context(), api.PruneBackupsParams{Run: true}); err != nil {
				t.Errorf("%s: the last prune: %v", r.Name, err)
			}
			gone += r.CheckPruned(before)
		}
		fulls, deltas := w.CheckBackups()
		t.Logf("%d full backups, %d deltas; %d are gone", fulls, deltas, gone)
		if fulls < 3 || deltas < 3 || gone == 0 {
			t.Errorf("%d full backups and %d deltas, and %d are gone", fulls, deltas, gone)
		}
	})
}

// someKeep are retention windows so short that days end most of them.
func someKeep(seed uint64) *config.Keep {
	rng := rand.New(rand.NewPCG(seed, 3))
	some := func() time.Duration { return time.Duration(rng.IntN(4)) * 10 * time.Hour }
	return &config.Keep{Full: some(), Delta: some(), Delta10m: some(), Delta60s: some(), Segment: some()}
}

// backupDay writes for a while, has trouble, and prunes. It returns how many backups were deleted.
func backupDay(t *testing.T, w *sim.World, day int) (gone int) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var writers sync.WaitGroup
	for i, r := range w.Regions {
		for j, n := range r.Nodes {
			pause := time.Duration(300+w.Rand.IntN(900)) * time.Millisecond
			writers.Go(func() { writeWith(ctx, n.Writer(100*day+10*i+j), pause) })
		}
	}
	for ctx.Err() == nil {
		time.Sleep(time.Duration(w.Rand.IntN(12_000)) * time.Millisecond)
		switch r := w.Regions[w.Rand.IntN(len(w.Regions))]; w.Rand.IntN(6) {
		case 0:
			trouble(w)
		case 1:
			r.Pin()
		case 2:
			r.Unpin()
		case 3:
			dieOf(t, w, r, "backup", func(n *sim.Node) error { _, err := n.Process().CreateBackup(t.Context()); return err })
		case 4:
			dieOf(t, w, r, "drill", func(n *sim.Node) error { return drilled(t, n) })
		case 5:
			dieOf(t, w, r, "restore", func(n *sim.Node) error {
				_, err := n.Process().RestoreShards(t.Context(), api.RestoreShardsParams{Request: timeline.Request{Shards: []int32{w.Rand.Int32N(3)}}})
				return err
			})
		}
		gone += prune(t, w, w.Regions[w.Rand.IntN(len(w.Regions))])
	}
	writers.Wait()
	return gone
}

// drilled makes a drill, which finds all that is restored to be as it was.
func drilled(t *testing.T, n *sim.Node) error {
	d, err := n.Process().DrillRestore(t.Context())
	if err == nil && d.Err() != nil && !n.Died() {
		t.Errorf("%s: a drill: %v", n, d.Err())
	}
	return err
}

// dieOf has a node do something and perhaps die in the middle of it, and start again.
func dieOf(t *testing.T, w *sim.World, r *sim.Region, what string, do func(*sim.Node) error) {
	t.Helper()
	n := r.Nodes[w.Rand.IntN(len(r.Nodes))]
	if !n.Up() {
		return
	}
	if w.Rand.IntN(3) > 0 {
		n.DieAt(1+w.Rand.IntN(40), sim.Last(w.Rand.IntN(3)))
	}
	if err := do(n); err != nil && !n.Died() {
		t.Logf("%s: %s: %v", n, what, err) // with a shard between two nodes there may be none
	}
	n.DieAt(0, sim.Undone)
	revive(t, w, r)
}

// revive starts the nodes of a region that have died, and takes away what was torn.
func revive(t *testing.T, w *sim.World, r *sim.Region) {
	t.Helper()
	for _, n := range r.Nodes {
		if !n.Died() {
			continue
		}
		if w.Rand.IntN(2) == 0 {
			n.Kill()
		} else {
			n.PowerLoss()
		}
		time.Sleep(time.Duration(w.Rand.IntN(3_000)) * time.Millisecond)
		n.Start()
	}
	if torn := r.Mended(); torn != "" {
		t.Logf("%s: %s was torn", r.Name, torn)
	}
}

// prune prunes the backups of a region, perhaps through both of its nodes, after a look at what
// would be done that is old by then, and perhaps one dies in the middle.
func prune(t *testing.T, w *sim.World, r *sim.Region) (gone int) {
	t.Helper()
	before := r.Stock()
	pruners := r.Nodes[:1+w.Rand.IntN(2)]
	if w.Rand.IntN(2) == 0 {
		if _, err := r.Node().PruneBackups(t.Context(), api.PruneBackupsParams{}); err != nil {
			t.Errorf("%s: what would be pruned: %v", r.Name, err)
		}
		time.Sleep(time.Duration(w.Rand.IntN(20_000)) * time.Millisecond)
	}
	if w.Rand.IntN(2) == 0 {
		pruners[0].DieAt(1+w.Rand.IntN(60), sim.Last(w.Rand.IntN(3)))
	}
	var pruning sync.WaitGroup
	for _, n := range pruners {
		pruning.Go(func() {
			_, err := n.Process().PruneBackups(t.Context(), api.PruneBackupsParams{Run: true})
			if err != nil && !pruners[0].Died() && events.KindOf(err) != events.KindRefused && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: prune: %v", n, err)
			}
		})
	}
	pruning.Wait()
	pruners[0].DieAt(0, sim.Undone)
	revive(t, w, r)
	return r.CheckPruned(before)
}
