package pipeline

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// shardCut is a projections.Cut as the snapshotter wants it.
type shardCut struct{ *projections.Cut }

func (c shardCut) LineageID() string { return c.Lineage().ID }

var _ snapshotter.Cut = shardCut{}

func (r *Region) needBucket() error {
	if r.parts.Bucket == nil {
		return events.Errorf(events.KindRefused, "%s has no bucket for backups; configure backup.bucket", r.cfg.Region)
	}
	return nil
}

// CreateBackup implements api.Node: a full backup of every shard, each at its
// own vector. Folding goes on meanwhile.
func (r *Region) CreateBackup(ctx context.Context) (*api.Backup, error) {
	if err := r.needBucket(); err != nil {
		return nil, err
	}
	defer r.backups.begin()()
	began := time.Now()
	m, err := r.createBackup(ctx)
	r.metrics.backup(err)
	r.backups.made(began, m, err)
	if err != nil {
		r.log.Error("backup failed", "error", err)
		return nil, err
	}
	r.log.Info("backup made", "backup", m.ID, "bytes", m.Bytes())
	b := toBackup(m)
	return &b, nil
}

func (r *Region) createBackup(ctx context.Context) (m *format.Manifest, err error) {
	var cuts []snapshotter.Cut
	for _, shard := range r.shards.all {
		cut, freezeErr := shard.Freeze()
		if freezeErr != nil {
			return nil, freezeErr
		}
		defer func() { err = errors.Join(err, cut.Close()) }()
		cuts = append(cuts, shardCut{cut})
	}
	cfg := snapshotter.Config{Region: r.cfg.Region, Software: Software, Merge: map[events.Stream]string{}, Sealer: r.backups.sealer}
	for name, s := range r.cfg.Streams {
		cfg.Merge[name] = s.Merge
	}
	return snapshotter.Full(ctx, r.parts.Bucket, cuts, cfg)
}

func toBackup(m *format.Manifest) api.Backup {
	b := api.Backup{
		ID: m.ID, Kind: cmp.Or(m.Kind, format.Full), Region: m.Region, Created: m.Created, Shards: len(m.Shards),
		Bytes: m.Bytes(), Stored: m.StoredBytes(), Keys: append([]string{}, m.Keys()...), States: m.States(),
	}
	for _, s := range m.Shards {
		b.Tables += len(s.Tables)
	}
	return b
}
