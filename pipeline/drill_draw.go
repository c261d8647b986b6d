package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// trial is one restore that a drill makes.
type trial struct {
	aim     string // by which the next drill knows it again
	target  timeline.Target
	instead string // id of the backup to restore if the target is a time to which no restore is promised; empty: none
	base    string // id of the backup to begin with; empty: the best

	differed string // from what was attested, when it was compared before, for people; empty: it did not
}

// aimNewest is the aim of a trial of all that there is.
const aimNewest = "newest"

func trialOf(target timeline.Target, instead string) trial {
	return trial{aim: target.String(), target: target, instead: instead}
}

const (
	// drawsTried is how many backups are drawn for one that is there and can be restored
	// here.
	drawsTried = 10

	// repeatedMost is how many restores are made again that have failed: so a drill takes no
	// longer than four.
	repeatedMost = 2
)

// tryDrawn restores something that is drawn.
func (b Backups) tryDrawn(ctx context.Context) (result format.Trial, drawn bool, err error) {
	for range drawsTried {
		t, drawn, err := b.draw(ctx)
		if err != nil || !drawn {
			return result, false, err
		}
		if result, there := b.tryThere(ctx, t); there {
			return result, true, nil
		}
		if err := ctx.Err(); err != nil {
			return result, false, err
		}
	}
	return result, false, nil
}

// draw chooses what to restore: a time between one of the backups and the one after it.
func (b Backups) draw(ctx context.Context) (t trial, drawn bool, err error) {
	ids, err := catalog.IDs(ctx, b.Bucket, b.Config.Region)
	if err != nil {
		return t, false, err
	}
	n, drawn := b.drawn(ctx, ids)
	if !drawn {
		return t, false, nil
	}
	from, err := format.IDTime(ids[n])
	if err != nil {
		return t, false, err
	}
	to := time.Now()
	if n+1 < len(ids) {
		if next, err := format.IDTime(ids[n+1]); err == nil && next.Before(to) {
			to = next
		}
	}
	if !to.After(from) {
		return trialOf(timeline.Target{Backup: ids[n]}, ""), true, nil
	}
	at := from.Add(rand.N(to.Sub(from))).UTC().Truncate(time.Millisecond)
	return trialOf(timeline.Target{Time: at}, ids[n]), true, nil
}

// drawn draws a backup, not of those that the configuration has no place for any more, and not of
// those that no identity opens, as after a key was lost: that they are refused tells nothing of them.
func (b Backups) drawn(ctx context.Context, ids []string) (n int, drawn bool) {
	opener, _ := b.Config.Opener(b.Opener) // what is wrong with it the restore of the newest state tells
	for _, n := range rand.Perm(len(ids))[:min(len(ids), drawsTried)] {
		m, err := catalog.Manifest(ctx, b.Bucket, b.Config.Region, ids[n])
		if !b.misfits(m, err) && (err != nil || opener.Fits(m.Keys()) == nil) {
			return n, true // what is wrong with it the drill tells
		}
	}
	return 0, false
}

// misfits says whether a backup, or why it cannot be read, is not for this configuration or this version.
func (b Backups) misfits(m *format.Manifest, err error) bool {
	return events.KindOf(err) == events.KindRefused || err == nil && checkFits(b.Config, m) != nil
}

// tryThere makes a trial of what may not be there any more when it is made. there is false if that is so, if it has no place
// here, if it is archived, and if no identity opens it: all that tells nothing of the backups.
func (b Backups) tryThere(ctx context.Context, t trial) (result format.Trial, there bool) {
	if t, there = b.settle(ctx, t); !there {
		return result, false
	}
	result, err := b.try(ctx, t)
	switch {
	case err == nil:
		return result, true
	case errors.Is(err, seal.ErrNoKey) || isArchived(err) || b.gone(ctx, t.target.Backup) || b.gone(ctx, result.Backup):
		b.Log.Info("restore drill passes over what is gone, what is archived, or what no identity opens", "aim", t.aim, "error", err)
		return result, false
	}
	now, there := b.settle(ctx, t)
	if there && now.aim != t.aim { // segments have been pruned meanwhile
		return b.tryThere(ctx, now)
	}
	return result, there
}

// settle has a trial restore the backup before a time if no restore to that time is promised. there is false if
// there is none, or it is not for this configuration.
func (b Backups) settle(ctx context.Context, t trial) (settled trial, there bool) {
	if id := t.target.Backup; id != "" {
		m, err := catalog.Manifest(ctx, b.Bucket, b.Config.Region, id)
		return t, !b.misfits(m, err)
	}
	_, err := PlanRestore(ctx, b.job(t, ""))
	switch {
	case err == nil || !b.excused(ctx, t.target.Time, err):
		return t, true // what is wrong the trial tells
	case t.instead == "":
		return t, false
	}
	return b.settle(ctx, trialOf(timeline.Target{Backup: t.instead}, ""))
}

