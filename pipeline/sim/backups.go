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
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// CheckBackups checks that all that exists in the buckets is restored to exactly the fold of its
// vector. It returns how many of each kind there are.
func (w *World) CheckBackups() (fulls, deltas int) {
	w.t.Helper()
	logs := w.readLogs()
	for _, r := range w.Regions {
		all, err := catalog.All(context.Background(), r.Bucket, r.Name)
		if err != nil {
			w.t.Error(err)
			continue
		}
		for _, m := range all {
			if m.Kind == format.Delta {
				deltas++
			} else {
				fulls++
			}
			if err := r.checkBackup(m, logs); err != nil {
				w.t.Errorf("%s: %s %s: %v", r.Name, m.Kind, m.ID, err)
			}
		}
	}
	return fulls, deltas
}

// checkBackup restores a backup, which proves its states, and compares these with those
// of logs that are folded anew.
func (r *Region) checkBackup(m *format.Manifest, logs map[events.Log][]*kgo.Record) error {
	cfg, fs := r.config(), vfs.NewMem()
	if err := fs.MkdirAll(cfg.DataDir, 0o755); err != nil {
		return err
	}
	restored, err := pipeline.Restore(context.Background(), pipeline.RestoreJob{
		Config: cfg, Bucket: r.Bucket, FS: fs, Log: slog.New(slog.DiscardHandler), Dir: pipeline.StateDir(cfg),
		Request: timeline.Request{Target: timeline.Target{Backup: m.ID}},
	})
	if err != nil {
		return err
	}
	folded := []events.LogState{}
	for _, shard := range m.Shards {
		states, err := r.world.foldAnew(shard, logs)
		if err != nil {
			return err
		}
		folded = append(folded, states...)
	}
	if !slices.Equal(restored.States, folded) {
		return fmt.Errorf("restored to\n%+v\nfolded anew\n%+v", restored.States, folded)
	}
	return nil
}

// foldAnew folds the logs of a shard up to where a backup of it is.
func (w *World) foldAnew(shard format.Shard, logs map[events.Log][]*kgo.Record) ([]events.LogState, error) {
	s, err := projections.Open(projections.Config{
		Partition: shard.Partition, Dir: "anew", FS: vfs.NewMem(), Rules: w.rules(),
	})
	if err != nil {
		return nil, err
	}
	for _, st := range shard.States {
		if n := int64(len(logs[st.Log])); n < st.Next {
			return nil, fmt.Errorf("%s has %d records, and the backup %d", st.Log, n, st.Next)
		}
		if _, err := s.Apply([]projections.Run{{Log: st.Log, Records: logs[st.Log][:st.Next]}}); err != nil {
			return nil, err
		}
	}
	states := s.Logs()
	return states, s.Close()
}
