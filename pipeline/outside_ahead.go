package pipeline

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

const (
	parallelAhead     = 64 // tables, for all shards
	parallelManifests = 16 // of a chain
)

// aheadTables are the tables of one shard while that is opened: with the first that is asked for, all that will be are
// opened, side by side. If none is, since they are here already, the bucket is left alone.
type aheadTables struct {
	*outsideTables
	backup    string
	partition int32

	open    func(fetch func(context.Context)) // in the background, until all is opened
	opening sync.WaitGroup

	mu    sync.Mutex
	known chan struct{} // closed once it is known which tables there are; nil: nobody has asked yet
	early map[tableName]*earlyTable
	over  bool
}

type tableName struct{ backup, name string }

// earlyTable is one that is opened before anybody asks for it.
type earlyTable struct {
	opened chan struct{}
	table  *restore.TableAt
	err    error
}

// Ahead implements projections.Outside.
func (o *outsideTables) Ahead(backup string, partition int32) (tables projections.Outside, done func()) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &aheadTables{outsideTables: o, backup: backup, partition: partition, early: map[tableName]*earlyTable{}}
	a.open = func(fetch func(context.Context)) { a.opening.Go(func() { fetch(ctx) }) }
	return a, func() {
		a.mu.Lock()
		a.over = true
		a.mu.Unlock()
		cancel()
		a.opening.Wait()
		a.early = nil // nobody looks at it any more
	}
}

// OpenTable implements projections.Outside.
func (a *aheadTables) OpenTable(ctx context.Context, backup, name string) (projections.OutsideTable, error) {
	if early := a.take(ctx, tableName{backup, name}); early != nil {
		select {
		case <-early.opened:
			if early.err == nil {
				return early.table, nil
			}
		case <-ctx.Done():
		}
	}
	return a.outsideTables.OpenTable(ctx, backup, name)
}

// take is a table that is opened ahead, if it is.
func (a *aheadTables) take(ctx context.Context, name tableName) *earlyTable {
	a.mu.Lock()
	if a.over {
		a.mu.Unlock()
		return nil
	}
	if a.known == nil {
		a.known = make(chan struct{})
		a.open(a.begin)
	}
	a.mu.Unlock()
	select {
	case <-a.known:
	case <-ctx.Done():
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	early := a.early[name]
	delete(a.early, name)
	return early
}

// begin opens, of each backup that the shard's builds on, and of that itself, the first table of the shard, which says how far
// its logs are.
func (a *aheadTables) begin(ctx context.Context) {
	defer close(a.known)
	for _, b := range a.chain(ctx) {
		if int(a.partition) >= len(b.manifest.Shards) || len(b.manifest.Shards[a.partition].Tables) == 0 {
			continue
		}
		t, early := b.manifest.Shards[a.partition].Tables[0], &earlyTable{opened: make(chan struct{})}
		a.early[tableName{b.manifest.ID, t.Name}] = early
		a.open(func(ctx context.Context) {
			defer close(early.opened)
			select {
			case a.ahead <- struct{}{}:
				defer func() { <-a.ahead }()
				early.table, early.err = openEarly(ctx, b.src, t)
			case <-ctx.Done():
				early.err = ctx.Err()
			}
		})
	}
}

// openEarly opens a table and has it keep its beginning, where it is read next.
func openEarly(ctx context.Context, src restore.Source, t format.Table) (*restore.TableAt, error) {
	table, err := src.OpenAt(ctx, t)
	if err != nil {
		return nil, err
	}
	var first [1]byte
	return table, table.ReadAt(ctx, first[:], 0)
}

// chain is the backup with those that it builds on, as far as they can be read: whoever asks for tables of others is told.
func (a *aheadTables) chain(ctx context.Context) (chain []*outsideBackup) {
	last, err := a.outsideTables.backup(ctx, a.backup)
	if err != nil {
		return nil
	}
	chain = make([]*outsideBackup, len(last.manifest.Parents))
	var g errgroup.Group
	g.SetLimit(parallelManifests)
	for i, parent := range last.manifest.Parents {
		g.Go(func() error {
			chain[i], _ = a.outsideTables.backup(ctx, parent)
			return nil
		})
	}
	_ = g.Wait() // nothing returns an error
	return append(slices.DeleteFunc(chain, func(b *outsideBackup) bool { return b == nil }), last)
}
