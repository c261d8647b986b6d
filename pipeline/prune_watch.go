package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
)

// pruneWatch is what a backupWatch knows of prunes; the watch's mu guards it.
type pruneWatch struct {
	slot  time.Time      // of the last one that deleted all that is to go, here or elsewhere
	tried time.Time      // when this node has last tried
	done  time.Time      // when it has last deleted all that is to go
	last  []api.PruneRun // the last one of each bucket
}

// pruneRetry is the pause after a prune that failed. What it leaves costs money, not data.
const pruneRetry = time.Hour

// pruneSlot is the last time for a prune of a region at or before now. It is as far from
// those of full backups as can be, if there are as many.
func pruneSlot(r events.Region, every time.Duration, now time.Time) time.Time {
	return lastSlot(r, every, now.Add(-every/2)).Add(every / 2)
}

// watchPrunes deletes what is not kept, when it is time, until the context ends.
func (w *backupWatch) watchPrunes(ctx context.Context) {
	every := w.region.cfg.Backup.Schedule.Prune
	if every == 0 {
		return
	}
	for range pause.Ticks(ctx, min(watchEvery, every/watchPasses)) {
		if slot := w.pruneDue(time.Now()); !slot.IsZero() && w.region.schedules() {
			w.prune(ctx, slot)
		}
	}
}

// pruneDue is the time for a prune that has come, zero if none has: the bucket can be read
// and has backups, and nobody has pruned it since that time, as far as is known. One that
// found nothing to delete leaves no trace there, and may be made again.
func (w *backupWatch) pruneDue(now time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	every := w.region.cfg.Backup.Schedule.Prune
	if w.failed != nil || w.seen == nil || w.seen.Backups == 0 {
		return time.Time{}
	}
	slot := pruneSlot(w.region.cfg.Region, every, now)
	if w.seen.Pruned != nil && !w.seen.Pruned.Before(slot) && len(w.region.parts.Copies) == 0 {
		w.prunes.slot = slot
	}
	if !catalog.Ahead(w.prunes.slot, now) && !slot.After(w.prunes.slot) || now.Sub(w.prunes.tried) < min(every, pruneRetry) {
		return time.Time{}
	}
	w.prunes.tried = now
	return slot
}

// prune deletes what is not kept in the bucket and in its copies.
func (w *backupWatch) prune(ctx context.Context, slot time.Time) {
	b, err := w.region.inBucket()
	if err != nil {
		return
	}
	runs := []api.PruneRun{b.prune(ctx, "")}
	for _, name := range slices.Sorted(maps.Keys(b.Copies)) {
		of := b
		of.Bucket = b.Copies[name]
		runs = append(runs, of.prune(ctx, name))
	}
	if ended(ctx) {
		return
	}
	whole := true
	for _, run := range runs {
		w.pruned(run)
		if whole = whole && run.Error == ""; run.Error != "" {
			w.region.log.Warn("old backups were not all pruned", "copy", run.Copy, "error", run.Error)
		}
	}
	if whole {
		w.mu.Lock()
		w.prunes.slot, w.prunes.done = slot, time.Now()
		w.mu.Unlock()
	}
	w.look(ctx)
}

// prune deletes what is not kept in a bucket, and says how that went.
func (b Backups) prune(ctx context.Context, name string) api.PruneRun {
	began := time.Now()
	report, err := b.Prune(ctx, api.PruneBackupsParams{Run: true})
	return toPruneRun(name, began, report, err)
}

func toPruneRun(name string, began time.Time, report *prune.Report, err error) api.PruneRun {
	run := api.PruneRun{Copy: name, Began: began.UTC(), Duration: time.Since(began).Seconds()}
	if err != nil {
		run.Error = err.Error()
	}
	if report != nil {
		run.Plan, run.Deleted, run.Left, run.Held = report.Plan, len(report.Deleted), len(report.Left), len(report.Held)
	}
	return run
}

// pruned notes how a prune went.
func (w *backupWatch) pruned(run api.PruneRun) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prunes.last = slices.DeleteFunc(slices.Clone(w.prunes.last), func(r api.PruneRun) bool { return r.Copy == run.Copy })
	w.prunes.last = append(w.prunes.last, run)
}

// prunedAt is when the bucket was last pruned, by this node or as its newest plan says;
// zero: never. The caller holds the watch's mu.
func (w *backupWatch) prunedAt() time.Time {
	at := w.prunes.done
	if w.seen != nil && w.seen.Pruned != nil && w.seen.Pruned.After(at) {
		at = *w.seen.Pruned
	}
	return at
}

func (w *backupWatch) prunedAge() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return ageOf(w.prunedAt())
}

// problems tells what needs an eye. The caller holds the watch's mu.
func (p *pruneWatch) problems() (problems []string) {
	for _, run := range p.last {
		of := "the backups"
		if run.Copy != "" {
			of = "copy " + run.Copy
		}
		switch {
		case run.Error != "":
			problems = append(problems, fmt.Sprintf("the prune of %s of %s failed: %s", of, run.Began.Format(time.RFC3339), run.Error))
		case run.Left > 0:
			problems = append(problems, fmt.Sprintf("the prune of %s of %s could not delete %d objects; see: evenkeel backup prune", of, run.Began.Format(time.RFC3339), run.Left))
		}
	}
	return problems
}
