package pipeline

import (
	"context"
	"fmt"
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

// outsideTablesKept bounds the tables of which a node keeps bytes, 64 MiB of all shards together. What Pebble reads again and again, indexes and
// filters, is in its cache.
const outsideTablesKept = 256

// outsideTables reads the tables of a region's backups in the bucket. It is safe for
// concurrent use.
type outsideTables struct {
	cfg    *config.Config
	bucket objstore.Bucket
	opener *seal.Opener // nil: the identity that is configured
	kept   *restore.Kept

	mu      sync.Mutex
	backups map[string]*outsideBackup
	loading map[string]chan struct{} // has one while a backup's manifest is read: all shards ask at the same time
}

// outsideBackup is what is known of one backup.
type outsideBackup struct {
	src      restore.Source
	manifest *format.Manifest
	tables   map[string]format.Table
}

var _ projections.Outside = (*outsideTables)(nil)

func newOutsideTables(cfg *config.Config, bucket objstore.Bucket, opener *seal.Opener) *outsideTables {
	return &outsideTables{cfg: cfg, bucket: bucket, opener: opener, kept: restore.NewKept(outsideTablesKept), backups: map[string]*outsideBackup{}, loading: map[string]chan struct{}{}}
}

// OpenTable implements projections.Outside.
func (o *outsideTables) OpenTable(ctx context.Context, backup, name string, read projections.Reading) (projections.OutsideTable, error) {
	b, err := o.backup(ctx, backup)
	if err != nil {
		return nil, err
	}
	t, ok := b.tables[name]
	if !ok {
		return nil, events.Errorf(events.KindInconsistent, "backup %s has no object %s", backup, name)
	}
	ends := seal.TableTail
	if read == projections.ReadStart {
		ends = seal.TableStart
	}
	table, err := b.src.OpenAt(ctx, t, ends)
	if err != nil {
		return nil, err
	}
	return table, nil
}

// backup reads what a backup has, once.
func (o *outsideTables) backup(ctx context.Context, id string) (*outsideBackup, error) {
	b, turn := o.known(id)
	if b != nil {
		return b, nil
	}
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if b, _ := o.known(id); b != nil {
		return b, nil // somebody else has read it meanwhile
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

// known is a backup whose manifest was read; if it was not, turn is what has room for one who reads it.
func (o *outsideTables) known(id string) (b *outsideBackup, turn chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b = o.backups[id]; b != nil {
		return b, nil
	}
	if o.loading[id] == nil {
		o.loading[id] = make(chan struct{}, 1)
	}
	return nil, o.loading[id]
}

// add takes in a manifest that is known.
func (o *outsideTables) add(m *format.Manifest) (*outsideBackup, error) {
	src, err := newSource(o.cfg, o.bucket, o.opener)
	if err != nil {
		return nil, err
	}
	src.Kept = o.kept
	b := &outsideBackup{src: src, manifest: m, tables: map[string]format.Table{}}
	for t := range m.Tables() {
		b.tables[t.Name] = t
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.backups[m.ID] = b
	delete(o.loading, m.ID)
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
