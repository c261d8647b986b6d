package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
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
}

// RestoreInPlace makes a new state directory of a backup whose tables stay in the bucket,
// and of the segments that lead from it to the point that is asked for. It can be served at
// once; whoever opens its shards has to bring the tables here, as a node does, which also
// proves them. Of the segments the chains and the region's own digests are compared before it
// ends. The backup stays pinned for a time (catalog.PinFor), and for longer once a node
// has it. The job is as for Restore, but that it can ask for nothing less than a region, and
// one that is broken off begins anew.
func RestoreInPlace(ctx context.Context, job RestoreJob) (*RestoredInPlace, error) {
	job.setDefaults()
	if len(job.Request.Streams) > 0 || len(job.Request.Shards) > 0 {
		return nil, events.Errorf(events.KindRefused, "restore to %s: only a whole region can be served at once; leave out --streams and --shards, or --instant", job.Request.Target)
	}
	if names, err := job.FS.List(job.Dir); err == nil && len(names) > 0 {
		return nil, events.Errorf(events.KindRefused, "directory %s is not empty; a restore needs a new or empty one", job.Dir)
	}
	plan, err := job.findInPlace(ctx)
	if err == nil {
		err = job.notAhead(plan.Vector)
	}
	if err != nil {
		return nil, err
	}
	if len(plan.Chain) == 0 {
		return nil, events.Errorf(events.KindRefused, "restore to %s: no backup is at or before it, so that there is nothing to be served at once; leave out --instant", plan.Target)
	}
	owner := "restored in place, and no node has it yet"
	if err := catalog.Hold(ctx, job.Bucket, plan.Chain.Newest(), owner); err != nil && !errors.Is(err, objstore.ErrAccess) {
		return nil, err
	}
	job.Planned(plan)
	t := &stateTarget{cfg: job.Config, fs: job.FS, log: job.Log, dir: job.Dir + ".restoring", lineage: newLineage(plan.Base)}
	if err := t.clear(); err != nil {
		return nil, err
	}
	p := &inPlaceRestore{job: job, target: t, outside: newOutsideTables(job.Config, job.Bucket, job.Opener), restored: RestoredInPlace{Plan: plan, Bytes: plan.Chain.Bytes()}}
	if p.src, err = newSource(job.Config, job.Bucket, job.Opener); err == nil {
		err = p.all(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, t.fs.RemoveAll(t.dir))
	}
	return &p.restored, moveDir(t.fs, t.dir, job.Dir)
}

// findInPlace plans it. A backup as it is needs no look at the archive, which takes
// longer than to refer to all its tables.
func (job *RestoreJob) findInPlace(ctx context.Context) (*timeline.Plan, error) {
	if job.Request.Backup == "" {
		_, plan, err := job.find(ctx)
		return plan, err
	}
	m, err := catalog.Load(ctx, job.Bucket, job.Config.Region, job.Request.Backup)
	if err == nil {
		err = checkFits(job.Config, m)
	}
	if err != nil {
		return nil, err
	}
	plan := &timeline.Plan{Region: m.Region, Target: job.Request.Target.String(), Vector: events.VectorOf(m.States()), Base: m.ID, Created: m.Created, Lacks: []string{}}
	for _, shard := range m.Shards {
		plan.Shards = append(plan.Shards, timeline.ShardPlan{Span: timeline.Span{Shard: shard.Partition}})
	}
	plan.Chain, err = catalog.LoadChain(ctx, job.Bucket, m)
	return plan, err
}

// inPlaceRestore is a RestoreInPlace under way.
type inPlaceRestore struct {
	job     RestoreJob
	target  *stateTarget
	outside *outsideTables
	src     restore.Source

	mu       sync.Mutex
	restored RestoredInPlace
}

// all has every shard where it is to be.
func (p *inPlaceRestore) all(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelInPlace)
	for _, shard := range p.restored.Plan.Shards {
		g.Go(func() error {
			if err := p.target.restoreInPlace(ctx, p.outside, p.restored.Plan.Chain, shard.Shard); err != nil {
				return err
			}
			return p.replay(ctx, shard.Span)
		})
	}
	return g.Wait()
}

// replay folds what the segments have, on top of tables that are still in the bucket: of
// those the blocks are read in which the keys of the records are.
func (p *inPlaceRestore) replay(ctx context.Context, span timeline.Span) (err error) {
	if span.First == 0 {
		return nil
	}
	sc, err := p.target.config(span.Shard)
	if err != nil {
		return err
	}
	sc.Outside = p.outside
	shard, err := openState(sc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shard.Close()) }()
	replay := restore.Replay{
		Region: p.job.Config.Region, Shard: span.Shard, Numbers: span.Numbers(), To: vectorOf(p.restored.Plan.Vector, span.Shard), Chain: newChain(),
		Done: func(bytes, _ int64) { p.job.Fetched(bytes) },
	}
	done, err := replay.Run(ctx, p.src, &foldedShard{Shard: shard})
	if err != nil {
		return fmt.Errorf("on top of backup %s: %w", p.restored.Plan.Base, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restored.Replayed = p.restored.Replayed.Add(done)
	return nil
}
