package backupbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

const (
	megabyte   = 1e6
	gigabyte   = 1e9
	fullShards = 4
	valueBytes = 1000
)

// cut is a projections.Cut as the snapshotter wants it.
type cut struct{ *projections.Cut }

func (c cut) LineageID() string { return c.Lineage().ID }

// fulls measures a full backup and its restore beside plain copies of the same objects:
// from memory into the bucket, and from the bucket into synced files.
func fulls(ctx context.Context, e *env) (err error) {
	keys := 1_000_000
	if e.Short {
		keys = 150_000
	}
	s, err := e.newStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	st, err := e.newState("state", fullShards)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	e.logf("%d keys of %d bytes are folded", keys, valueBytes)
	if err := st.put(ctx, keys, func(i int) int { return i }, valueBytes); err != nil {
		return err
	}
	m, err := fullBackup(ctx, e, s, st)
	if err != nil {
		return err
	}
	if err := st.close(); err != nil { // which ends its compactions
		return err
	}
	return fullRestore(ctx, e, s, st, m)
}

func fullBackup(ctx context.Context, e *env, s *store, st *state) (m *format.Manifest, err error) {
	cuts, err := st.cuts()
	defer func() { err = errors.Join(err, closeCuts(cuts)) }()
	if err != nil {
		return nil, err
	}
	counted := &countingBucket{Bucket: s.bucket}
	took, cpu, err := timed(func() error {
		m, err = snapshotter.Full(ctx, counted, cuts, backupConfig(s))
		return err
	})
	if err != nil {
		return nil, err
	}
	var live int64
	for _, state := range m.States() {
		live += state.Bytes
	}
	e.add("full", "state", float64(live)/megabyte, "MB")
	e.add("full", "in the bucket", float64(m.StoredBytes())/megabyte, "MB")
	e.report.fullRequests = float64(counted.requests.Load())
	e.add("full", "requests", e.report.fullRequests, "a backup")
	e.add("full", "backup", float64(m.StoredBytes())/megabyte/took.Seconds(), "MB/s stored")
	e.add("full", "backup of state", float64(live)/megabyte/took.Seconds(), "MB/s")
	e.add("full", "backup, CPU (server's too)", cpu.Seconds()/(float64(live)/gigabyte), "s/GB of state")

	// The same objects, under other names.
	objects := map[string][]byte{}
	for t := range m.Tables() {
		size, _ := t.Stored()
		if objects["copy/"+t.Name], err = objstore.ReadAll(ctx, s.bucket, t.Name, size); err != nil {
			return nil, err
		}
	}
	took, _, err = timed(func() error {
		return inParallel(ctx, uploads, objects, func(ctx context.Context, name string, body []byte) error { return s.bucket.Create(ctx, name, body) })
	})
	e.add("full", "plain copy into the bucket", float64(m.StoredBytes())/megabyte/took.Seconds(), "MB/s stored")
	return m, err
}

func fullRestore(ctx context.Context, e *env, s *store, st *state, m *format.Manifest) error {
	var ratios float64
	const rounds = 3 // in turns, so that what disturbs one disturbs the other
	for round := range rounds {
		ratio, err := restoreBesideCopy(ctx, e, s, st, m, fmt.Sprint("full, round ", round+1))
		if err != nil {
			return err
		}
		ratios += ratio / rounds
	}
	e.report.Summary.RestoreVsCopy = &ratios

	// A bucket in the page cache has nobody wait for it, so that all of this is bound by the processor; one behind a network has.
	ratio, err := restoreBesideCopy(ctx, e, s.limited(gigabit), st, m, "full, 1 Gbit/s")
	if err != nil {
		return err
	}
	e.add("full, 1 Gbit/s", "restore, in parts of plain copy", ratio, "")
	return nil
}

// restoreBesideCopy measures a plain copy of a backup's objects to the disk, and its restore.
func restoreBesideCopy(ctx context.Context, e *env, s *store, st *state, m *format.Manifest, name string) (ratio float64, err error) {
	copied, err := plainCopy(ctx, s, m, filepath.Join(e.dir, "copy"))
	if err != nil {
		return 0, err
	}
	dir := filepath.Join(e.dir, "restored")
	src := restore.Source{Bucket: s.bucket, Opener: s.opener, Owner: "bench"}
	restored, cpu, err := timed(func() error {
		_, err := restore.Run(ctx, src, catalog.Chain{m}, &target{st: st, dir: dir}, nil)
		return err
	})
	if err != nil {
		return 0, err
	}
	e.add(name, "restore, proved", float64(m.StoredBytes())/megabyte/restored.Seconds(), "MB/s stored")
	e.add(name, "restore, CPU (server's too)", cpu.Seconds()/(float64(m.StoredBytes())/gigabyte), "s/GB stored")
	e.add(name, "plain copy to disk", float64(m.StoredBytes())/megabyte/copied.Seconds(), "MB/s stored")
	return copied.Seconds() / restored.Seconds(), os.RemoveAll(dir)
}

// plainCopy copies the objects of a backup to synced files.
func plainCopy(ctx context.Context, s *store, m *format.Manifest, dir string) (time.Duration, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	names := map[string][]byte{}
	for t := range m.Tables() {
		names[t.Name] = nil
	}
	took, _, err := timed(func() error {
		return inParallel(ctx, downloads(), names, func(ctx context.Context, name string, _ []byte) error {
			body, _, err := s.bucket.Get(ctx, name)
			if err != nil {
				return err
			}
			defer body.Close()
			f, err := os.Create(filepath.Join(dir, filepath.Base(name)))
			if err != nil {
				return err
			}
			_, err = io.Copy(f, body)
			return errors.Join(err, f.Sync(), f.Close())
		})
	})
	return took, errors.Join(err, os.RemoveAll(dir))
}

// target assembles shards below a directory.
type target struct {
	st  *state
	dir string
}

func (t *target) path(p int32, n int) string {
	return filepath.Join(t.dir, fmt.Sprintf("%04d-%06d.sst", p, n))
}

// Create implements restore.Target.
func (t *target) Create(p int32, n int) (io.WriteCloser, error) {
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(t.path(p, n))
	return syncedFile{f}, err
}

// syncedFile is on disk once it is closed.
type syncedFile struct{ *os.File }

func (f syncedFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// Finish implements restore.Target.
func (t *target) Finish(ctx context.Context, shard format.Shard, layers [][]int) error {
	paths := make([][]string, len(layers))
	for i, tables := range layers {
		for _, n := range tables {
			paths[i] = append(paths[i], t.path(shard.Partition, n))
		}
	}
	return projections.RestoreLayers(ctx, t.st.config(t.dir, shard.Partition), paths, shard.States)
}
