package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// RestoreJob says what to restore to where.
type RestoreJob struct {
	Config *config.Config
	Bucket objstore.Bucket
	Opener *seal.Opener // nil: the identity that is configured
	FS     vfs.FS       // nil: the real one
	Log    *slog.Logger
	Backup string // id; empty: the newest
	Dir    string // state directory to make; must not exist or be empty

	Planned func(bytes int64) // told once how much will be fetched; may be nil
	Fetched func(bytes int64) // told of every table that was fetched; may be nil
}

// Restore restores a backup into a new state directory and proves it. The
// state is assembled beside Dir and moved there once it is proved, so Dir holds
// all of it or is not there. What an interrupted restore left is removed first.
func Restore(ctx context.Context, job RestoreJob) (*restore.Report, error) {
	if job.FS == nil {
		job.FS = vfs.Default
	}
	m, err := findManifest(ctx, job.Bucket, job.Config.Region, job.Backup)
	if err != nil {
		return nil, err
	}
	if err := job.check(m); err != nil {
		return nil, err
	}
	chain, err := catalog.LoadChain(ctx, job.Bucket, m)
	if err != nil {
		return nil, err
	}
	t := &stateTarget{cfg: job.Config, fs: job.FS, log: job.Log, dir: job.Dir + ".restoring", lineage: newLineage(m.ID)}
	if err := t.clear(); err != nil {
		return nil, err
	}
	if job.Planned != nil {
		job.Planned(chain.Bytes())
	}
	src, err := newSource(job.Config, job.Bucket, job.Opener)
	if err != nil {
		return nil, err
	}
	report, err := restore.Run(ctx, src, chain, t, job.Fetched)
	if err != nil {
		return nil, errors.Join(err, t.fs.RemoveAll(t.dir))
	}
	if !report.Pinned {
		job.Log.Warn("the bucket may only be read: a prune could have deleted the backup during the restore", "backup", m.ID)
	}
	return report, moveDir(t.fs, t.dir, job.Dir)
}

// check refuses what cannot end well before anything is fetched.
func (job RestoreJob) check(m *format.Manifest) error {
	if err := checkFits(job.Config, m); err != nil {
		return err
	}
	names, err := job.FS.List(job.Dir)
	if err == nil && len(names) > 0 {
		return events.Errorf(events.KindRefused, "directory %s is not empty; a restore needs a new or empty one", job.Dir)
	}
	return nil
}

// checkFits refuses a backup that the configuration has no place for.
func checkFits(cfg *config.Config, m *format.Manifest) error {
	if n := int32(len(m.Shards)); n != cfg.Partitions {
		return events.Errorf(events.KindRefused, "backup %s has %d shards, the configuration says %d partitions", m.ID, n, cfg.Partitions)
	}
	for stream, rule := range m.Merge {
		s, ok := cfg.Streams[stream]
		if !ok || s.Merge != rule {
			return events.Errorf(events.KindRefused, "backup %s holds stream %s, merged by %s; the configuration does not say so", m.ID, stream, rule)
		}
	}
	return nil
}

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
	return syncedFile{f}, nil
}

// syncedFile is on disk once it is closed.
type syncedFile struct{ vfs.File }

// Write keeps the promise of io.Writer to leave p as it is: a vfs.File may change
// it, and the same bytes are hashed.
func (f syncedFile) Write(p []byte) (int, error) { return f.File.Write(bytes.Clone(p)) }

func (f syncedFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// Finish implements restore.Target.
func (t *stateTarget) Finish(ctx context.Context, shard format.Shard, layers [][]int) error {
	sc, err := shardConfig(t.cfg, t.fs, t.log, t.dir, shard.Partition)
	if err != nil {
		return err
	}
	sc.Lineage = t.lineage
	paths := make([][]string, len(layers))
	for i, tables := range layers {
		for _, n := range tables {
			paths[i] = append(paths[i], t.tablePath(shard.Partition, n))
		}
	}
	return projections.RestoreLayers(ctx, sc, paths, shard.States)
}

// moveDir moves a directory to its place, which is empty or not there.
func moveDir(fs vfs.FS, from, to string) error {
	if err := fs.RemoveAll(to); err != nil {
		return err
	}
	if err := fs.Rename(from, to); err != nil {
		return fmt.Errorf("move restored state to its place: %w", err)
	}
	return syncDir(fs, filepath.Dir(to))
}

// Restore implements api.Node: it restores beside the running state.
func (r *Region) Restore(ctx context.Context, p api.RestoreParams) (*api.Restored, error) {
	if err := r.needBucket(); err != nil {
		return nil, err
	}
	if p.Name == "" || len(p.Name) > events.MaxNameBytes || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return nil, events.Errorf(events.KindInvalid, "restore: name %q: want letters, digits and dashes, 1 to %d bytes", p.Name, events.MaxNameBytes)
	}
	if !r.restoring.TryLock() {
		return nil, events.Errorf(events.KindRefused, "restore: another restore is under way")
	}
	defer r.restoring.Unlock()
	dir := filepath.Join(r.cfg.DataDir, "restores", p.Name)
	if err := r.parts.FS.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("restore directory: %w", err)
	}
	report, err := Restore(ctx, RestoreJob{
		Config: r.cfg, Bucket: r.parts.Bucket, FS: r.parts.FS, Log: r.log, Backup: p.Backup, Dir: dir,
	})
	if err != nil {
		return nil, err
	}
	restored := ToRestored(report, dir)
	return &restored, nil
}

// ToRestored is a restore's report as the API tells it.
func ToRestored(report *restore.Report, dir string) api.Restored {
	return api.Restored{
		Backup: report.Backup, Created: report.Created, Dir: dir, Tables: report.Tables, Bytes: report.Bytes,
		Digest: digest.Total(report.States), States: report.States, Duration: report.Duration.Seconds(),
	}
}
