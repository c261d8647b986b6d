package history_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/lab/history"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

var rules = map[events.Stream]merge.Rule{history.Stream: lww.Rule{}}

// archivist is a region that folds the history, archives it and backs it up as it comes.
type archivist struct {
	t        *testing.T
	region   events.Region
	logs     logs
	bucket   *objstore.Memory
	shards   []*projections.Shard
	builders []*segment.Builder
}

func newArchivist(t *testing.T, region events.Region, l logs) *archivist {
	a := &archivist{t: t, region: region, logs: l, bucket: objstore.NewMemory("bucket")}
	for p := range int32(partitions) {
		shard, err := projections.Open(projections.Config{Partition: p, Dir: "state", FS: vfs.NewMem(), Rules: rules, Lineage: projections.Lineage{ID: "own"}})
		if err != nil {
			t.Fatal(err)
		}
		a.shards = append(a.shards, shard)
		a.builders = append(a.builders, segment.NewBuilder(segment.Config{
			Region: region, Shard: p, Software: "test", Sealer: seal.None(), Chain: digest.NewChain(),
		}, nil))
	}
	return a
}

// upTo folds and archives the events below n: a segment of each shard, closed a second
// later.
func (a *archivist) upTo(n int) {
	a.t.Helper()
	for l, records := range a.logs.records {
		b := a.builders[l.Partition]
		if _, known := b.Next(l); !known {
			if err := b.Begin(format.LogEnd{Log: l}); err != nil {
				a.t.Fatal(err)
			}
		}
		to := 0
		for to < len(records) && a.logs.seq[records[to]] < n {
			if err := b.Add(l, records[to]); err != nil {
				a.t.Fatal(err)
			}
			to++
		}
		if _, err := a.shards[l.Partition].Apply([]projections.Run{{Log: l, Records: records[:to]}}); err != nil {
			a.t.Fatal(err)
		}
	}
	for p, b := range a.builders {
		if b.Empty() {
			continue
		}
		s, object, err := b.Close(after(n).Add(time.Second), 1, func(l events.Log, next int64) (events.Mark, bool) {
			m, err := a.shards[p].At(l, next)
			return m, err == nil
		})
		if err == nil {
			err = segment.Append(context.Background(), a.bucket, s, object)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
}

// after is the time of the nth event, and so that after n of them.
func after(n int) time.Time { return time.UnixMilli(int64(n)) }

type cut struct{ *projections.Cut }

func (c cut) LineageID() string { return c.Lineage().ID }

func (a *archivist) backup(n int) {
	a.t.Helper()
	cfg := snapshotter.Config{Region: a.region, Software: "test", Merge: map[events.Stream]string{history.Stream: "lww"}, Sealer: seal.None()}
	var cuts []snapshotter.Cut
	for _, s := range a.shards {
		c, err := s.Freeze()
		if err != nil {
			a.t.Fatal(err)
		}
		defer c.Close()
		cuts = append(cuts, cut{c})
	}
	at := after(n).Add(time.Second).UTC()
	id := format.NewID(at, [4]byte{})
	shards, err := snapshotter.Shards(context.Background(), a.bucket, id, cuts, cfg)
	if err == nil {
		_, err = snapshotter.Publish(context.Background(), a.bucket, id, at, shards, cfg)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// The real history, restored to points in time: at each at which the truth is known it is
// the truth, from whatever backup and however segments were cut.
func TestPointsInTimeAreTheTruth(t *testing.T) {
	a := newArchivist(t, "us-east-1", readLogs(t))
	defer a.close()
	for n := 700; n < history.Events+700; n += 700 {
		a.upTo(min(n, history.Events))
		if n%4_900 == 0 {
			a.backup(n)
		}
	}
	for _, n := range history.Checkpoints() {
		fs := vfs.NewMem()
		restored, err := pipeline.Restore(t.Context(), pipeline.RestoreJob{
			Config: a.config(), Bucket: a.bucket, FS: fs, Log: slog.New(slog.DiscardHandler), Dir: "/restored",
			Request: timeline.Request{Target: timeline.Target{Time: after(n)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("after %d events: from backup %q, %+v", n, restored.Backup, restored.Replayed)
		var shards []*projections.Shard
		for p := range int32(partitions) {
			s, err := projections.Open(projections.Config{Partition: p, Dir: fmt.Sprintf("/restored/shard-%04d", p), FS: fs, Rules: rules})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			shards = append(shards, s)
		}
		wantState(t, shards, n)
		folded := int64(0)
		for _, st := range restored.States {
			folded += st.Events
		}
		if folded != int64(n) || restored.Replayed.Marks == 0 || (restored.Backup == "") != (n < 4_900) {
			t.Errorf("after %d events: %d are folded, %+v", n, folded, restored)
		}
	}
}