// excused says whether it is no fault of the bucket that a restore to a time cannot be planned: what was written then was
// never archived, as in a gap that a segment tells of, or is not yet; or its segments are older than what is kept; or what was
// there then is not for this configuration, or not for this version. A segment that is missing or damaged
// is what a drill is to find.
func (b Backups) excused(ctx context.Context, at time.Time, err error) bool {
	var missing *timeline.MissingError
	kind := events.KindOf(err)
	switch {
	case kind == events.KindRefused:
		return true
	case kind == events.KindNotFound && !(errors.As(err, &missing) && missing.Lost):
		return true
	case kind == events.KindNotFound || kind == events.KindInconsistent:
		return at.Before(b.promisedFrom(ctx))
	}
	return false
}

// promisedFrom is from when on a restore to any time is promised (backup.keep.segment), as prunes count it: back from the newest
// backup. Zero: that is not known.
func (b Backups) promisedFrom(ctx context.Context) (from time.Time) {
	ids, err := catalog.IDs(ctx, b.Bucket, b.Config.Region)
	if err != nil || b.Config.Backup == nil {
		return from
	}
	now := time.Now()
	for _, id := range ids {
		if began, err := format.IDTime(id); err == nil && !catalog.Ahead(began, now) {
			from = began.Add(-b.Config.Backup.Keep.Segment)
		}
	}
	return from
}

// gone says whether there is no such backup any more; empty: none is meant.
func (b Backups) gone(ctx context.Context, id string) bool {
	if id == "" {
		return false
	}
	_, err := catalog.Load(ctx, b.Bucket, b.Config.Region, id)
	return events.KindOf(err) == events.KindNotFound
}

// failedBefore are the restores that failed in the newest drill. They are made again until they succeed, or what they
// restored is gone: that another one succeeds which is drawn says nothing of them.
func (b Backups) failedBefore(ctx context.Context) (again []trial, err error) {
	d, err := b.newestDrill(ctx)
	if d == nil || err != nil {
		return nil, err
	}
	return repeats(d), nil
}

// repeats are the trials that make restores again which have failed in a drill: of those that have begun with one backup
// the first.
func repeats(d *format.Drill) (again []trial) {
	bases := map[string]bool{}
	for _, was := range slices.Concat(d.Trials[1:], d.Trials[:1]) { // the newest state is restored in any case
		if t, is := repeated(was, d.Created); is && len(again) < repeatedMost && !bases[was.Backup] {
			again = append(again, t)
			bases[was.Backup] = was.Backup != ""
		}
	}
	return again
}

// failsAnew says whether a drill failed by anything but what is known from the one before, nil if there was none.
func failsAnew(d, before *format.Drill) bool {
	if d.Trials[0].Error != "" || before == nil {
		return d.Err() != nil
	}
	known := map[string]bool{} // aims, and backups that were begun with
	for _, t := range repeats(before) {
		known[t.aim] = true
	}
	for _, t := range before.Trials {
		known[t.Backup] = known[t.Backup] || t.Error != "" && t.Backup != ""
	}
	return slices.ContainsFunc(d.Trials, func(t format.Trial) bool { return t.Error != "" && !known[t.Aim] && !known[t.Backup] })
}

// newestDrill is the newest report that can be read, if it is one of the last; nil: none of them can.
func (b Backups) newestDrill(ctx context.Context) (*format.Drill, error) {
	past, _, err := b.drillIDs(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	for d, err := range b.reports(ctx, past[max(0, len(past)-drillsLooked):]) {
		if !unreadable(err) {
			return d, err
		}
	}
	return nil, nil
}

// repeated is the trial that makes a restore again which has failed in a drill of a time. The newest state is not the
// newest any more: it is the one of then.
func repeated(was format.Trial, drilled time.Time) (t trial, is bool) {
	if was.Error == "" {
		return t, false
	}
	t = aimedAt(was, drilled)
	if !t.target.Time.IsZero() {
		t.base = was.Backup // another one may lead there by now, which may be whole
	}
	if strings.Contains(was.Attested, api.Differs) {
		t.differed = was.Attested
	}
	return t, true
}

func aimedAt(was format.Trial, drilled time.Time) trial {
	if id, is := strings.CutPrefix(was.Aim, "backup "); is && format.ValidID(id) {
		return trialOf(timeline.Target{Backup: id}, "")
	}
	if text, is := strings.CutPrefix(was.Aim, "time "); is {
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return trialOf(timeline.Target{Time: at}, was.Backup)
		}
	}
	if was.Backup == "" { // not even a plan could be made, by what there was then
		return trialOf(timeline.Target{Time: drilled}, "")
	}
	if began, err := format.IDTime(was.Backup); err == nil && was.StateTime.After(began) { // by segments
		return trialOf(timeline.Target{Time: was.StateTime}, was.Backup)
	}
	return trialOf(timeline.Target{Backup: was.Backup}, "")
}
