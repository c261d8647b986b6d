package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

const (
	// drillsLooked is how many of the newest drills are looked at for one that has
	// proved something.
	drillsLooked = 10

	// drillRetry is the pause after a drill that failed.
	drillRetry = time.Hour
)

// drillStatus tells of the newest drills in the bucket. Reports that cannot be read and
// those that a wrong clock has dated are passed over, and told: they say nothing of the backups.
func (b Backups) drillStatus(ctx context.Context, s *api.BackupStatus) error {
	ids, err := catalog.Drills(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return err
	}
	looked := 0
	for _, id := range slices.Backward(ids) {
		if began, err := format.IDTime(id); err == nil && catalog.Ahead(began, s.Checked) {
			s.Ahead = append(s.Ahead, format.DrillName(b.Config.Region, id))
			continue
		}
		if looked++; looked > drillsLooked {
			break
		}
		d, err := catalog.Drill(ctx, b.Bucket, b.Config.Region, id)
		switch events.KindOf(err) {
		case 0:
		case events.KindInconsistent, events.KindRefused: // damaged, or of a newer version
			s.DrillsUnread = append(s.DrillsUnread, err.Error())
			continue
		case events.KindNotFound: // deleted meanwhile
			continue
		default:
			return err
		}
		found := newDrillStatus(d, s.Checked)
		if s.Drill == nil {
			s.Drill = found
		}
		if found.Proved != nil {
			s.Drill.Proved = found.Proved
			break
		}
	}
	return nil
}

// newDrillStatus is what a drill says. How old a state is that a wrong clock has dated nobody
// knows.
func newDrillStatus(d *format.Drill, now time.Time) *api.DrillStatus {
	s := &api.DrillStatus{ID: d.ID, Created: d.Created}
	if err := d.Err(); err != nil {
		s.Error = err.Error()
	}
	if at := d.Proved(); !at.IsZero() && !catalog.Ahead(at, now) {
		s.Proved = &at
	}
	return s
}

// watchDrills makes the scheduled drills until the context ends.
func (w *backupWatch) watchDrills(ctx context.Context) {
	every := w.region.cfg.Backup.Schedule.Drill
	if every == 0 || !w.canOpen() {
		return
	}
	for range pause.Ticks(ctx, min(watchEvery, every/watchPasses)) {
		if w.drillDue(time.Now()) && w.region.schedules() {
			if _, err := w.region.DrillRestore(ctx); err != nil && ctx.Err() == nil {
				w.region.log.Warn("the restore drill could not be made", "error", err)
			}
		}
	}
}

// canOpen says whether the node could open what it seals.
func (w *backupWatch) canOpen() bool {
	if len(w.sealer.Keys()) == 0 {
		return true
	}
	opener, err := w.region.cfg.Backup.Opener()
	if err != nil {
		return true // which the drill tells
	}
	return opener.Fits(w.sealer.Keys()) == nil
}

// drillDue says whether a drill is to be made: there is a backup, and the newest drill
// that has proved everything is older than the schedule wants; not soon after one that
// has not.
func (w *backupWatch) drillDue(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	every := w.region.cfg.Backup.Schedule.Drill
	if w.failed != nil || w.seen == nil || w.seen.Backups == 0 || now.Sub(w.drills) < min(every, drillRetry) {
		return false
	}
	newest := w.seen.Drill
	due := newest == nil || now.Sub(newest.Created) >= every || newest.Error != "" && now.Sub(newest.Created) >= min(every, drillRetry)
	if due {
		w.drills = now
	}
	return due
}

// drilled notes a drill.
func (w *backupWatch) drilled(d *format.Drill) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		return
	}
	seen, status := *w.seen, newDrillStatus(d, time.Now())
	if status.Proved == nil && seen.Drill != nil {
		status.Proved = seen.Drill.Proved
	}
	seen.Drill = status
	w.seen = &seen
}
