package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// restoring is a restore under way. What it has done is noted in files below work, each
// written once it is on disk: restore.json says what is restored and how, shard-NNNN.json
// how far a shard is, and state becomes the state directory.
type restoring struct {
	job     RestoreJob
	work    string
	note    restoreNote
	resumed bool
	base    catalog.Chain // empty: it begins with nothing
	times   *timeline.Timeline
	target  *stateTarget
	src     restore.Source
	pinned  bool

	outside *outsideTables   // nil: tables are fetched
	newest  *format.Manifest // of the region, where no times are read; else nil

	attested   *api.Agreement // how it compares with what other regions have attested; nil: it does not
	unattested string         // why not
}

func newRestoring(job RestoreJob) *restoring {
	job.setDefaults()
	return &restoring{job: job, work: job.Dir + ".restoring"}
}

// run does all of it.
func (r *restoring) run(ctx context.Context) (*api.Restored, error) {
	done, err := r.begin(ctx)
	if err != nil || done != nil {
		return done, err
	}
	r.job.Planned(r.plan())
	if err := r.all(ctx); err != nil {
		return nil, r.broken(err)
	}
	if err := r.compare(ctx); err != nil {
		return nil, r.broken(err)
	}
	return r.finish()
}

// broken is the end of a restore that cannot go on now.
func (r *restoring) broken(err error) error {
	if !r.job.Keep {
		err = errors.Join(err, r.job.FS.RemoveAll(r.work))
	}
	return err
}

// restoreNote is what restore.json holds.
type restoreNote struct {
	Request timeline.Request    `json:"request"`
	Plan    timeline.Plan       `json:"plan"`
	Lineage projections.Lineage `json:"lineage"`
	Began   time.Time           `json:"began"`
	InPlace bool                `json:"in_place,omitzero"` // tables stay in the bucket
}

// shardNote is what shard-NNNN.json holds.
type shardNote struct {
	Done     bool              `json:"done"` // false: the base is there and proved
	States   []events.LogState `json:"states"`
	Replayed restore.Replayed  `json:"replayed"`
}

const restoreNoteFile = "restore.json"

func (r *restoring) plan() *timeline.Plan { return &r.note.Plan }

func (r *restoring) path(name string) string { return filepath.Join(r.work, name) }

func shardNoteFile(partition int32) string { return fmt.Sprintf(shardName+".json", partition) }

// begin finds out what is to be done. If all of it was done already, and only that was
// not told, it returns what was.
func (r *restoring) begin(ctx context.Context) (done *api.Restored, err error) {
	fs := r.job.FS
	there, err := disk.ReadNote(fs, r.path(restoreNoteFile), &r.note)
	if err == nil && !there { // it is of a restore that had not begun, or was over
		err = fs.RemoveAll(r.work)
	}
	if err != nil {
		return nil, fmt.Errorf("left-over of an interrupted restore: %w", err)
	}
	r.resumed = there && !r.job.Anew
	if r.resumed && (r.note.InPlace != (r.outside != nil) || !r.note.Request.Same(r.job.Request)) {
		instant := ""
		if r.note.InPlace {
			instant = ", --instant,"
		}
		return nil, events.Errorf(events.KindRefused, "directory %s has what a restore of %s%s has done that was broken off; ask for the same to go on with it, or for a restore --anew to forget it",
			r.work, r.note.Request.Target, instant)
	}
	if r.resumed {
		if done, err := r.finished(); done != nil || err != nil {
			return done, err
		}
	}
	if names, err := fs.List(r.job.Dir); err == nil && len(names) > 0 {
		return nil, events.Errorf(events.KindRefused, "directory %s is not empty; a restore needs a new or empty one", r.job.Dir)
	}
	if r.src, err = newSource(r.job.Config, r.job.Bucket, r.job.Opener); err != nil {
		return nil, err
	}
	r.src.Line = restore.NewLine()
	if r.resumed {
		err = r.resume(ctx)
	} else {
		err = r.start(ctx)
	}
	return nil, err
}

