package pipeline

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// RestoredInPlace says what a state is that RestoreInPlace has made.
type RestoredInPlace struct {
	Plan     *timeline.Plan
	Replayed restore.Replayed // on top of the backup
	Bytes    int64            // of tables that are to be brought here

	Attested   *api.Agreement // how it compares with what other regions have attested; nil: it does not
	Unattested string         // why not
}

// RestoreInPlace makes a new state directory of a backup whose tables stay in the bucket,
// and of the segments that lead from it to the point that is asked for. It can be served at
// once; a node that opens its shards brings the tables here, proves them, and then leaves the
// report that Restore leaves. Until then the directory has one without states (RestoringInPlace).
// Of the segments the chains and the region's own digests are
// compared before it ends. The backup stays pinned for a time (catalog.PinFor), and for longer
// once a node has it. The job is as for Restore, but that it can ask for nothing less than a
// region.
func RestoreInPlace(ctx context.Context, job RestoreJob) (*RestoredInPlace, error) {
	if len(job.Request.Streams) > 0 || len(job.Request.Shards) > 0 {
		return nil, events.Errorf(events.KindRefused, "restore to %s: only a whole region can be served at once; leave out --streams and --shards, or --instant", job.Request.Target)
	}
	r := newRestoring(job)
	r.outside = newOutsideTables(job.Config, job.Bucket, job.Opener)
	done, err := r.run(ctx)
	if err != nil {
		return nil, err
	}
	plan := r.plan()
	plan.Chain = r.base
	return &RestoredInPlace{Plan: plan, Replayed: done.Replayed, Bytes: done.Bytes, Attested: done.Attested, Unattested: done.Unattested}, nil
}

// findInPlace plans it. A backup as it is needs no look at the archive, which takes
// longer than to refer to all its tables.
func (r *restoring) findInPlace(ctx context.Context) (times *timeline.Timeline, plan *timeline.Plan, err error) {
	if r.job.Request.Backup == "" {
		times, plan, err = r.job.find(ctx)
	} else {
		plan, err = r.planBackup(ctx)
	}
	if err == nil && len(plan.Chain) == 0 {
		err = events.Errorf(events.KindRefused, "restore to %s: no backup is at or before it, so that there is nothing to be served at once; leave out --instant", plan.Target)
	}
	return times, plan, err
}

// planBackup plans the restore of a backup as it is.
func (r *restoring) planBackup(ctx context.Context) (*timeline.Plan, error) {
	cfg, bucket := r.job.Config, r.job.Bucket
	m, err := catalog.Load(ctx, bucket, cfg.Region, r.job.Request.Backup)
	if err == nil {
		err = checkFits(cfg, m)
	}
	if err != nil {
		return nil, err
	}
	if r.newest, err = catalog.Newest(ctx, bucket, cfg.Region); err == nil {
		err = checkFits(cfg, r.newest)
	}
	switch events.KindOf(err) {
	case events.KindInconsistent, events.KindRefused:
		r.job.Log.Warn("the newest backup does not tell under which epochs the region was: going by the one that is restored", "error", err)
		r.newest = nil
	default:
		if err != nil {
			return nil, err
		}
	}
	plan := &timeline.Plan{Region: m.Region, Target: r.job.Request.Target.String(), Vector: events.VectorOf(m.States()), Base: m.ID, Created: m.Created, Lacks: []string{}}
	for _, shard := range m.Shards {
		plan.Shards = append(plan.Shards, timeline.ShardPlan{Span: timeline.Span{Shard: shard.Partition}})
	}
	plan.Chain, err = catalog.LoadChain(ctx, bucket, m)
	return plan, err
}

// allInPlace has every shard where it is to be.
func (r *restoring) allInPlace(ctx context.Context) error {
	err := catalog.Hold(ctx, r.job.Bucket, r.base.Newest(), "restored in place, and no node has it yet")
	if err != nil && !errors.Is(err, objstore.ErrAccess) {
		return err
	}
	r.pinned = err == nil
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelInPlace)
	for _, shard := range r.plan().Shards {
		g.Go(func() error { return r.shard(ctx, shard.Span) })
	}
	return g.Wait()
}

// inPlaceReport is the report of a restore whose tables are still in the bucket: it says what
// is to be proved.
func (r *restoring) inPlaceReport() (*api.Restored, error) {
	restored, err := r.report()
	if err != nil {
		return nil, err
	}
	restored.Served, restored.Duration = time.Now().UTC(), 0
	restored.States, restored.Digest = []events.LogState{}, events.Digest{}
	return restored, nil
}
