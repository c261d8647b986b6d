package backupbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

const (
	noiseBytes       = 8 << 10 // of a value; it does not compress
	instantReads     = 50
	parallelHydrates = 2 // as a node has
)

// instants measures instant restores of states of several sizes: how long it takes from
// nothing but the bucket to the first value, of a key at random and with all shards
// open; how long single reads take before anything is here; and how fast all of it comes here
// and is proved, beside a plain copy of the same objects.
func instants(ctx context.Context, e *env) (err error) {
	sizes := []int64{1 * gigabyte, 5 * gigabyte, 10 * gigabyte}
	if e.Short {
		sizes = []int64{gigabyte / 2}
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
	for i, size := range sizes {
		keys := int(size / noiseBytes)
		e.logf("a state of %.1f GB is folded", float64(size)/gigabyte)
		if err := st.putNoise(ctx, keys); err != nil {
			return err
		}
		m, err := backUp(ctx, s, st)
		if err != nil {
			return err
		}
		if i == len(sizes)-1 { // the room is needed
			if err := errors.Join(st.close(), os.RemoveAll(st.dir)); err != nil {
				return err
			}
		}
		if err := instant(ctx, e, s, m, keys); err != nil {
			return err
		}
		for t := range m.Tables() {
			if err := s.bucket.Delete(ctx, t.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// putNoise folds events until there are so many keys.
func (st *state) putNoise(ctx context.Context, keys int) error {
	var g errgroup.Group
	for p, shard := range st.shards {
		l := events.Log{Origin: events.FirstOrigin(origins[0]), Stream: stream, Partition: int32(p)}
		g.Go(func() error {
			random := rand.NewChaCha8([32]byte{byte(p), byte(shard.Next(l)), byte(shard.Next(l) >> 8)})
			for next, most := shard.Next(l), int64(keys/len(st.shards)); next < most; {
				if err := ctx.Err(); err != nil {
					return err
				}
				var records []*kgo.Record
				for ; next < most && len(records) < batchRecords; next++ {
					value := make([]byte, noiseBytes)
					_, _ = random.Read(value) // never fails, by its contract
					records = append(records, &kgo.Record{Offset: next, Timestamp: time.UnixMilli(next), Key: noiseKey(p, next), Value: value})
				}
				if _, err := shard.Apply([]projections.Run{{Log: l, Records: records}}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func noiseKey(shard int, n int64) []byte { return fmt.Appendf(nil, "key-%d-%010d", shard, n) }

// backUp makes a full backup.
func backUp(ctx context.Context, s *store, st *state) (m *format.Manifest, err error) {
	var cuts []snapshotter.Cut
	for _, shard := range st.shards {
		c, err := shard.Freeze()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		cuts = append(cuts, cut{c})
	}
	return snapshotter.Full(ctx, s.bucket, cuts, snapshotter.Config{
		Region: region, Software: "bench", Merge: map[events.Stream]string{stream: "lww"}, Sealer: s.sealer,
	})
}

// instant measures the restore of one backup.
func instant(ctx context.Context, e *env, s *store, m *format.Manifest, keys int) error {
	name := fmt.Sprintf("%.1f GB", float64(m.StoredBytes())/gigabyte)
	stored := float64(m.StoredBytes()) / megabyte
	copied, err := plainCopy(ctx, s, m, filepath.Join(e.dir, "copy"))
	if err != nil {
		return err
	}
	e.add(name, "tables", float64(len(slices.Collect(m.Tables()))), "")
	return serve(ctx, e, s, name, m, noiseReader(keys), func(shards []*projections.Shard) error {
		hydrated, cpu, err := timed(func() error {
			var g errgroup.Group
			g.SetLimit(parallelHydrates)
			for _, shard := range shards {
				g.Go(func() error { return shard.Hydrate(ctx) })
			}
			return g.Wait()
		})
		if err != nil {
			return err
		}
		e.add(name, "hydrate, proved", stored/hydrated.Seconds(), "MB/s stored")
		e.add(name, "hydrate, CPU (server's too)", cpu.Seconds()/(stored/1000), "s/GB stored")
		e.add(name, "plain copy to disk", stored/copied.Seconds(), "MB/s stored")
		e.add(name, "hydrate, in parts of plain copy", copied.Seconds()/hydrated.Seconds(), "")
		return nil
	})
}

// reader reads a key at random.
type reader func(shards []*projections.Shard) error

// serve opens a backup in place and measures reads out of the bucket; then come what is to
// be done with the shards, and their end.
func serve(ctx context.Context, e *env, s *store, name string, m *format.Manifest, read reader, then func([]*projections.Shard) error) (err error) {
	job := restoreJob(e, s, m)
	defer func() { err = errors.Join(err, os.RemoveAll(job.Dir)) }()
	begun := time.Now()
	if _, err := pipeline.RestoreInPlace(ctx, job); err != nil {
		return err
	}
	shards, err := openShards(job)
	defer func() {
		for _, shard := range shards {
			err = errors.Join(err, shard.Close())
		}
	}()
	if err != nil {
		return err
	}
	if err := read(shards); err != nil {
		return err
	}
	first := time.Since(begun).Seconds()
	var reads []time.Duration
	for range instantReads {
		took, _, err := timed(func() error { return read(shards) })
		if err != nil {
			return err
		}
		reads = append(reads, took)
	}
	slices.Sort(reads)
	e.add(name, "first read", first, "s")
	e.add(name, "read of a key before it is here, median", reads[len(reads)/2].Seconds()*1000, "ms")
	e.add(name, "read of a key before it is here, most", reads[len(reads)-1].Seconds()*1000, "ms")
	if worst := e.report.Summary.FirstReadS; worst == nil || first > *worst {
		e.report.Summary.FirstReadS = &first
	}
	return then(shards)
}

// The deltas of a day that have been compacted as far as they are: hours, ten minutes and
// minutes, upon a full backup.
const dayOfDeltas = 23 + 5 + 9

// chains measures reads out of a full backup, and out of the same state with the deltas
// of a day upon it.
func chains(ctx context.Context, e *env) (err error) {
	keys := 1_000_000
	if e.Short {
		keys = 100_000
	}
	s, err := e.newStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	e.logf("%d keys of %d bytes are folded", keys, valueBytes)
	d, err := e.newDeltaState(ctx, s, "chain", keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	full := d.newest
	for range dayOfDeltas {
		if _, err := d.delta(ctx, keys/100); err != nil {
			return err
		}
	}
	read := func(shards []*projections.Shard) error {
		found, err := projections.Get(shards, stream, string(stateKey(rand.IntN(keys))))
		if err == nil && len(found.Value) == 0 {
			err = errors.New("a key has no value")
		}
		return err
	}
	nothing := func([]*projections.Shard) error { return nil }
	if err := serve(ctx, e, s, "full backup alone", full, read, nothing); err != nil {
		return err
	}
	if err := serve(ctx, e, s, fmt.Sprintf("with %d deltas", dayOfDeltas), d.newest, read, nothing); err != nil {
		return err
	}
	return serve(ctx, e, s.distant(), fmt.Sprintf("with %d deltas, each answer %s later", dayOfDeltas, distance), d.newest, read, nothing)
}

func restoreJob(e *env, s *store, m *format.Manifest) pipeline.RestoreJob {
	cfg := config.Default()
	cfg.Region, cfg.Partitions, cfg.Models = region, fullShards, nil
	cfg.Streams = map[events.Stream]config.Stream{stream: {Topic: string(stream), Merge: "lww"}}
	return pipeline.RestoreJob{
		Config: &cfg, Bucket: s.bucket, Opener: s.opener, Log: slog.New(slog.DiscardHandler), Dir: filepath.Join(e.dir, "restored"),
		Request: timeline.Request{Target: timeline.Target{Backup: m.ID}},
	}
}

// openShards opens all shards at once.
func openShards(job pipeline.RestoreJob) ([]*projections.Shard, error) {
	opened := make([]*projections.Shard, fullShards)
	var g errgroup.Group
	for p := range opened {
		g.Go(func() (err error) {
			opened[p], err = pipeline.OpenShard(job, int32(p))
			return err
		})
	}
	err := g.Wait()
	return slices.DeleteFunc(opened, func(s *projections.Shard) bool { return s == nil }), err
}

// noiseReader reads keys of a state of noise.
func noiseReader(keys int) reader {
	return func(shards []*projections.Shard) error {
		p := rand.IntN(len(shards))
		key := string(noiseKey(p, rand.Int64N(int64(keys/len(shards)))))
		found, err := projections.Get(shards, stream, key)
		if err == nil && len(found.Value) != noiseBytes {
			err = fmt.Errorf("key %s has %d bytes, want %d", key, len(found.Value), noiseBytes)
		}
		return err
	}
}