// start plans a new restore, and notes what it is.
func (r *restoring) start(ctx context.Context) (err error) {
	find := r.job.find
	if r.outside != nil {
		find = r.findInPlace
	}
	var plan *timeline.Plan
	if r.times, plan, err = find(ctx); err != nil {
		return err
	}
	if err := errors.Join(r.job.notAhead(plan.Vector), plan.NotArchived()); err != nil {
		return err
	}
	r.base = plan.Chain
	r.note = restoreNote{Request: r.job.Request, Plan: *plan, Lineage: newLineage(plan.Base), Began: time.Now().UTC(), InPlace: r.outside != nil}
	r.note.Lineage.ID = cmp.Or(r.job.Lineage, r.note.Lineage.ID)
	r.setTarget()
	fs := r.job.FS
	if err := errors.Join(fs.RemoveAll(r.work), disk.MakeDirs(fs, r.work), r.target.clear(), disk.SyncDir(fs, r.work)); err != nil {
		return fmt.Errorf("restore directory: %w", err)
	}
	return disk.WriteNote(fs, r.path(restoreNoteFile), r.note)
}

// resume goes on with a restore that was broken off.
func (r *restoring) resume(ctx context.Context) (err error) {
	cfg := r.job.Config
	if err := r.job.notAhead(r.note.Plan.Vector); err != nil {
		return err
	}
	r.job.Log.Info("a restore that was broken off goes on", "directory", r.work, "target", r.note.Plan.Target)
	if r.note.Plan.Base != "" {
		m, err := catalog.Load(ctx, r.job.Bucket, cfg.Region, r.note.Plan.Base)
		if err == nil {
			err = checkFits(cfg, m)
		}
		if err != nil {
			return err
		}
		if r.base, err = catalog.LoadChain(ctx, r.job.Bucket, m); err != nil {
			return err
		}
	}
	r.setTarget()
	r.times, err = timeline.Read(ctx, r.job.Bucket, r.src.Opener, cfg.Region, cfg.Partitions)
	return err
}

func (r *restoring) setTarget() {
	r.target = &stateTarget{cfg: r.job.Config, fs: r.job.FS, log: r.job.Log, dir: r.path("state"), lineage: r.note.Lineage}
}

// all restores all shards. The backup that is begun with is pinned meanwhile, and with
// it the segments that follow.
func (r *restoring) all(ctx context.Context) (err error) {
	do := func() error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(restore.Shards())
		for _, shard := range r.plan().Shards {
			g.Go(func() error { return r.shard(ctx, shard.Span) })
		}
		return g.Wait()
	}
	switch {
	case r.outside != nil:
		return r.allInPlace(ctx)
	case len(r.base) == 0:
		return do()
	}
	r.pinned, err = r.src.Pinned(ctx, r.base.Newest(), do)
	if err == nil && !r.pinned {
		r.job.Log.Warn("the bucket may only be read: a prune could have deleted the backup during the restore", "backup", r.plan().Base)
	}
	return err
}

// shard restores a shard, except for what is done already.
func (r *restoring) shard(ctx context.Context, span timeline.Span) error {
	var note shardNote
	path := r.path(shardNoteFile(span.Shard))
	based, err := disk.ReadNote(r.job.FS, path, &note)
	if err != nil || note.Done {
		return err
	}
	if based {
		note.States, note.Replayed, err = r.replay(ctx, span, true)
	}
	if !based || errors.Is(err, errSpoilt) {
		if err := r.begun(ctx, span.Shard); err != nil {
			return err
		}
		if states, is := r.isThere(span); is {
			note.States = states
		} else {
			note.States, note.Replayed, err = r.replay(ctx, span, false)
		}
	}
	if err != nil {
		return err
	}
	note.Done = true
	return disk.WriteNote(r.job.FS, path, note)
}

// begun brings a shard to where the backup has it, and notes that.
func (r *restoring) begun(ctx context.Context, partition int32) error {
	path := r.path(shardNoteFile(partition))
	if err := errors.Join(r.job.FS.RemoveAll(path), disk.SyncDir(r.job.FS, r.work), r.job.FS.RemoveAll(shardDir(r.target.dir, partition))); err != nil {
		return err
	}
	if r.outside != nil {
		epoch, err := r.epoch(ctx, partition)
		if err != nil {
			return err
		}
		if err := r.target.restoreInPlace(ctx, r.outside, r.base, partition, epoch); err != nil {
			return err
		}
	} else if len(r.base) > 0 {
		if err := restore.Shard(ctx, r.src, r.base, partition, r.target, r.job.Fetched); err != nil {
			return err
		}
		if err := r.target.reduce(partition, r.plan().Streams); err != nil {
			return err
		}
	}
	return disk.WriteNote(r.job.FS, path, shardNote{States: []events.LogState{}})
}

