// Package restore brings a backup back: it fetches every table of the backup,
// verifies it against the manifest, and hands it to a Target that assembles the
// state and proves it. Nothing is taken on trust: a table whose size or hash
// differs, sealed or opened, is refused and named.
package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Target is where state is restored to. Its methods are called from several
// goroutines, for one shard from one.
type Target interface {
	// Create opens a place for the nth table of a shard. If fetching the table
	// broke off, it is called again for the same table: what was written before
	// is forgotten.
	Create(partition int32, n int) (io.WriteCloser, error)

	// Finish assembles the shard from the tables, in order, and proves that
	// its digests and counts are those of shard.States.
	Finish(ctx context.Context, shard format.Shard) error
}

// Report says what a restore did.
type Report struct {
	Backup   string            `json:"backup"`
	Region   events.Region     `json:"region"`
	Created  time.Time         `json:"created"` // when the backup was made
	Pinned   bool              `json:"pinned"`  // against deletion meanwhile; false: the bucket may only be read
	Tables   int               `json:"tables"`
	Bytes    int64             `json:"bytes"`  // fetched
	States   []events.LogState `json:"states"` // proved
	Duration time.Duration     `json:"duration_ns"`
}

const parallelShards = 2

// Run restores a backup. It is pinned meanwhile, so that nobody deletes it. fetched,
// if not nil, is told the bytes of every table that has been fetched and verified; it
// may be called from several goroutines.
func Run(ctx context.Context, src Source, m *format.Manifest, target Target, fetched func(bytes int64)) (*Report, error) {
	begun := time.Now()
	report := &Report{Backup: m.ID, Region: m.Region, Created: m.Created, Bytes: m.Bytes(), States: m.States()}
	for _, shard := range m.Shards {
		report.Tables += len(shard.Tables)
	}
	var err error
	report.Pinned, err = src.opened(ctx, m, m.Shards, func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(parallelShards)
		for _, shard := range m.Shards {
			g.Go(func() error { return src.shard(ctx, m, shard, target, fetched) })
		}
		return g.Wait()
	})
	if err != nil {
		return nil, err
	}
	report.Duration = time.Since(begun)
	return report, nil
}

// Shard restores one shard of a backup, as Run does all of them.
func Shard(ctx context.Context, src Source, m *format.Manifest, partition int32, target Target, fetched func(bytes int64)) error {
	if partition < 0 || int(partition) >= len(m.Shards) {
		return events.Errorf(events.KindNotFound, "backup %s has no shard %d", m.ID, partition)
	}
	shards := m.Shards[partition : partition+1]
	_, err := src.opened(ctx, m, shards, func() error { return src.shard(ctx, m, shards[0], target, fetched) })
	return err
}

// opened is Pinned for some shards, of which those that cannot be opened are refused
// before anything is done.
func (src Source) opened(ctx context.Context, m *format.Manifest, shards []format.Shard, do func() error) (pinned bool, err error) {
	for _, shard := range shards {
		for _, t := range shard.Tables {
			if err := src.Opener.Fits(t.Keys); err != nil {
				return false, fmt.Errorf("restore of backup %s, object %s: %w", m.ID, t.Name, err)
			}
		}
	}
	return src.Pinned(ctx, m, do)
}

// Pinned does something with a backup while a pin keeps it from being deleted; no pin
// if the bucket may only be read.
func (src Source) Pinned(ctx context.Context, m *format.Manifest, do func() error) (pinned bool, err error) {
	var unpin func()
	err = retry(ctx, func() error {
		unpin, err = catalog.Pin(ctx, src.Bucket, m.Region, m.ID, cmp.Or(src.Owner, "restore"))
		return err
	})
	switch {
	case errors.Is(err, objstore.ErrAccess): // better to go on without a pin than not
		return false, do()
	case err != nil:
		return false, err
	}
	defer unpin()
	return true, do()
}

func (src Source) shard(ctx context.Context, m *format.Manifest, shard format.Shard, target Target, fetched func(bytes int64)) error {
	for n, t := range shard.Tables {
		if err := src.Fetch(ctx, t, func() (io.WriteCloser, error) { return target.Create(shard.Partition, n) }); err != nil {
			return fmt.Errorf("restore of backup %s, object %s: %w", m.ID, t.Name, err)
		}
		if fetched != nil {
			fetched(t.Size)
		}
	}
	if err := target.Finish(ctx, shard); err != nil {
		return fmt.Errorf("restore of backup %s: %w", m.ID, err)
	}
	return nil
}
