package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// copyDrill is what a node remembers of the scheduled drills of a copy; the watch's mu guards it.
type copyDrill struct {
	tried     time.Time // when this node has last tried
	confirmed bool      // the newest drill failed, and so did the one before: another one soon tells nothing
	archived  bool      // it could not be drilled, since what a restore needs is to be thawed first
	failed    error     // why there is no report of the last try; nil: there is one
}

// errRestoring says that a drill has to wait.
var errRestoring = events.Errorf(events.KindRefused, "drill: a restore is under way")

// copiesEvery is how often a copy is drilled by schedule if another one is; 0: none is.
func copiesEvery(b *config.Backup) time.Duration {
	if b == nil || b.Schedule.Drill == 0 {
		return 0
	}
	return b.Schedule.DrillCopies
}

// copyTurn is how often the turn of each of so many copies comes; 0: never, also if no identity opens what is sealed.
func copyTurn(b *config.Backup, copies int) time.Duration {
	turn := copiesEvery(b) * time.Duration(copies)
	if turn == 0 {
		return 0
	}
	sealer, err := b.Sealer()
	if err != nil {
		return 0
	}
	if opener, err := b.Opener(); err == nil && opener.Fits(sealer.Keys()) != nil {
		return 0
	}
	return turn
}

// copySlot is the last time at or before now at which the turn of the nth of some copies came. Each has times of its own,
// so that one that cannot be drilled, or takes the node down whenever it is, costs no other its turn.
func copySlot(r events.Region, every time.Duration, n, copies int, now time.Time) time.Time {
	ahead := every * time.Duration(n)
	return lastSlot(r, every*time.Duration(copies), now.Add(-ahead)).Add(ahead)
}

// drillCopies drills a copy whose turn has come, the first that can be.
func (w *backupWatch) drillCopies(ctx context.Context) {
	names := slices.Sorted(maps.Keys(w.region.parts.Copies))
	every := copiesEvery(w.region.cfg.Backup)
	for _, n := range rand.Perm(len(names)) { // after a while away it is the turn of many
		if every == 0 || ctx.Err() != nil {
			return
		}
		slot := copySlot(w.region.cfg.Region, every, n, len(names), time.Now())
		if w.copyDue(names[n], slot, time.Now()) && w.drillCopy(ctx, names[n], slot) {
			return
		}
	}
}

// copyDue says whether a copy is to be drilled, by what is known: its newest drill is older than its turn, or has failed and
// is to be confirmed. One that could not be drilled is tried again after a while, an archived one after an interval.
func (w *backupWatch) copyDue(name string, slot, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	every := copiesEvery(w.region.cfg.Backup)
	retry, d := min(every, drillRetry), w.copyDrills[name]
	if d.archived {
		retry = every
	}
	if now.Sub(d.tried) < retry {
		return false
	}
	i := slices.IndexFunc(w.copies, func(c api.CopyStatus) bool { return c.Copy == name })
	if i < 0 || w.copies[i].Drill == nil {
		return true // that is to be looked at
	}
	newest := w.copies[i].Drill
	return newest.Created.Before(slot) || newest.Anew && !d.confirmed && now.Sub(newest.Created) >= retry
}

// drillCopy drills a copy, unless it turns out that somebody has done so, or that it has nothing yet. It takes half an interval
// at most: a bucket that answers too slowly keeps the node's own from being drilled for no longer.
func (w *backupWatch) drillCopy(ctx context.Context, name string, slot time.Time) (over bool) {
	schedule := w.region.cfg.Backup.Schedule
	most := min(schedule.Drill, schedule.DrillCopies) / 2
	limited, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("given up after %s: other drills wait", most))
	defer cancel()
	b, err := w.region.inBucket()
	if err != nil {
		return false
	}
	made := w.remembered(name)
	made.tried = time.Now()
	over, err = w.tryCopy(limited, b, name, slot, &made)
	if ctx.Err() != nil || errors.Is(err, errRestoring) {
		return true
	}
	if made.failed = err; err != nil {
		if limited.Err() != nil {
			made.failed = context.Cause(limited)
		}
		w.region.log.Warn("a copy of the backups could not be drilled", "copy", name, "error", made.failed)
	}
	w.remember(name, made)
	return over
}

