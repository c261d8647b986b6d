package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// trial is one restore that a drill makes.
type trial struct {
	aim    string
	backup string // id
}

// Drill restores the newest backup and one that is drawn from those before it to a
// scratch place below the data directory, proves them, deletes them again, and puts a
// report into the bucket. That a restore failed is in the report (format.Drill.Err) and
// no error: errors mean that there is no report.
func (b Backups) Drill(ctx context.Context) (*format.Drill, error) {
	ids, err := catalog.IDs(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return nil, err
	}
	id, now := snapshotter.NewID()
	d := &format.Drill{
		Format: 1, Region: b.Config.Region, ID: id, Created: now, Software: Software,
		Owner: fmt.Sprintf("%s, region %s", Software, b.Config.Region), Trials: []format.Trial{},
	}
	for _, t := range draw(ids) {
		result := b.try(ctx, t)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("restore drill: %w", err) // which says nothing of the backups
		}
		d.Trials = append(d.Trials, result)
	}
	return d, catalog.PublishDrill(ctx, b.Bucket, d)
}

// draw chooses what to restore.
func draw(ids []string) []trial {
	if len(ids) == 0 {
		return []trial{{aim: "newest"}} // which fails, and that is told
	}
	trials := []trial{{aim: "newest", backup: ids[len(ids)-1]}}
	if older := ids[:len(ids)-1]; len(older) > 0 {
		trials = append(trials, trial{aim: "random", backup: older[rand.IntN(len(older))]})
	}
	return trials
}

// try makes one restore and says how it went.
func (b Backups) try(ctx context.Context, t trial) format.Trial {
	begun := time.Now()
	result := format.Trial{Aim: t.aim, Backup: t.backup, States: []events.LogState{}}
	err := b.tryRestore(ctx, t, &result)
	result.TookSeconds = time.Since(begun).Seconds()
	if err != nil {
		result.States, result.Error = []events.LogState{}, err.Error()
		b.Log.Error("restore drill failed", "aim", t.aim, "backup", t.backup, "error", err)
	}
	return result
}

func (b Backups) tryRestore(ctx context.Context, t trial, result *format.Trial) (err error) {
	if t.backup == "" {
		_, err := catalog.Newest(ctx, b.Bucket, b.Config.Region)
		return err
	}
	m, err := catalog.Load(ctx, b.Bucket, b.Config.Region, t.backup)
	if err != nil {
		return err
	}
	result.StateTime = m.Created
	fs := b.files()
	scratch := filepath.Join(b.Config.DataDir, "scratch", "drill")
	if err := errors.Join(fs.RemoveAll(scratch), fs.RemoveAll(scratch+".restoring"), fs.MkdirAll(filepath.Dir(scratch), 0o755)); err != nil {
		return fmt.Errorf("scratch directory: %w", err)
	}
	defer func() { err = errors.Join(err, fs.RemoveAll(scratch)) }()
	if err := roomFor(fs, filepath.Dir(scratch), m.Bytes()); err != nil {
		return err
	}
	report, err := Restore(ctx, RestoreJob{
		Config: b.Config, Bucket: b.Bucket, Opener: b.Opener, FS: fs, Log: b.Log, Dir: scratch,
		Request: timeline.Request{Target: timeline.Target{Backup: m.ID}},
	})
	if err != nil {
		return err
	}
	result.Bytes = report.Bytes
	result.States = slices.SortedFunc(slices.Values(report.States), func(x, y events.LogState) int { return x.Log.Compare(y.Log) })
	return nil
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

// Drills lists the reports of drills, newest first, as many as are asked for.
func (b Backups) Drills(ctx context.Context, p api.ListDrillsParams) (*api.DrillList, error) {
	ids, err := catalog.Drills(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return nil, err
	}
	slices.Reverse(ids)
	if p.Drill != "" {
		ids = []string{p.Drill}
	}
	list := &api.DrillList{Drills: []format.Drill{}}
	for _, id := range ids[:min(len(ids), max(p.Most, 1))] {
		d, err := catalog.Drill(ctx, b.Bucket, b.Config.Region, id)
		if err != nil {
			return nil, err
		}
		list.Drills = append(list.Drills, *d)
	}
	return list, nil
}

// DrillRestore implements api.Node. A drill counts as a restore, of which there is one
// at a time.
func (r *Region) DrillRestore(ctx context.Context) (*format.Drill, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	if !r.restoring.TryLock() {
		return nil, events.Errorf(events.KindRefused, "drill: a restore is under way")
	}
	defer r.restoring.Unlock()
	d, err := b.Drill(ctx)
	if err != nil {
		return nil, err
	}
	r.backups.drilled(d)
	return d, nil
}

// ListDrills implements api.Node.
func (r *Region) ListDrills(ctx context.Context, p api.ListDrillsParams) (*api.DrillList, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.Drills(ctx, p)
}
