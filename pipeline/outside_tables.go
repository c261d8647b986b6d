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

// outsideTables reads the tables of a region's backups in the bucket. It is safe for
// concurrent use.
type outsideTables struct {
	cfg    *config.Config
	bucket objstore.Bucket
	opener *seal.Opener // nil: the identity that is configured

	ahead chan struct{} // has one for each table that is being opened ahead

	mu      sync.Mutex
	backups map[string]*outsideBackup
}

// outsideBackup is what is known of one backup.
type outsideBackup struct {
	src      restore.Source
	manifest *format.Manifest
	tables   map[string]format.Table
}

var _ projections.Outside = (*outsideTables)(nil)

func newOutsideTables(cfg *config.Config, bucket objstore.Bucket, opener *seal.Opener) *outsideTables {
	return &outsideTables{cfg: cfg, bucket: bucket, opener: opener, ahead: make(chan struct{}, parallelAhead), backups: map[string]*outsideBackup{}}
}

// OpenTable implements projections.Outside.
func (o *outsideTables) OpenTable(ctx context.Context, backup, name string) (projections.OutsideTable, error) {
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
