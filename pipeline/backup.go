package pipeline

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/peers"
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
		return errNoBucket(r.cfg)
	}
	return nil
}

func errNoBucket(cfg *config.Config) error {
	return events.Errorf(events.KindRefused, "%s has no bucket for backups; configure backup.bucket", cfg.Region)
}

// CreateBackup implements api.Node: a full backup of every shard, each at its
// own vector. Folding goes on meanwhile.
func (r *Region) CreateBackup(ctx context.Context) (*api.Backup, error) {
	if err := r.needBucket(); err != nil {
		return nil, err
	}
	defer r.backups.begin()()
	began := time.Now()
	m, err := r.createBackup(ctx, nil)
	r.metrics.backup(err)
	r.backups.made(began, m, err)
	if err != nil {
		r.log.Error("backup failed", "error", err)
		return nil, err
	}
	r.log.Info("backup made", "backup", m.ID, "bytes", m.Bytes())
	b := api.BackupOf(m)
	return &b, nil
}

// createBackup has the owner of every shard copy it, and publishes them together: all of
// it, or what has changed since a parent.
func (r *Region) createBackup(ctx context.Context, parent *format.Manifest) (*format.Manifest, error) {
	if err := peers.RefuseForward(ctx, "backup"); err != nil {
		return nil, err
	}
	id, now := snapshotter.NewID()
	cfg := r.backupConfig()
	cfg.Groups = r.groupsFor(ctx)
	left := r.cfg.Shards()
	var copied []format.Shard
	err := peers.WhileMoving(ctx, func() error {
		shards, err := r.copyShards(ctx, id, left, parent)
		copied = append(copied, shards...)
		left = slices.DeleteFunc(left, func(p int32) bool {
			return slices.ContainsFunc(copied, func(s format.Shard) bool { return s.Partition == p })
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if parent != nil {
		return snapshotter.PublishDelta(ctx, r.parts.Bucket, id, now, parent, copied, cfg)
	}
	return snapshotter.Publish(ctx, r.parts.Bucket, id, now, copied, cfg)
}

// copyShards has the owners of shards copy them. With an error come those that were
// copied all the same.
func (r *Region) copyShards(ctx context.Context, id string, partitions []int32, parent *format.Manifest) (copied []format.Shard, err error) {
	own, others, err := r.shares(partitions)
	if err != nil {
		return nil, err
	}
	parts := make([][]format.Shard, len(others)+1)
	var g errgroup.Group // one that fails does not end the others: what they have copied counts
	g.SetLimit(parallelPeers)
	for i, o := range others {
		g.Go(func() error {
			c, err := r.peers.At(o.node, o.address)
			if err != nil {
				return err
			}
			b, err := c.BackupShards(ctx, api.BackupShardsParams{Backup: id, Shards: o.shards, Since: sinceOf(parent, o.shards)})
			if err != nil {
				return namedShards(o, err)
			}
			parts[i] = b.Shards
			return nil
		})
	}
	g.Go(func() error {
		b, err := r.BackupShards(ctx, api.BackupShardsParams{Backup: id, Shards: own, Since: sinceOf(parent, own)})
		if err == nil {
			parts[len(others)] = b.Shards
		}
		return err
	})
	err = g.Wait()
	return slices.Concat(parts...), err
}

// BackupShards implements api.PeerNode. A node that has been silent makes sure
// first that the shards are still its own.
func (r *Region) BackupShards(ctx context.Context, p api.BackupShardsParams) (b *api.ShardBackups, err error) {
	if err := r.needBucket(); err != nil {
		return nil, err
	}
	if len(p.Shards) == 0 {
		return &api.ShardBackups{Shards: []format.Shard{}}, nil
	}
	if n := len(p.Since); n > 0 && n != len(p.Shards) {
		return nil, events.Errorf(events.KindInvalid, "backup of %d shards since %d vectors", len(p.Shards), n)
	}
	if err := r.claims.Confirm(ctx); err != nil {
		return nil, err
	}
	shards, release, err := r.useOwn(p.Shards)
	if err != nil {
		return nil, err
	}
	defer release()
	var cuts []snapshotter.Cut
	for i, shard := range shards {
		if note, is := r.renewals.of(p.Shards[i]); is && note.Moved && !note.Proved && behind(shard, note.Until) > 0 {
			return nil, events.Errorf(events.KindNotReady, "shard %d is being restored, and not yet where it was before: %d records are to be replayed; try again when they are",
				p.Shards[i], behind(shard, note.Until))
		}
		if at := shard.InPlace(); at != nil {
			return nil, events.Errorf(events.KindNotReady, "shard %d is not proved yet: %d of %d bytes are still in backup %s, out of which it is restored; try again when it is here",
				p.Shards[i], at.Left, at.Bytes, at.Backup)
		}
		cut, freezeErr := shard.Freeze()
		if freezeErr != nil {
			return nil, freezeErr
		}
		defer func() { err = errors.Join(err, cut.Close()) }()
		if len(p.Since) == 0 {
			cuts = append(cuts, shardCut{cut})
			continue
		}
		delta, err := r.deltaCut(ctx, cut, p.Since[i])
		if err != nil {
			return nil, err
		}
		cuts = append(cuts, delta)
	}
	copied, err := snapshotter.Shards(ctx, r.parts.Bucket, p.Backup, cuts, r.backupConfig())
	if err != nil {
		return nil, err
	}
	return &api.ShardBackups{Shards: copied}, nil
}

func (r *Region) backupConfig() snapshotter.Config {
	cfg := snapshotter.Config{Region: r.cfg.Region, Software: api.Software, Merge: map[events.Stream]string{}, Sealer: r.backups.sealer}
	for name, s := range r.cfg.Streams {
		cfg.Merge[name] = s.Merge
	}
	return cfg
}
