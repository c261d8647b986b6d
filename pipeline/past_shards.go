package pipeline

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

const (
	parallelPast = 4 // shards of a moment that are brought there at a time

	// pastMemTableBytes is little: next to nothing is written.
	pastMemTableBytes = 256 << 10

	// pastCacheBytes is what all shards of a moment keep of what they have read.
	pastCacheBytes = 16 << 20
)

// traveller brings shards to a moment, in memory, as far as some keys of a stream are
// concerned. Whoever shows it what they hold must not go on with them: of other keys
// and logs they have what the backup has.
type traveller struct {
	backups Backups
	moment  *moment
	want    func(*kgo.Record) *kgo.Record
	src     restore.Source
	outside *outsideTables
	log     *slog.Logger

	mu                      sync.Mutex
	shards                  []*projections.Shard
	segments, looked, found int64 // records, but for the first
}

func (b Backups) newTraveller(m *moment, wanted func(key string) bool) (*traveller, error) {
	src, err := newSource(b.Config, b.Bucket, b.Opener)
	if err != nil {
		return nil, err
	}
	t := &traveller{backups: b, moment: m, want: recordsOf(wanted), src: src, outside: newOutsideTables(b.Config, b.Bucket, b.Opener), log: b.Log}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	return t, nil
}

// travel has the shards read. All are there, since producers with different partitioners
// can put one key into different partitions.
func (t *traveller) travel(ctx context.Context, read func([]*projections.Shard) error) (err error) {
	cache := pebble.NewCache(pastCacheBytes)
	defer cache.Unref()
	defer func() {
		for _, s := range t.shards {
			err = errors.Join(err, s.Close())
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelPast)
	for _, span := range t.moment.spans {
		g.Go(func() error { return t.shard(gctx, span, cache) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return read(t.shards)
}

// shard brings one shard there.
func (t *traveller) shard(ctx context.Context, span timeline.Span, cache *pebble.Cache) error {
	partition := span.Shard
	states := t.states(partition)
	if len(states) == 0 && span.First == 0 {
		return nil // nothing of the stream was there
	}
	sc, err := shardConfig(t.backups.Config, vfs.NewMem(), t.log, "state", partition)
	if err != nil {
		return err
	}
	sc.Models, sc.MinFreeBytes, sc.MemTableBytes, sc.Outside, sc.Cache, sc.Lineage = nil, 0, pastMemTableBytes, t.outside, cache, newLineage("")
	if base := t.moment.base(); base != nil {
		sc.Lineage = newLineage(base.ID)
		layers, err := t.outside.layers(ctx, t.moment.chain, partition)
		if err == nil {
			err = projections.RestoreInPlace(ctx, sc, base.ID, layers, base.Shards[partition].States)
		}
		if err != nil {
			return err
		}
	}
	s, err := projections.Open(sc)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.shards = append(t.shards, s)
	t.mu.Unlock()
	return t.foldUpTo(ctx, s, span, states)
}

// foldUpTo folds what is wanted of the segments, by the very fold of a region.
func (t *traveller) foldUpTo(ctx context.Context, s *projections.Shard, span timeline.Span, states []events.LogState) error {
	run, err := t.run(ctx, span)
	if err != nil || len(run) == 0 {
		return err
	}
	pick := restore.Pick{
		Region: t.backups.Config.Region, Shard: span.Shard, Run: run, From: states, To: vectorOf(t.moment.vector, span.Shard), Chain: digest.NewChain(), Want: t.want,
	}
	folded := &foldedShard{Shard: s}
	for picked, err := range pick.Segments(ctx, t.src) {
		if err == nil && len(picked.Found) > 0 {
			err = folded.Fold(picked.Found)
		}
		if err != nil {
			return err
		}
		t.count(picked)
	}
	return nil
}

func (t *traveller) count(picked restore.Picked) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.segments, t.looked = t.segments+1, t.looked+picked.Looked
	for _, f := range picked.Found {
		t.found += int64(len(f.Records))
	}
}

// states are those of the stream's logs in the backup.
func (t *traveller) states(partition int32) (states []events.LogState) {
	if base := t.moment.base(); base != nil {
		for _, st := range base.Shards[partition].States {
			if st.Log.Stream == t.moment.stream {
				states = append(states, st)
			}
		}
	}
	return states
}

// run are the segments with their sizes. That none is missing shows in the chains.
func (t *traveller) run(ctx context.Context, span timeline.Span) (run []segment.Listed, err error) {
	if span.First == 0 {
		return nil, nil
	}
	for at, err := range segment.Behind(ctx, t.src.Bucket, t.backups.Config.Region, span.Shard, span.First-1) {
		if err != nil {
			return nil, err
		}
		if at.Number > span.Last {
			break
		}
		if span.Has(at.Number) {
			run = append(run, at)
		}
	}
	return run, nil
}

// recordsOf finds the records that have a part in what some keys hold: theirs, and of
// those of upkeep what concerns the keys.
func recordsOf(wanted func(key string) bool) func(*kgo.Record) *kgo.Record {
	return func(r *kgo.Record) *kgo.Record {
		if wanted(string(r.Key)) {
			return r
		}
		if key := string(r.Key); key != events.CollectKey && key != events.BuryKey {
			return nil
		}
		e, err := events.Decode(r)
		if err != nil || !e.IsUpkeep() {
			return nil
		}
		all, err := e.Upkeep()
		if err != nil {
			return nil // it is parked, and does nothing
		}
		theirs := slices.DeleteFunc(all, func(t events.Tombstone) bool { return !wanted(t.Key) })
		if len(theirs) == 0 {
			return nil
		}
		name := events.NewCollection
		if e.IsBurial() {
			name = events.NewBurial
		}
		less, err := name(theirs)
		if err != nil {
			return r
		}
		part := *r
		part.Value = less.Value
		return &part
	}
}

// meter counts what is read of a bucket.
type meter struct {
	objstore.Bucket
	requests, bytes atomic.Int64
}

// namesPerList is how many names a store tells of in one request.
const namesPerList = 1000

// Get implements objstore.Reader.
func (m *meter) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	body, info, err := m.Bucket.Get(ctx, name)
	m.requests.Add(1)
	m.bytes.Add(info.Size)
	return body, info, err
}

// GetRange implements objstore.Reader.
func (m *meter) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	m.requests.Add(1)
	m.bytes.Add(length)
	return m.Bucket.GetRange(ctx, name, offset, length)
}

// Stat implements objstore.Reader.
func (m *meter) Stat(ctx context.Context, name string) (objstore.Info, error) {
	m.requests.Add(1)
	return m.Bucket.Stat(ctx, name)
}

// List implements objstore.Reader.
func (m *meter) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return m.ListAfter(ctx, prefix, "")
}

// ListAfter implements objstore.Reader.
func (m *meter) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		n := 0
		for info, err := range m.Bucket.ListAfter(ctx, prefix, after) {
			if n%namesPerList == 0 {
				m.requests.Add(1)
			}
			if n++; !yield(info, err) {
				return
			}
		}
		if n == 0 {
			m.requests.Add(1)
		}
	}
}
