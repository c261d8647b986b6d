package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// Drill restores all that there is, what failed in the drill before, and a time that is drawn, to a scratch place below
// the data directory, proves them, deletes them again, and puts a report into the
// bucket, which says with which keys it was opened. That a restore failed is in the report (format.Drill.Err) and no
// error: errors mean that there is no report.
func (b Backups) Drill(ctx context.Context) (*format.Drill, error) {
	again, err := b.failedBefore(ctx)
	if err != nil {
		return nil, err
	}
	id, now := snapshotter.NewID()
	d := &format.Drill{
		Format: format.DrillVersion, Region: b.Config.Region, ID: id, Created: now, Software: api.Software,
		Owner: fmt.Sprintf("%s, region %s", api.Software, b.Config.Region), Trials: []format.Trial{},
	}
	newest, _ := b.try(ctx, trial{aim: aimNewest})
	d.Trials = append(d.Trials, newest)
	for _, t := range again {
		if result, there := b.tryThere(ctx, t); there {
			d.Trials = append(d.Trials, result)
		}
	}
	// Only now: what was drawn before could be pruned while the others are restored.
	result, drawn, err := b.tryDrawn(ctx)
	switch {
	case err != nil && ctx.Err() == nil: // what was restored counts all the same
		b.Log.Warn("nothing could be drawn for the restore drill", "error", err)
	case drawn:
		d.Trials = append(d.Trials, result)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("restore drill: %w", err) // which says nothing of the backups
	}
	for _, t := range d.Trials {
		if t.Error != "" {
			b.Log.Error("restore drill failed", "aim", t.Aim, "error", t.Error)
		}
	}
	before, err := b.proofs(ctx)
	if err != nil {
		return nil, err
	}
	at := time.Now()
	d.Prove(before, func(proved time.Time) bool { return catalog.Ahead(proved, at) })
	return d, catalog.PublishDrill(ctx, b.Bucket, d)
}

func (b Backups) job(t trial, dir string) RestoreJob {
	return RestoreJob{
		Config: b.Config, Bucket: b.Bucket, Opener: b.Opener, FS: b.files(), Log: b.Log, Dir: dir,
		Request: timeline.Request{Target: t.target, Base: t.base},
	}
}

// try makes one restore and says how it went.
func (b Backups) try(ctx context.Context, t trial) (format.Trial, error) {
	begun := time.Now()
	result := format.Trial{Aim: t.aim, States: []events.LogState{}}
	var used usedKeys
	opener, err := b.Config.Opener(b.Opener)
	if err == nil {
		b.Opener = opener.Telling(used.note)
		err = b.tryRestore(ctx, t, &result)
	}
	result.TookSeconds, result.OpenedBy = time.Since(begun).Seconds(), used.ids()
	if err != nil {
		result.States, result.Error = []events.LogState{}, err.Error()
	}
	return result, err
}

// usedKeys are the ids of the keys that have opened something.
type usedKeys struct {
	mu   sync.Mutex
	keys map[string]bool
}

func (u *usedKeys) note(key string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.keys == nil {
		u.keys = map[string]bool{}
	}
	u.keys[key] = true
}

func (u *usedKeys) ids() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.keys))
}

func (b Backups) tryRestore(ctx context.Context, t trial, result *format.Trial) (err error) {
	fs := b.files()
	scratch := filepath.Join(b.Config.DataDir, "scratch", "drill")
	if err := errors.Join(fs.RemoveAll(scratch), fs.RemoveAll(scratch+".restoring"), fs.MkdirAll(filepath.Dir(scratch), 0o755)); err != nil {
		return fmt.Errorf("scratch directory: %w", err)
	}
	defer func() { err = errors.Join(err, fs.RemoveAll(scratch)) }()
	job := b.job(t, scratch)
	plan, err := PlanRestore(ctx, job)
	if err != nil {
		return err
	}
	result.Backup, result.Bytes = plan.Base, plan.Bytes
	if result.StateTime, err = b.stateTime(ctx, t.target, plan); err != nil {
		return err
	}
	if err := roomFor(fs, filepath.Dir(scratch), plan.Bytes); err != nil {
		return err
	}
	if t.target.Backup == "" && len(plan.Vector) > 0 {
		job.Request.Target = timeline.Target{Vector: plan.Vector} // what was planned, whatever comes meanwhile
	}
	restored, err := Restore(ctx, job)
	if err != nil {
		return err
	}
	if result.Attested, err = b.compareAttested(ctx, scratch, t.differed); err != nil {
		return err
	}
	result.States = append(result.States, restored.States...) // none, before anything was written
	slices.SortFunc(result.States, func(x, y events.LogState) int { return x.Log.Compare(y.Log) })
	return nil
}

