package sim_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/sim"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

func threeRegions(t *testing.T, seed uint64) *sim.World {
	t.Helper()
	return sim.NewShaped(t, seed, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
}

// ofAllRules is threeRegions with streams of all rules.
func ofAllRules(t *testing.T, seed uint64) *sim.World {
	t.Helper()
	return sim.NewShaped(t, seed, sim.Shape{Nodes: 2, AllRules: true}, "us-east-1", "us-west-1", "eu-central-1")
}

// Three regions of two nodes each are written to while nodes lose power, are
// restarted, or freeze for longer than the group waits for them, and regions lose
// sight of each other, all at random.
func TestSimNodes(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		w := ofAllRules(t, seed)
		defer w.Close()
		ctx, stop := context.WithTimeout(t.Context(), 4*time.Minute)
		defer stop()
		var writers sync.WaitGroup
		for i, r := range w.Regions {
			for j, n := range r.Nodes {
				pause := time.Duration(100+w.Rand.IntN(300)) * time.Millisecond
				writers.Go(func() { writeWith(ctx, n.Writer(10*i+j), pause) })
			}
		}
		for ctx.Err() == nil {
			time.Sleep(time.Duration(w.Rand.IntN(10_000)) * time.Millisecond)
			if w.Rand.IntN(4) == 0 {
				if _, err := w.Regions[w.Rand.IntN(3)].Node().CreateBackup(t.Context()); err != nil {
					t.Logf("backup: %v", err) // with a shard between two nodes there may be none
				}
			}
			trouble(w)
		}
		writers.Wait()
		w.Settle()
		w.Check()
		if acked := w.Acked(); acked < 1_000 {
			t.Errorf("only %d writes were acknowledged", acked)
		}
	})
}

// trouble does one thing, at random, and puts it right after a while.
func trouble(w *sim.World) {
	r := w.Regions[w.Rand.IntN(len(w.Regions))]
	n := r.Nodes[w.Rand.IntN(len(r.Nodes))]
	long := time.Duration(w.Rand.IntN(30_000)) * time.Millisecond
	switch w.Rand.IntN(6) {
	case 0:
		n.PowerLoss()
		time.Sleep(long)
		n.Start()
	case 1:
		n.Stop()
		time.Sleep(long)
		n.Start()
	case 2:
		n.DiskLoss()
		time.Sleep(long)
		n.Start()
	case 3:
		n.Freeze()
		time.Sleep(10*time.Second + long)
		n.Thaw()
	case 4:
		other := w.Regions[w.Rand.IntN(len(w.Regions))]
		w.Cut(r, other)
		time.Sleep(long)
		w.Mend(r, other)
	case 5:
		// Whatever becomes of it, and of the nodes meanwhile.
		_, _ = n.Process().RestoreShards(context.Background(), api.RestoreShardsParams{Request: timeline.Request{Shards: []int32{w.Rand.Int32N(3)}}})
	}
}

// writeWith writes until the context ends.
func writeWith(ctx context.Context, w *sim.Writer, pause time.Duration) {
	for ctx.Err() == nil {
		// A write whose answer does not come is given up, as by a person.
		once, end := context.WithTimeout(ctx, 5*time.Second)
		_ = w.Write(once)
		end()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// A node that was frozen for longer than the group waits has lost its shards. When it
// goes on it does not apply one more record to them, whatever it still holds, and closes them.
func TestSimZombie(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		w := ofAllRules(t, seed)
		defer w.Close()
		r := w.Regions[w.Rand.IntN(3)]
		zombie, heir := r.Nodes[0], r.Nodes[1]
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		var writers sync.WaitGroup
		writers.Go(func() { writeWith(ctx, heir.Writer(1), 20*time.Millisecond) })
		time.Sleep(time.Duration(w.Rand.IntN(5_000)) * time.Millisecond)
		zombie.Freeze()
		time.Sleep(30 * time.Second)
		heirs := ownOf(t, heir)
		if len(heirs) != 3 {
			t.Errorf("the other node has %d shards, want all 3", len(heirs))
		}
		before := ownOf(t, zombie)
		if len(before) == 0 {
			t.Fatal("the frozen node had no shard")
		}
		zombie.Thaw()
		for range 200 {
			for p, now := range ownOf(t, zombie) {
				was, had := before[p]
				if had && now.epoch == was.epoch && now.vector.Compare(was.vector) != events.Equal {
					t.Fatalf("shard %d has gone on under epoch %s: %v, it was %v", p, now.epoch, now.vector, was.vector)
				}
				if now.epoch < heirs[p].epoch && now.epoch != was.epoch {
					t.Fatalf("shard %d is open under epoch %s, the other node has %s", p, now.epoch, heirs[p].epoch)
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		writers.Wait()
		w.Settle()
		w.Check()
	})
}

// How a node's own backups went is told by it for as long as it is the one that schedules, and not
// for ever: neither by one that has lost that to another, nor by one that was asked once.
func TestSimWhoDoesNotScheduleForgets(t *testing.T) {
	forSeeds(t, func(t *testing.T, seed uint64) {
		w := threeRegions(t, seed)
		defer w.Close()
		r := w.Regions[w.Rand.IntN(3)]
		tells := func(n *sim.Node) bool {
			t.Helper()
			s, err := n.Own()
			if err != nil {
				t.Fatal(err)
			}
			return s.Backup != nil && s.Backup.Last != nil
		}
		for _, n := range r.Nodes {
			if _, err := n.Process().CreateBackup(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		scheduler, other := r.Nodes[0], r.Nodes[1]
		if _, is := ownOf(t, scheduler)[0]; !is {
			scheduler, other = other, scheduler
		}
		if !tells(scheduler) || tells(other) {
			t.Errorf("the node that schedules tells of its backup: %t; the other: %t", tells(scheduler), tells(other))
		}
		scheduler.Freeze()
		time.Sleep(time.Minute)
		scheduler.Thaw()
		time.Sleep(10 * time.Second)
		if tells(scheduler) {
			t.Error("the node that schedules no more tells of its backup")
		}
		w.Settle()
		w.Check()
	})
}

// owned is a shard that is open on a node.
type owned struct {
	epoch  events.Epoch
	vector events.Vector
}

func ownOf(t *testing.T, n *sim.Node) map[int32]owned {
	t.Helper()
	s, err := n.Own()
	if err != nil {
		t.Fatal(err)
	}
	open := map[int32]owned{}
	for _, row := range s.Shards {
		if row.State != "open" {
			continue
		}
		vector := events.Vector{}
		for _, l := range s.Logs {
			if l.Log.Partition == row.Partition {
				vector[l.Log] = l.Next
			}
		}
		open[row.Partition] = owned{row.Epoch, vector}
	}
	return open
}
