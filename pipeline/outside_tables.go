package pipeline

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// parallelAhead is how many manifests are read at a time before tables are opened.
const parallelAhead = 16

// outsideTables reads the tables of a region's backups in the bucket. It is safe for
// concurrent use.
type outsideTables struct {
	cfg    *config.Config
	bucket objstore.Bucket
	opener *seal.Opener // nil: the identity that is configured

	mu      sync.Mutex
	backups map[string]*outsideBackup
	early   map[tableName]*earlyTable // that are opened ahead
}

type tableName struct{ backup, name string }

// earlyTable is one that is opened before anybody asks for it.
type earlyTable struct {
	opened chan struct{}
	table  *restore.TableAt // nil: it could not be opened, as whoever asks for it finds out
}

// outsideBackup is what is known of one backup.
type outsideBackup struct {
	src      restore.Source
	manifest *format.Manifest
	tables   map[string]format.Table
}

var _ projections.Outside = (*outsideTables)(nil)

func newOutsideTables(cfg *config.Config, bucket objstore.Bucket, opener *seal.Opener) *outsideTables {
	return &outsideTables{cfg: cfg, bucket: bucket, opener: opener, backups: map[string]*outsideBackup{}, early: map[tableName]*earlyTable{}}
}

// OpenTable implements projections.Outside.
func (o *outsideTables) OpenTable(ctx context.Context, backup, name string) (projections.OutsideTable, error) {
	if table := o.take(tableName{backup, name}); table != nil {
		return table, nil
	}
	b, err := o.backup(ctx, backup)
	if err != nil {
		return nil, err
	}
	t, ok := b.tables[name]
	if !ok {
		return nil, events.Errorf(events.KindInconsistent, "backup %s has no object %s", backup, name)
	}
	table, err := b.src.OpenAt(ctx, t)
	if err != nil {
		return nil, err
	}
	return table, nil
}

// Ahead implements projections.Outside: of each backup that this one builds on, and of itself, the first table of
// the shard says how far its logs are.
func (o *outsideTables) Ahead(id string, partition int32) (done func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var opening sync.WaitGroup
	var named []tableName
	for _, b := range o.chainOf(ctx, id) {
		if int(partition) >= len(b.manifest.Shards) || len(b.manifest.Shards[partition].Tables) == 0 {
			continue
		}
		t := b.manifest.Shards[partition].Tables[0]
		name, early := tableName{b.manifest.ID, t.Name}, &earlyTable{opened: make(chan struct{})}
		named = append(named, name)
		o.mu.Lock()
		o.early[name] = early
		o.mu.Unlock()
		opening.Go(func() {
			defer close(early.opened)
			early.table, _ = openEarly(ctx, b.src, t)
		})
	}
	return func() {
		cancel()
		opening.Wait()
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, name := range named {
			delete(o.early, name)
		}
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

// chainOf is a backup with those that it builds on, as far as they can be read.
func (o *outsideTables) chainOf(ctx context.Context, id string) (chain []*outsideBackup) {
	last, err := o.backup(ctx, id)
	if err != nil {
		return nil
	}
	chain = make([]*outsideBackup, len(last.manifest.Parents))
	var g errgroup.Group
	g.SetLimit(parallelAhead)
	for i, parent := range last.manifest.Parents {
		g.Go(func() error {
			chain[i], _ = o.backup(ctx, parent) // whoever asks for its tables is told
			return nil
		})
	}
	_ = g.Wait() // nothing returns an error
	return append(slices.DeleteFunc(chain, func(b *outsideBackup) bool { return b == nil }), last)
}

// take hands out a table that was opened ahead, if one was.
func (o *outsideTables) take(name tableName) *restore.TableAt {
	o.mu.Lock()
	early, ok := o.early[name]
	delete(o.early, name)
	o.mu.Unlock()
	if !ok {
		return nil
	}
	<-early.opened
	return early.table
}

// backup reads what a backup has, once.
func (o *outsideTables) backup(ctx context.Context, id string) (*outsideBackup, error) {
	o.mu.Lock()
	b, ok := o.backups[id]
	o.mu.Unlock()
	if ok {
		return b, nil
	}
	m, err := catalog.Manifest(ctx, o.bucket, o.cfg.Region, id)
	if events.KindOf(err) == events.KindNotFound {
		return nil, events.Errorf(events.KindInconsistent, "object %s: %w", format.ManifestName(o.cfg.Region, id), err)
	}
	if err != nil {
		return nil, err
	}
	return o.add(m)
}

// add takes in a manifest that is known.
func (o *outsideTables) add(m *format.Manifest) (*outsideBackup, error) {
	src, err := newSource(o.cfg, o.bucket, o.opener)
	if err != nil {
		return nil, err
	}
	b := &outsideBackup{src: src, manifest: m, tables: map[string]format.Table{}}
	for t := range m.Tables() {
		b.tables[t.Name] = t
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.backups[m.ID] = b
	return b, nil
}

// layers are the tables of one shard of a backup and of all that it builds on.
func (o *outsideTables) layers(ctx context.Context, chain catalog.Chain, partition int32) (layers []projections.Layer, err error) {
	layers = make([]projections.Layer, len(chain))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelInPlace)
	for i, part := range chain {
		g.Go(func() (err error) {
			if layers[i], err = o.layer(ctx, part, partition); err != nil {
				err = fmt.Errorf("backup %s: %w", part.ID, err)
			}
			return err
		})
	}
	return layers, g.Wait()
}

// layer are the tables of one shard of one backup.
func (o *outsideTables) layer(ctx context.Context, m *format.Manifest, partition int32) (layer projections.Layer, err error) {
	b, err := o.add(m)
	if err != nil {
		return layer, err
	}
	shard := m.Shards[partition]
	for _, t := range shard.Tables {
		if err := b.src.Opener.Fits(t.Keys); err != nil {
			return layer, fmt.Errorf("object %s: %w", t.Name, err)
		}
	}
	firsts, err := b.src.Firsts(ctx, shard, func(ctx context.Context, t *restore.TableAt) ([]byte, error) {
		return projections.FirstKey(ctx, t)
	})
	if err != nil {
		return layer, err
	}
	layer.Backup = m.ID
	for i, t := range shard.Tables {
		layer.Tables = append(layer.Tables, projections.LayerTable{Name: t.Name, Size: t.Size, First: firsts[i]})
	}
	return layer, nil
}