// compareAttested compares restored shards with what other regions have attested, as far as the
// region's Kafka tells. What is attested is not kept for long: a state that differed before differs until it is known to
// be equal.
func (b Backups) compareAttested(ctx context.Context, dir, differed string) (string, error) {
	a, unknown := b.readAttested(ctx)
	if unknown != nil {
		if differed != "" {
			return differed, errors.Join(ctx.Err(), stillDiffers(differed))
		}
		return "is unknown: " + unknown.Error(), ctx.Err()
	}
	all := make([]int32, b.Config.Partitions)
	for p := range all {
		all[p] = int32(p)
	}
	g, err := compareDir(a, b.Config, b.files(), b.Log, dir, all)
	if err != nil {
		return "", err
	}
	if err := g.Err(); err != nil {
		return g.String(), err
	}
	left := strings.Count(differed, api.Differs)
	for _, m := range g.Equal {
		left -= strings.Count(differed, api.Differs+m.Log.String()+" at offset")
	}
	if left > 0 {
		return differed, stillDiffers(differed)
	}
	return g.String(), nil
}

func stillDiffers(differed string) error {
	return events.Errorf(events.KindInconsistent, "the state is not the one that was attested, as an earlier drill found; nobody attests these offsets any more: it %s", differed)
}

// stateTime is when what a plan leads to was the state of the region: the time that was
// asked for, or when the last that it needs was made.
func (b Backups) stateTime(ctx context.Context, target timeline.Target, plan *timeline.Plan) (time.Time, error) {
	if !target.Time.IsZero() {
		return target.Time, nil
	}
	var closed time.Time // the last segment
	for _, shard := range plan.Shards {
		if shard.Last == 0 {
			continue
		}
		s, err := segment.Header(ctx, b.Bucket, b.Config.Region, shard.Shard, shard.Last)
		if err != nil {
			return time.Time{}, err
		}
		if s.Created.After(closed) {
			closed = s.Created
		}
	}
	at := plan.Created
	if closed.After(at) || !closed.IsZero() && catalog.Ahead(at, time.Now()) { // which a wrong clock has dated
		at = closed
	}
	if at.IsZero() {
		return at, events.Errorf(events.KindNotFound, "the bucket holds nothing of %s; make a backup with: evenkeel backup create", b.Config.Region)
	}
	return at, nil
}

// drillReserve is how much of the disk a drill leaves free for what the node is for, in
// times of what it restores.
const drillReserve = 2

// roomFor refuses a scratch restore that could fill up the disk under the running node.
func roomFor(fs vfs.FS, dir string, bytes int64) error {
	usage, err := fs.GetDiskUsage(dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if want := uint64(bytes) * (1 + drillReserve); usage.AvailBytes < want {
		return events.Errorf(events.KindRefused, "%s has %d bytes free; a restore of %d bytes beside the running node wants %d", dir, usage.AvailBytes, bytes, want)
	}
	return nil
}

// DrillRestore implements api.Node. A drill counts as a restore, of which there is one
// at a time.
func (r *Region) DrillRestore(ctx context.Context) (*format.Drill, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	d, err := r.drill(ctx, b)
	if err != nil {
		return nil, err
	}
	r.backups.drilled(d)
	return d, nil
}

// drill drills a bucket, unless a restore is under way (errRestoring).
func (r *Region) drill(ctx context.Context, b Backups) (*format.Drill, error) {
	if !r.restoring.TryLock() {
		return nil, errRestoring
	}
	defer r.restoring.Unlock()
	return b.Drill(ctx)
}

// ListDrills implements api.Node.
func (r *Region) ListDrills(ctx context.Context, p api.ListDrillsParams) (*api.DrillList, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.Drills(ctx, p)
}
