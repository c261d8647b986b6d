package pipeline

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// stateTarget assembles shards below a directory.
type stateTarget struct {
	cfg     *config.Config
	fs      vfs.FS
	log     *slog.Logger
	dir     string
	lineage projections.Lineage
}

var _ restore.Target = (*stateTarget)(nil)

// FS is the file system that is restored to.
func (t *stateTarget) FS() vfs.FS { return t.fs }

// clear makes the directory, without what an interrupted restore has left in it.
func (t *stateTarget) clear() error {
	if err := t.fs.RemoveAll(t.dir); err != nil {
		return fmt.Errorf("left-over of an interrupted restore: %w", err)
	}
	if err := t.fs.MkdirAll(t.dir, 0o755); err != nil {
		return fmt.Errorf("restore directory: %w", err)
	}
	return nil
}

func (t *stateTarget) tablePath(partition int32, n int) string {
	return filepath.Join(t.dir, fmt.Sprintf("shard-%04d-%06d.sst", partition, n))
}

// Create implements restore.Target.
func (t *stateTarget) Create(partition int32, n int) (io.WriteCloser, error) {
	f, err := t.fs.Create(t.tablePath(partition, n), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &disk.SyncedFile{File: f}, nil
}

// Finish implements restore.Target.
func (t *stateTarget) Finish(ctx context.Context, shard format.Shard, layers [][]int) error {
	sc, err := t.config(shard.Partition)
	if err != nil {
		return err
	}
	paths := make([][]string, len(layers))
	for i, tables := range layers {
		for _, n := range tables {
			paths[i] = append(paths[i], t.tablePath(shard.Partition, n))
		}
	}
	return projections.RestoreLayers(ctx, sc, paths, shard.States)
}

// config is how a shard is opened that is being restored: without read models, which
// are made of what is restored when it is opened to be used.
func (t *stateTarget) config(partition int32) (projections.Config, error) {
	sc, err := shardConfig(t.cfg, t.fs, t.log, t.dir, partition)
	sc.Lineage, sc.Models = t.lineage, nil
	return sc, err
}

// reduce takes everything of other streams out of a shard; none: it stays as it is.
func (t *stateTarget) reduce(partition int32, streams []events.Stream) error {
	if len(streams) == 0 {
		return nil
	}
	sc, err := t.config(partition)
	if err != nil {
		return err
	}
	return projections.Reduce(sc, streams)
}

// foldedShard is a shard as restore.Replay brings it further.
type foldedShard struct {
	*projections.Shard
	runs []projections.Run
}

var _ restore.State = (*foldedShard)(nil)

// Fold implements restore.State.
func (s *foldedShard) Fold(runs []restore.Records) error {
	s.runs = s.runs[:0]
	for _, r := range runs {
		s.runs = append(s.runs, projections.Run{Log: r.Log, Records: r.Records, Sparse: true})
	}
	if _, err := s.Apply(s.runs); err != nil {
		return err
	}
	for l, err := range s.Blocked() {
		return fmt.Errorf("%s: %w", l, err)
	}
	return nil
}