// tryCopy looks at a copy, and drills it if that is to be done. over is true if nothing else is to be drilled soon.
func (w *backupWatch) tryCopy(ctx context.Context, b Backups, name string, slot time.Time, made *copyDrill) (over bool, err error) {
	seen := api.CopyStatus{Copy: name, Began: made.tried.UTC(), DrillEvery: copyTurn(b.Config.Backup, len(b.Copies)).Seconds()}
	b.Bucket, b.Copies = b.Copies[name], nil
	if err := b.lookAtCopy(ctx, b.Bucket, w.copyCaches[name], &seen); err != nil {
		return false, err
	}
	w.sawCopy(seen)
	if seen.Newest == nil && seen.Damaged == 0 || !w.copyDue(name, slot, made.tried) {
		return false, nil
	}
	if made.archived, err = b.archived(ctx); err != nil || made.archived {
		return false, err
	}
	d, err := w.region.drill(ctx, b)
	if err != nil {
		return true, err
	}
	before := seen.Drill
	seen.Drill, seen.Recipients = nextDrill(before, seen.Recipients, d)
	w.sawCopy(seen)
	made.confirmed = seen.Drill.Error != "" && before != nil && before.Error != ""
	return true, nil
}

// archived says whether what a restore of the newest state needs is to be thawed first. That a restore cannot be planned the
// drill tells.
func (b Backups) archived(ctx context.Context) (bool, error) {
	plan, err := PlanRestore(ctx, b.job(trial{aim: aimNewest}, ""))
	if err != nil {
		return false, ctx.Err()
	}
	return isArchived(plan.NotArchived()), nil
}

// isArchived says of an error of a restore whether something is to be thawed first.
func isArchived(err error) bool {
	return events.KindOf(err) == events.KindNotReady || errors.Is(err, objstore.ErrArchived)
}

func (w *backupWatch) remembered(name string) copyDrill {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.copyDrills[name]
}

func (w *backupWatch) remember(name string, d copyDrill) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.copyDrills == nil {
		w.copyDrills = map[string]copyDrill{}
	}
	w.copyDrills[name] = d
}

// sawCopy notes what was seen of a copy without copying anything to it.
func (w *backupWatch) sawCopy(seen api.CopyStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.copies = slices.Clone(w.copies)
	i := slices.IndexFunc(w.copies, func(c api.CopyStatus) bool { return c.Copy == seen.Copy })
	if i < 0 {
		w.copies = append(w.copies, seen)
		slices.SortFunc(w.copies, func(a, b api.CopyStatus) int { return cmp.Compare(a.Copy, b.Copy) })
		return
	}
	c := &w.copies[i]
	c.Newest, c.Damaged, c.Checked = seen.Newest, seen.Damaged, seen.Checked
	c.Drill, c.Recipients, c.DrillEvery = seen.Drill, seen.Recipients, seen.DrillEvery
}

// copyStatus is what is known of the copies. The caller holds the watch's mu.
func (w *backupWatch) copyStatus() []api.CopyStatus {
	all := slices.Clone(w.copies)
	for i := range all {
		c, d := &all[i], w.copyDrills[all[i].Copy]
		if d.failed != nil {
			c.DrillError = d.failed.Error()
		}
		if d.archived && c.DrillEvery > 0 {
			c.DrillEvery, c.Undrilled = 0, "archived"
		}
	}
	return all
}

// copyProblems tells what needs an eye.
func copyProblems(all []api.CopyStatus) (problems []string) {
	for _, c := range all {
		if c.Error != "" {
			problems = append(problems, fmt.Sprintf("copy %s of the backups is not up to date: %s", c.Copy, c.Error))
		}
		if c.Damaged > 0 {
			problems = append(problems, fmt.Sprintf("objects of %d backups are missing or damaged in copy %s; see: evenkeel backup verify --all --level manifests --config FILE --copy %s", c.Damaged, c.Copy, c.Copy))
		}
		if c.DrillError != "" {
			problems = append(problems, fmt.Sprintf("copy %s of the backups could not be drilled: %s", c.Copy, c.DrillError))
		}
		if c.Drill != nil && c.Drill.Error != "" {
			problems = append(problems, fmt.Sprintf("copy %s of the backups: %s (drill %s); see: evenkeel drill show --config FILE --copy %s", c.Copy, c.Drill.Error, c.Drill.ID, c.Copy))
		}
	}
	return problems
}
