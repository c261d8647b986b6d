package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/copies"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Copy brings copies of the backups up to date. That one could not be is in the result
// (api.CopyResult.Err) and no error. copied, if not nil, is told the bytes of every
// object.
func (b Backups) Copy(ctx context.Context, p api.CopyBackupsParams, copied func(bytes int64)) (*api.CopyResult, error) {
	names := slices.Sorted(maps.Keys(b.Copies))
	switch {
	case p.Copy != "" && b.Copies[p.Copy] == nil:
		return nil, events.Errorf(events.KindNotFound, "no copy %q is configured (backup.copies); there is %q", p.Copy, names)
	case p.Copy != "":
		names = []string{p.Copy}
	case len(names) == 0:
		return nil, events.Errorf(events.KindRefused, "no copies are configured (backup.copies)")
	}
	result := &api.CopyResult{Copies: []api.CopyStatus{}}
	for _, name := range names {
		status := b.copyTo(ctx, name, copied)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		result.Copies = append(result.Copies, status)
	}
	return result, nil
}

func (b Backups) copyTo(ctx context.Context, name string, copied func(bytes int64)) api.CopyStatus {
	to, cache := b.Copies[name], b.copyCaches[name]
	if cache == nil {
		cache = &catalog.Cache{}
	}
	status := api.CopyStatus{Copy: name, Began: time.Now().UTC(), DrillEvery: copyTurn(b.Config.Backup, len(b.Copies)).Seconds()}
	var err error
	status.Report, err = copies.Run(ctx, copies.Config{
		Region: b.Config.Region, From: b.Bucket, To: to, Owner: fmt.Sprintf("%s, copy %s of region %s", api.Software, name, b.Config.Region), Cache: cache, Copied: copied,
	})
	if at := status.Report.Archived; !at.IsZero() {
		status.Archived = &at
	}
	if ctx.Err() == nil { // what it has it has, also if not all could be copied
		err = errors.Join(err, b.lookAtCopy(ctx, to, cache, &status))
	}
	if err != nil {
		status.Error = err.Error()
	}
	status.Duration = time.Since(status.Began).Seconds()
	return status
}

// lookAtCopy reads what a copy has, and what drills of it have proved.
func (b Backups) lookAtCopy(ctx context.Context, to objstore.Bucket, cache *catalog.Cache, status *api.CopyStatus) error {
	inv, err := inventory.ReadCached(ctx, to, b.Config.Region, cache)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	status.Checked = &now
	if newest := inv.NewestPast(now); newest != nil {
		status.Newest = &newest.Manifest.Created
	}
	for _, backup := range inv.Backups {
		if !backup.Restorable() {
			status.Damaged++
		}
	}
	drilled := &api.BackupStatus{Checked: now}
	proofs, err := Backups{Config: b.Config, Bucket: to}.drillStatus(ctx, drilled)
	if err != nil {
		return err
	}
	status.Drill, status.Recipients = drilled.Drill, recipients(inv, proofs, now)
	return nil
}

// Thaw asks for all objects of a backup to be readable for some days.
func (b Backups) Thaw(ctx context.Context, p api.ThawBackupParams) (*api.Thawed, error) {
	if p.Days < 1 {
		return nil, events.Errorf(events.KindInvalid, "thaw for %d days: want one or more", p.Days)
	}
	m, err := findManifest(ctx, b.Bucket, b.Config.Region, p.Backup)
	if err != nil {
		return nil, err
	}
	chain, err := catalog.LoadChain(ctx, b.Bucket, m)
	if err != nil {
		return nil, err
	}
	thawed := &api.Thawed{Backup: m.ID}
	for _, m := range chain {
		for t := range m.Tables() {
			ready, err := b.Bucket.Thaw(ctx, t.Name, p.Days)
			if err != nil {
				return nil, err
			}
			thawed.Objects++
			if ready {
				thawed.Ready++
			}
		}
	}
	return thawed, nil
}

// CopyBackups implements api.Node.
func (r *Region) CopyBackups(ctx context.Context, p api.CopyBackupsParams) (*api.CopyResult, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	b.copyCaches = r.backups.copyCaches
	result, err := b.Copy(ctx, p, nil)
	if err != nil {
		return nil, err
	}
	for _, c := range result.Copies {
		if n := c.Report.Mended; n > 0 {
			r.log.Warn("objects were gone from a copy of the backups, and are there again", "copy", c.Copy, "objects", n)
		}
	}
	r.backups.haveCopied(result)
	return result, nil
}

// ThawBackup implements api.Node.
func (r *Region) ThawBackup(ctx context.Context, p api.ThawBackupParams) (*api.Thawed, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.Thaw(ctx, p)
}

// watchCopies brings copies up to date until the context ends.
func (w *backupWatch) watchCopies(ctx context.Context) {
	every := w.region.cfg.Backup.Schedule.Copy
	if every == 0 || len(w.region.parts.Copies) == 0 {
		return
	}
	for range pause.Ticks(ctx, every) {
		if !w.region.schedules() {
			continue
		}
		result, err := w.region.CopyBackups(ctx, api.CopyBackupsParams{})
		if err == nil {
			err = result.Err()
		}
		if err != nil && ctx.Err() == nil {
			w.region.log.Warn("copies of the backups are not up to date", "error", err)
		}
	}
}

// haveCopied notes how copies were made. What could not be read of one is as it was before.
func (w *backupWatch) haveCopied(result *api.CopyResult) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, made := range result.Copies {
		for _, before := range w.copies {
			if before.Copy != made.Copy {
				continue
			}
			if made.Archived == nil {
				made.Archived = before.Archived
			}
			if made.Checked == nil {
				made.Checked, made.Newest, made.Damaged = before.Checked, before.Newest, before.Damaged
			}
			if made.Drill == nil { // reports are never deleted
				made.Drill, made.Recipients = before.Drill, before.Recipients
			}
		}
		w.copies = slices.DeleteFunc(slices.Clone(w.copies), func(c api.CopyStatus) bool { return c.Copy == made.Copy })
		w.copies = append(w.copies, made)
	}
	slices.SortFunc(w.copies, func(a, b api.CopyStatus) int { return cmp.Compare(a.Copy, b.Copy) })
}
