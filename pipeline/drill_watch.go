package pipeline

import (
	"context"
	"iter"
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
	// proved something, and for what is proved with each key.
	drillsLooked = 10

	// drillRetry is the pause after a drill that failed.
	drillRetry = time.Hour
)

// drillIDs are the ids of the drills that there are reports of, oldest first; those that a wrong clock has dated in
// the future come apart.
func (b Backups) drillIDs(ctx context.Context, now time.Time) (past, ahead []string, err error) {
	ids, err := catalog.Drills(ctx, b.Bucket, b.Config.Region)
	for _, id := range ids {
		if isAhead(id, now) {
			ahead = append(ahead, id)
		} else {
			past = append(past, id)
		}
	}
	return past, ahead, err
}

// reports reads reports of drills, newest first. Of one that is unreadable it tells why, and goes on. One that was
// deleted meanwhile is passed over.
func (b Backups) reports(ctx context.Context, ids []string) iter.Seq2[*format.Drill, error] {
	return func(yield func(*format.Drill, error) bool) {
		for _, id := range slices.Backward(ids) {
			d, err := catalog.Drill(ctx, b.Bucket, b.Config.Region, id)
			if events.KindOf(err) != events.KindNotFound && !yield(d, err) {
				return
			}
		}
	}
}

// unreadable says whether a report is damaged, or of a newer version: that says nothing of the backups, nor of other
// reports.
func unreadable(err error) bool {
	kind := events.KindOf(err)
	return kind == events.KindInconsistent || kind == events.KindRefused
}

// drillStatus tells of the newest drills in the bucket. Reports that cannot be read and
// those that a wrong clock has dated are passed over, and told: they say nothing of the backups. proofs are what is
// proved with each key.
func (b Backups) drillStatus(ctx context.Context, s *api.BackupStatus) (proofs []format.Proof, err error) {
	past, ahead, err := b.drillIDs(ctx, s.Checked)
	if err != nil {
		return nil, err
	}
	for _, id := range ahead {
		s.Ahead = append(s.Ahead, format.DrillName(b.Config.Region, id))
	}
	var newest, before *format.Drill
	for d, err := range b.reports(ctx, past[max(0, len(past)-drillsLooked):]) {
		switch {
		case unreadable(err):
			s.DrillsUnread = append(s.DrillsUnread, err.Error())
			continue
		case err != nil:
			return nil, err
		}
		proofs = append(proofs, d.Proofs...)
		found := newDrillStatus(d, s.Checked)
		switch {
		case newest == nil:
			newest, s.Drill = d, found
		case before == nil:
			before = d
			s.Drill.Anew = failsAnew(newest, before)
		}
		if s.Drill.Proved == nil {
			s.Drill.Proved = found.Proved
		}
	}
	return proofs, nil
}

// Drills lists the reports of drills, newest first, as many as are asked for. Those that cannot be read are told and
// passed over.
func (b Backups) Drills(ctx context.Context, p api.ListDrillsParams) (*api.DrillList, error) {
	list := &api.DrillList{Drills: []format.Drill{}, Unread: []string{}}
	if p.Drill != "" {
		d, err := catalog.Drill(ctx, b.Bucket, b.Config.Region, p.Drill)
		if err != nil {
			return nil, err
		}
		list.Drills = append(list.Drills, *d)
		return list, nil
	}
	ids, err := catalog.Drills(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return nil, err
	}
	for d, err := range b.reports(ctx, ids) {
		switch {
		case unreadable(err):
			list.Unread = append(list.Unread, err.Error())
			continue
		case err != nil:
			return nil, err
		}
		if list.Drills = append(list.Drills, *d); len(list.Drills) >= max(p.Most, 1) {
			break
		}
	}
	return list, nil
}

// newDrillStatus is what a drill says, as if there had been none before. How old a state is that a wrong clock has dated nobody
// knows.
func newDrillStatus(d *format.Drill, now time.Time) *api.DrillStatus {
	s := &api.DrillStatus{ID: d.ID, Created: d.Created}
	if err := d.Err(); err != nil {
		s.Error, s.Anew = err.Error(), true
	}
	if at := d.Proved(); !at.IsZero() && !catalog.Ahead(at, now) {
		s.Proved = &at
	}
	return s
}

// watchDrills makes the scheduled drills until the context ends, one at a time.
func (w *backupWatch) watchDrills(ctx context.Context) {
	every := w.region.cfg.Backup.Schedule.Drill
	if every == 0 || w.unfit != nil {
		return
	}
	tick := min(watchEvery, every/watchPasses)
	if copies := copiesEvery(w.region.cfg.Backup); copies > 0 {
		tick = min(tick, copies/watchPasses)
	}
	for range pause.Ticks(ctx, tick) {
		if !w.region.schedules() {
			continue
		}
		if w.drillDue(time.Now()) {
			if _, err := w.region.DrillRestore(ctx); err != nil && ctx.Err() == nil {
				w.region.log.Warn("the restore drill could not be made", "error", err)
			}
		}
		w.drillCopies(ctx)
	}
}

// drillDue says whether a drill is to be made: there is a backup, and the newest drill
// that has proved everything is older than the schedule wants; not soon after one that
// has not. One that has failed by what is known alone is no reason to hurry.
func (w *backupWatch) drillDue(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	every := w.region.cfg.Backup.Schedule.Drill
	if w.failed != nil || w.seen == nil || w.seen.Backups == 0 || now.Sub(w.drills) < min(every, drillRetry) {
		return false
	}
	newest := w.seen.Drill
	due := newest == nil || now.Sub(newest.Created) >= every || newest.Anew && now.Sub(newest.Created) >= min(every, drillRetry)
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
	seen := *w.seen
	seen.Drill, seen.Recipients = nextDrill(seen.Drill, seen.Recipients, d)
	w.seen = &seen
}

// nextDrill is what is known of drills after another one.
func nextDrill(before *api.DrillStatus, keys []api.RecipientProof, d *format.Drill) (*api.DrillStatus, []api.RecipientProof) {
	now := time.Now()
	status := newDrillStatus(d, now)
	if status.Proved == nil && before != nil {
		status.Proved = before.Proved
	}
	return status, withProofs(keys, d.Proofs, now)
}