// isThere tells the states of a shard that has just been made of tables in the bucket, if that
// is all. Nobody opens it then to find nothing to fold: that is a few requests for each
// table, and somebody waits.
func (r *restoring) isThere(span timeline.Span) (states []events.LogState, is bool) {
	if r.outside == nil || span.First > 0 {
		return nil, false
	}
	states = r.base.Newest().Shards[span.Shard].States
	return states, !lacks(events.VectorOf(states), vectorOf(r.plan().Vector, span.Shard))
}

// errSpoilt says that what an earlier run has left of a shard cannot be gone on with.
var errSpoilt = errors.New("the shard was left in pieces")

// epochsAhead is how many epochs a region may have had behind the newest that its bucket
// tells of: a shard may have been claimed without anything being archived after that.
const epochsAhead = 1_000

// epoch is under which a shard is restored: later than any that the region has had, as far as
// its bucket tells. If the topic of claims was lost too, they go on from there: others
// believe nothing that is attested under an earlier one.
func (r *restoring) epoch(ctx context.Context, partition int32) (events.Epoch, error) {
	if r.job.Claimed {
		return 0, nil
	}
	var epoch events.Epoch
	var err error
	if r.times != nil {
		epoch, err = r.times.Epoch(ctx, partition)
	}
	if len(r.base) > 0 {
		epoch = max(epoch, r.base.Newest().Shards[partition].Epoch)
	}
	if r.newest != nil {
		epoch = max(epoch, r.newest.Shards[partition].Epoch)
	}
	if epoch == 0 {
		return 0, err
	}
	return epoch + epochsAhead, err
}

// open opens a shard to be brought further.
func (r *restoring) open(ctx context.Context, partition int32, again bool) (*projections.Shard, error) {
	sc, err := r.target.config(partition)
	if err != nil {
		return nil, err
	}
	if r.outside != nil {
		sc.Outside = r.outside
	}
	if sc.Epoch, err = r.epoch(ctx, partition); err != nil {
		return nil, err
	}
	shard, err := openState(sc)
	if !again || events.KindOf(err) == events.KindRefused {
		return shard, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSpoilt, err)
	}
	var from events.Vector
	if len(r.base) > 0 {
		from = vectorOf(r.plan().Vector, partition)
		for l := range from {
			from[l] = vectorOfShard(r.base.Newest(), partition)[l]
		}
	}
	if lacks(events.VectorOf(shard.Logs()), from) {
		return nil, errors.Join(errSpoilt, shard.Close())
	}
	return shard, nil
}

// replay folds what the segments have, and proves what is at rest then. Where it goes on
// with what an earlier run has done it begins one segment before, so that no comparison
// is left out.
func (r *restoring) replay(ctx context.Context, span timeline.Span, again bool) (states []events.LogState, done restore.Replayed, err error) {
	shard, err := r.open(ctx, span.Shard, again)
	if err != nil {
		return nil, done, err
	}
	defer func() { err = errors.Join(err, shard.Close()) }()
	if again && span.First > 0 {
		left, err := r.times.Span(ctx, span.Shard, shard.Logs(), r.plan().Vector)
		if err != nil {
			return nil, done, err
		}
		if left.First == 0 {
			left.First = span.Last + 1
		}
		span.First = max(span.First, left.First-1)
	}
	replay := restore.Replay{
		Region: r.job.Config.Region, Shard: span.Shard, Numbers: span.Numbers(), To: vectorOf(r.plan().Vector, span.Shard), Chain: digest.NewChain(),
		Done: func(bytes, _ int64) { r.job.Fetched(bytes) },
	}
	if done, err = replay.Run(ctx, r.src, &foldedShard{Shard: shard}); err != nil {
		if base := r.plan().Base; base != "" {
			err = fmt.Errorf("on top of backup %s: %w", base, err)
		}
		return nil, done, err
	}
	if span.First == 0 && len(r.plan().Streams) == 0 || r.outside != nil { // proved when it was taken in, or is here
		return shard.Logs(), done, nil
	}
	if states, err = shard.Verify(); err != nil {
		return nil, done, events.Errorf(events.KindInconsistent, "shard %d: %w", span.Shard, err)
	}
	return states, done, nil
}

// vectorOf is a vector's part of a shard.
func vectorOf(v events.Vector, partition int32) events.Vector {
	part := events.Vector{}
	for l, next := range v {
		if l.Partition == partition {
			part[l] = next
		}
	}
	return part
}
