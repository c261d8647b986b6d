// Package restore brings a backup back: it fetches every table of the backup and of
// those that it builds on, verifies it against its manifest, and hands it to a Target that assembles the
// state and proves it. Nothing is taken on trust: a table whose size or hash
// differs, sealed or opened, is refused and named.
//
// A table can also be read where it is, at any place (OpenAt): for state that is
// served before it is here, and for what is looked up in a backup.
package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Target is where state is restored to. Its methods are called from several
// goroutines.
type Target interface {
	// Create opens a place for the nth table of a shard; of one shard several tables
	// may be under way. If fetching the table broke off, it is called again for the same
	// table: what was written before is forgotten.
	Create(partition int32, n int) (io.WriteCloser, error)

	// Finish is called once all tables of a shard are there. It assembles the shard from
	// them, in order, and proves that
	// its digests and counts are those of shard.States. layers are the numbers of
	// its tables: first those of the full, above which lie those of each delta.
	// shard is as the backup has it that is restored.
	Finish(ctx context.Context, shard format.Shard, layers [][]int) error
}

// Report says what a restore did.
type Report struct {
	Backup   string            `json:"backup"`
	Region   events.Region     `json:"region"`
	Created  time.Time         `json:"created"` // when the backup was made
	Path     []string          `json:"path"`    // the backups that were put together: a full, the deltas upon it
	Pinned   bool              `json:"pinned"`  // against deletion meanwhile; false: the bucket may only be read
	Tables   int               `json:"tables"`
	Bytes    int64             `json:"bytes"`  // fetched
	States   []events.LogState `json:"states"` // proved
	Duration time.Duration     `json:"duration_ns"`
}

// Shards is how many shards are restored at a time: while one waits for the bucket or for the
// disk others have the processors, which most of the work is for.
func Shards() int { return 2 * runtime.GOMAXPROCS(0) }

// Run restores a backup, given as all that it consists of. It is pinned meanwhile, so
// that nobody deletes any of that. fetched, if not nil, is told the bytes of every table
// that has been fetched and verified; it may be called from several goroutines.
func Run(ctx context.Context, src Source, chain catalog.Chain, target Target, fetched func(bytes int64)) (*Report, error) {
	begun := time.Now()
	m := chain.Newest()
	report := &Report{Backup: m.ID, Region: m.Region, Created: m.Created, Path: m.Path(), Bytes: chain.Bytes(), States: m.States()}
	for _, part := range chain {
		for range part.Tables() {
			report.Tables++
		}
	}
	if src.Line == nil {
		src.Line = NewLine()
	}
	var err error
	report.Pinned, err = src.opened(ctx, chain, m.Shards, func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(Shards())
		for _, shard := range m.Shards {
			g.Go(func() error { return src.shard(ctx, chain, shard, target, fetched) })
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
func Shard(ctx context.Context, src Source, chain catalog.Chain, partition int32, target Target, fetched func(bytes int64)) error {
	m := chain.Newest()
	if partition < 0 || int(partition) >= len(m.Shards) {
		return events.Errorf(events.KindNotFound, "backup %s has no shard %d", m.ID, partition)
	}
	shards := m.Shards[partition : partition+1]
	_, err := src.opened(ctx, chain, shards, func() error { return src.shard(ctx, chain, shards[0], target, fetched) })
	return err
}

// opened is Pinned for some shards, of which those that cannot be opened are refused
// before anything is done.
func (src Source) opened(ctx context.Context, chain catalog.Chain, shards []format.Shard, do func() error) (pinned bool, err error) {
	m := chain.Newest()
	for _, shard := range shards {
		for _, t := range slices.Concat(chain.Layers(shard.Partition)...) {
			if err := src.Opener.Fits(t.Keys); err != nil {
				return false, fmt.Errorf("restore of backup %s, object %s: %w", m.ID, t.Name, err)
			}
		}
	}
	return src.Pinned(ctx, m, do)
}

// renewAfter is how often a pin is made anew: one that cannot be for some days holds all
// the same.
const renewAfter = catalog.PinFor / 7

// Pinned does something with a backup while a pin keeps it from being deleted, however long
// that takes; no pin if the bucket may only be read.
func (src Source) Pinned(ctx context.Context, m *format.Manifest, do func() error) (pinned bool, err error) {
	var unpin func()
	err = Retry(ctx, func() error {
		unpin, err = catalog.Pin(ctx, src.Bucket, m, cmp.Or(src.Owner, "restore"))
		return err
	})
	switch {
	case errors.Is(err, objstore.ErrAccess): // better to go on without a pin than not
		return false, do()
	case err != nil:
		return false, err
	}
	renewing, cancel := context.WithCancel(ctx)
	var renewer sync.WaitGroup
	renewer.Go(func() { src.renew(renewing, m, &unpin) })
	defer func() {
		cancel()
		renewer.Wait()
		unpin()
	}()
	return true, do()
}

// renew puts a new pin in the place of one before it ends, until the context does. If that
// fails for as long as the pin holds the backup may go: then what is read of it is missing,
// which whoever reads it is told.
func (src Source) renew(ctx context.Context, m *format.Manifest, unpin *func()) {
	again := time.NewTicker(renewAfter)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		if next, err := catalog.Pin(ctx, src.Bucket, m, cmp.Or(src.Owner, "restore")); err == nil {
			(*unpin)()
			*unpin = next
		}
	}
}

func (src Source) shard(ctx context.Context, chain catalog.Chain, shard format.Shard, target Target, fetched func(bytes int64)) error {
	id, n := chain.Newest().ID, 0
	var layers [][]int
	line := src.Line
	if line == nil {
		line = NewLine()
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * parallelTables()) // so that some wait while as many as may are fetched
	for _, tables := range chain.Layers(shard.Partition) {
		layer := []int{}
		for _, t := range tables {
			place := n
			g.Go(func() error {
				if err := line.enter(gctx, shard.Partition); err != nil {
					return err
				}
				defer line.leave()
				if err := src.Fetch(gctx, t, func() (io.WriteCloser, error) { return target.Create(shard.Partition, place) }); err != nil {
					return fmt.Errorf("restore of backup %s, object %s: %w", id, t.Name, err)
				}
				if fetched != nil {
					fetched(t.Size)
				}
				return nil
			})
			layer = append(layer, n)
			n++
		}
		layers = append(layers, layer)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := target.Finish(ctx, shard, layers); err != nil {
		return fmt.Errorf("restore of backup %s: %w", id, err)
	}
	return nil
}
