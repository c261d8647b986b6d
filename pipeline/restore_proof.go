package pipeline

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/projections"
)

// ProveRestored computes the digests of a restored state anew, from what is at rest, and
// compares them with its report. path is the state's directory, or its report. A
// difference is of kind events.KindInconsistent; a state that has gone on since is
// refused.
func ProveRestored(fs vfs.FS, path string) (*api.Restored, error) {
	if name := filepath.Base(path); name == RestoreReport || name == RestoringInPlace {
		path = filepath.Dir(path)
	}
	report := &api.Restored{}
	there, err := disk.ReadNote(fs, filepath.Join(path, RestoreReport), report)
	if err == nil && !there {
		err = notProved(fs, path)
	}
	if err != nil {
		return nil, err
	}
	cfg := config.Default()
	cfg.Region, cfg.Partitions, cfg.Limits.MinFreeBytes = report.Region, int32(len(report.Shards)), 0
	cfg.Streams = map[events.Stream]config.Stream{}
	for stream, rule := range report.Merge {
		cfg.Streams[stream] = config.Stream{Merge: rule}
	}
	var failed []error
	for _, partition := range report.Shards {
		want := slices.DeleteFunc(slices.Clone(report.States), func(st events.LogState) bool { return st.Log.Partition != partition })
		failed = append(failed, proveShard(&cfg, fs, path, partition, report.Lineage, want))
	}
	report.Dir = path
	return report, errors.Join(failed...)
}

// proveShard compares a shard with the states that it was left in.
func proveShard(cfg *config.Config, fs vfs.FS, dir string, partition int32, lineage string, want []events.LogState) (err error) {
	sc, err := shardConfig(cfg, fs, slog.New(slog.DiscardHandler), dir, partition)
	if err != nil {
		return err
	}
	if _, err := fs.Stat(sc.Dir); err != nil { // else it would be made
		return events.Errorf(events.KindInconsistent, "shard %d is not there: %w", partition, err)
	}
	shard, err := openState(sc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shard.Close()) }()
	if shard.Lineage().ID != lineage {
		return events.Errorf(events.KindInconsistent, "shard %d is of lineage %s, the report is of %s", partition, shard.Lineage().ID, lineage)
	}
	found, err := shard.Verify()
	if err != nil {
		return events.Errorf(events.KindInconsistent, "shard %d: %w", partition, err)
	}
	if o := events.VectorOf(found).Compare(events.VectorOf(want)); o == events.After {
		return events.Errorf(events.KindRefused, "shard %d has gone on since it was restored: it is at %s, the report at %s", partition, events.VectorOf(found), events.VectorOf(want))
	}
	return projections.CompareStates(partition, want, found)
}
