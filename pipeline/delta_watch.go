package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
)

// deltaWatch is what a backupWatch knows of deltas; the watch's mu guards it.
type deltaWatch struct {
	slot time.Time      // of the last one that was tried
	last *api.BackupRun // nil: none
	full time.Time      // when a full backup was last made out of turn
	why  string         // it was
	stop string         // why deltas have stopped until the next full backup; empty: they have not
}

// outOfTurnPause is how long no further full backup is made out of turn: what makes
// deltas impossible again and again must not copy everything each minute.
const outOfTurnPause = time.Hour

// deltaDue is the time for a delta that has come, zero if none has.
func (w *backupWatch) deltaDue(now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	every := w.region.cfg.Backup.Schedule.Delta
	if every == 0 || w.underWay > 0 || w.failed != nil || w.seen == nil || w.seen.NewestFull.IsZero() || w.waitsForClock(now) {
		return time.Time{}
	}
	if slot := lastSlot(w.region.cfg.Region, every, now); slot.After(w.deltas.slot) || catalog.Ahead(w.deltas.slot, now) {
		return slot
	}
	return time.Time{}
}

// delta makes a delta if one is due. The result is noted and logged; what has failed is
// tried again at the next time for one.
func (w *backupWatch) delta(ctx context.Context) {
	slot := w.deltaDue(time.Now())
	if slot.IsZero() || !w.region.schedules() {
		return
	}
	end := w.begin()
	began := time.Now()
	m, whyFull, err := w.region.createDelta(ctx, slot, w.damaged())
	end()
	w.mu.Lock()
	w.deltas.slot, w.deltas.stop = slot, whyFull
	if m != nil || err != nil {
		w.deltas.last = toRun(began, m, err)
	}
	w.mu.Unlock()
	switch {
	case whyFull != "":
		w.outOfTurn(ctx, whyFull)
	case err != nil && ctx.Err() == nil:
		w.region.metrics.backup(err)
		w.region.log.Warn("delta failed", "error", err)
	case m != nil:
		w.region.metrics.backup(nil)
		w.region.log.Debug("delta made", "backup", m.ID, "on", m.Parent(), "bytes", m.StoredBytes())
	}
}

func (w *backupWatch) damaged() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.Damaged
}

// outOfTurn makes a full backup because no delta can be made without one, unless that has
// been done lately.
func (w *backupWatch) outOfTurn(ctx context.Context, why string) {
	w.mu.Lock()
	wait := time.Until(w.deltas.full.Add(outOfTurnPause))
	if wait <= 0 {
		w.deltas.full, w.deltas.why = time.Now(), why
	}
	w.mu.Unlock()
	if wait > 0 {
		return
	}
	w.region.log.Warn("a full backup is made out of turn", "reason", why)
	if _, err := w.region.CreateBackup(ctx); err == nil {
		w.look(ctx)
	}
}

func (w *backupWatch) deltasStopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deltas.stop != ""
}

// problems tells what needs an eye. The caller holds the watch's mu.
func (d *deltaWatch) problems(now time.Time) (problems []string) {
	if d.last != nil && d.last.Error != "" {
		problems = append(problems, fmt.Sprintf("the delta of %s failed: %s", d.last.Began.Format(time.RFC3339), d.last.Error))
	}
	next := d.full.Add(outOfTurnPause)
	switch {
	case d.stop != "":
		problems = append(problems, fmt.Sprintf("no deltas are made before the next full backup, at %s at the latest unless one fails: %s", next.Format(time.RFC3339), d.stop))
	case now.Before(next):
		problems = append(problems, fmt.Sprintf("a full backup was made out of turn at %s: %s", d.full.Format(time.RFC3339), d.why))
	}
	return problems
}
