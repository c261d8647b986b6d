package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

const (
	parallelPast = 4 // shards of a backup that are looked into at a time

	// pastMemTableBytes is little: nothing is written.
	pastMemTableBytes = 256 << 10
)

// GetAt reads a key as a backup has it, out of the bucket: of each shard the few
// parts of tables in which the key would be, by way of a database in memory that refers
// to them.
func (b Backups) GetAt(ctx context.Context, p api.GetAtParams) (*api.EntryAt, error) {
	stream, ok := b.Config.Streams[p.Stream]
	if !ok {
		return nil, events.Errorf(events.KindNotFound, "stream %s is not configured; there is %s", p.Stream, joinStreams(b.Config))
	}
	if len(p.Key) == 0 || len(p.Key) > events.MaxKeyBytes {
		return nil, events.Errorf(events.KindInvalid, "get: want a key of 1 to %d bytes", events.MaxKeyBytes)
	}
	m, err := b.at(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := checkFits(b.Config, m); err != nil {
		return nil, err
	}
	src, err := newSource(b.Config, b.Bucket, b.Opener)
	if err != nil {
		return nil, err
	}
	entity := projections.Entity{Stream: p.Stream, Key: string(p.Key)}
	_, err = src.Pinned(ctx, m, func() (err error) {
		entity.Slices, err = b.slicesAt(ctx, m, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	rule, err := projections.LookupRule(stream.Merge)
	if err != nil {
		return nil, err
	}
	e, err := entity.Join(rule)
	if err != nil {
		return nil, err
	}
	if !e.Exists {
		return nil, events.Errorf(events.KindNotFound, "stream %s of %s has no key %q in backup %s of %s", p.Stream, b.Config.Region, p.Key, m.ID, m.Created.Format(time.RFC3339))
	}
	at := &api.EntryAt{Entry: toEntry(e), Backup: m.ID, Created: m.Created}
	at.Context = events.Vector{}
	for _, st := range m.States() {
		if st.Log.Stream == p.Stream {
			at.Context[st.Log] = st.Next
		}
	}
	return at, nil
}

// at finds the backup that is asked for.
func (b Backups) at(ctx context.Context, p api.GetAtParams) (*format.Manifest, error) {
	if p.Time == nil || p.Backup != "" {
		if p.Time != nil {
			return nil, events.Errorf(events.KindInvalid, "get: a backup or a time, not both")
		}
		return findManifest(ctx, b.Bucket, b.Config.Region, p.Backup)
	}
	ids, err := catalog.IDs(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Backward(ids) {
		began, err := format.IDTime(id)
		if err != nil {
			return nil, err
		}
		if began.After(*p.Time) {
			continue
		}
		m, err := catalog.Load(ctx, b.Bucket, b.Config.Region, id)
		if events.KindOf(err) == events.KindNotFound {
			continue // it has been pruned meanwhile, or what it builds on has
		}
		return m, err
	}
	return nil, events.Errorf(events.KindNotFound, "%s has no backup that was made at or before %s", b.Config.Region, p.Time.Format(time.RFC3339))
}

// slicesAt reads the slices of a key out of all shards: producers with different
// partitioners can put one key into different partitions.
func (b Backups) slicesAt(ctx context.Context, m *format.Manifest, p api.GetAtParams) ([]merge.Slice, error) {
	outside := newOutsideTables(b.Config, b.Bucket, b.Opener)
	found := make([][]merge.Slice, len(m.Shards))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelPast)
	for i, shard := range m.Shards {
		if len(shard.States) == 0 {
			continue
		}
		g.Go(func() (err error) {
			s, err := b.openAt(ctx, outside, m, shard.Partition)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			e, err := projections.EntityOf([]*projections.Shard{s}, p.Stream, string(p.Key))
			found[i] = e.Slices
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("backup %s: %w", m.ID, err)
	}
	return slices.SortedFunc(slices.Values(slices.Concat(found...)), func(a, b merge.Slice) int { return a.Log.Compare(b.Log) }), nil
}

// openAt opens a shard as a backup has it, in memory.
func (b Backups) openAt(ctx context.Context, outside *outsideTables, m *format.Manifest, partition int32) (*projections.Shard, error) {
	log := b.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	sc, err := shardConfig(b.Config, vfs.NewMem(), log, "state", partition)
	if err != nil {
		return nil, err
	}
	sc.Models, sc.MinFreeBytes, sc.MemTableBytes, sc.Outside, sc.Lineage = nil, 0, pastMemTableBytes, outside, newLineage(m.ID)
	layers, err := outside.layers(ctx, m, partition)
	if err != nil {
		return nil, err
	}
	if err := projections.RestoreInPlace(ctx, sc, m.ID, layers, m.Shards[partition].States); err != nil {
		return nil, err
	}
	return projections.Open(sc)
}

// GetAt implements api.Node.
func (r *Region) GetAt(ctx context.Context, p api.GetAtParams) (*api.EntryAt, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.GetAt(ctx, p)
}
