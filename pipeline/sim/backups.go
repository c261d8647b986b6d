package sim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// CheckBackups checks that all that exists in the buckets is restored to exactly the fold of its
// vector, and shows what that means. It returns how many of each kind there are.
func (w *World) CheckBackups() (fulls, deltas int) {
	w.t.Helper()
	logs := w.readLogs()
	for _, r := range w.Regions {
		if r.Bucket == nil {
			continue
		}
		all, err := catalog.All(context.Background(), r.Bucket, r.Name)
		if err != nil {
			w.t.Error(err)
			continue
		}
		for i, m := range all {
			if m.Kind == format.Delta {
				deltas++
			} else {
				fulls++
			}
			// What is seen is a function of the slices; so some backups tell for all.
			if err := r.checkBackup(m, logs, i%7 == 6 || i == len(all)-1); err != nil {
				w.t.Errorf("%s: %s %s: %v", r.Name, m.Kind, m.ID, err)
			}
		}
	}
	return fulls, deltas
}

// checkBackup restores a backup, which proves its states, and compares these with those
// of logs that are folded anew, and perhaps what is seen with what the logs mean.
func (r *Region) checkBackup(m *format.Manifest, logs map[events.Log][]*kgo.Record, seen bool) error {
	fs := vfs.NewMem()
	restored, err := pipeline.Restore(context.Background(), r.restoreJob(fs, timeline.Target{Backup: m.ID}))
	if err != nil {
		return err
	}
	folded, known := r.folded[m.ID]
	if !known {
		if folded, err = r.world.foldAll(events.VectorOf(statesOf(m)), logs); err != nil {
			return err
		}
		r.folded[m.ID] = folded
	}
	return r.isFold(fs, restored, folded, logs, seen)
}

func statesOf(m *format.Manifest) (all []events.LogState) {
	for _, shard := range m.Shards {
		all = append(all, shard.States...)
	}
	return all
}

// restoreJob is a restore out of a region's bucket.
func (r *Region) restoreJob(fs vfs.FS, target timeline.Target) pipeline.RestoreJob {
	cfg := r.config()
	return pipeline.RestoreJob{
		Config: cfg, Bucket: r.Bucket, FS: fs, Log: slog.New(slog.DiscardHandler), Dir: pipeline.StateDir(cfg),
		Request: timeline.Request{Target: target},
	}
}

// isFold compares what was restored with what the logs come to at the same vector.
func (r *Region) isFold(fs vfs.FS, restored *api.Restored, folded []events.LogState, logs map[events.Log][]*kgo.Record, seen bool) error {
	if got := sorted(restored.States); !slices.Equal(got, folded) {
		return fmt.Errorf("restored to\n%+v\nfolded anew\n%+v", got, folded)
	}
	if !seen {
		return nil
	}
	below := map[events.Log][]*kgo.Record{}
	for _, st := range folded {
		below[st.Log] = logs[st.Log][:st.Next]
	}
	want, err := r.world.meaning(below)
	if err != nil {
		return err
	}
	var shards []*projections.Shard
	for p := range int32(partitions) {
		s, err := projections.Open(projections.Config{
			Partition: p, Dir: fmt.Sprintf("%s/shard-%04d", pipeline.StateDir(r.config()), p), FS: fs, Rules: r.world.rules(),
		})
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		shards = append(shards, s)
	}
	for stream := range want {
		got := view{}
		for e, err := range projections.Scan(shards, stream, "", "") {
			if err != nil {
				return err
			}
			got[e.Key] = api.EntryOf(e)
		}
		if err := got.is(want[stream]); err != nil {
			return fmt.Errorf("stream %s: %w", stream, err)
		}
	}
	return nil
}

func sorted(states []events.LogState) []events.LogState {
	return slices.SortedFunc(slices.Values(states), func(a, b events.LogState) int { return a.Log.Compare(b.Log) })
}

// foldAll folds the logs of all shards anew, up to a vector.
func (w *World) foldAll(to events.Vector, logs map[events.Log][]*kgo.Record) (all []events.LogState, err error) {
	for p := range int32(partitions) {
		states, err := w.foldAnew(p, to, logs)
		if err != nil {
			return nil, err
		}
		all = append(all, states...)
	}
	return sorted(all), nil
}

// foldAnew folds the logs of a shard up to a vector.
func (w *World) foldAnew(partition int32, to events.Vector, logs map[events.Log][]*kgo.Record) ([]events.LogState, error) {
	s, err := projections.Open(projections.Config{Partition: partition, Dir: "anew", FS: vfs.NewMem(), Rules: w.rules()})
	if err != nil {
		return nil, err
	}
	for log, next := range to {
		if log.Partition != partition || next == 0 {
			continue
		}
		if n := int64(len(logs[log])); n < next {
			return nil, fmt.Errorf("%s has %d records, and the backup %d", log, n, next)
		}
		if _, err := s.Apply([]projections.Run{{Log: log, Records: logs[log][:next]}}); err != nil {
			return nil, err
		}
	}
	states := s.Logs()
	return states, s.Close()
}
