package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// Stock is what can be restored in a region's bucket.
type Stock struct {
	backups []*format.Manifest
	newest  events.Vector // of the newest point
	at      time.Time     // a point in time that is not to go; zero: none
}

// Stock takes stock, before a prune.
func (r *Region) Stock() Stock {
	r.world.t.Helper()
	ctx := context.Background()
	inv, err := inventory.Read(ctx, r.Bucket, r.Name)
	if err != nil {
		r.world.t.Fatalf("%s: %v", r.Name, err)
	}
	var s Stock
	for _, b := range inv.Backups {
		if !b.Restorable() {
			r.world.t.Errorf("%s: backup %s exists and cannot be restored: %+v", r.Name, b.ID, b.Problems)
			continue
		}
		s.backups = append(s.backups, b.Manifest)
	}
	if len(s.backups) == 0 {
		return s
	}
	plan, err := pipeline.PlanRestore(ctx, r.restoreJob(vfs.NewMem(), timeline.Target{}))
	if err != nil {
		r.world.t.Errorf("%s: the newest point: %v", r.Name, err)
		return s
	}
	s.newest = plan.Vector
	first := slices.IndexFunc(s.backups, func(m *format.Manifest) bool { return m.Kind == format.Full })
	at := s.backups[len(s.backups)-1].Created
	// Not to its very end: another backup may be made before the prune.
	if keep := r.config().Backup.Keep.Segment - 10*time.Minute; keep > 0 {
		at = at.Add(-time.Duration(r.world.Rand.Int64N(int64(keep))))
		_, err := pipeline.PlanRestore(ctx, r.restoreJob(vfs.NewMem(), timeline.Target{Time: at}))
		if err == nil && at.After(s.backups[first].Created.Add(5*time.Minute)) { // those before the first one are not promised
			s.at = at
		}
	}
	return s
}

// pin is a pin that was made.
type pin struct {
	made  time.Time
	unpin func()
}

// Pin keeps one of the region's backups, whichever, until it is unpinned.
func (r *Region) Pin() {
	r.world.t.Helper()
	all, err := catalog.All(context.Background(), r.Bucket, r.Name)
	if err != nil || len(all) == 0 {
		return
	}
	m := all[r.world.Rand.IntN(len(all))]
	if _, is := r.pins[m.ID]; is {
		return
	}
	unpin, err := catalog.Pin(context.Background(), r.Bucket, m, "somebody")
	if err != nil {
		r.world.t.Errorf("%s: %v", r.Name, err)
		return
	}
	r.pins[m.ID] = pin{time.Now(), unpin}
}

// Unpin gives free what Pin has kept.
func (r *Region) Unpin() {
	for id, p := range r.pins {
		p.unpin()
		delete(r.pins, id)
	}
}

// CheckPruned checks what a prune has left, whether or not it came to its end: every backup that
// exists is restored to the fold of its vector, and so are the newest point and a point in time
// that is kept; none is gone that was to stay.
func (r *Region) CheckPruned(before Stock) (gone int) {
	w := r.world
	w.t.Helper()
	after, logs := r.Stock(), w.readLogs()
	for _, m := range after.backups {
		if err := r.checkBackup(m, logs, false); err != nil {
			w.t.Errorf("%s: after a prune, %s %s: %v", r.Name, m.Kind, m.ID, err)
		}
	}
	for _, m := range before.backups {
		if !slices.ContainsFunc(after.backups, func(left *format.Manifest) bool { return left.ID == m.ID }) {
			gone++
			if why := r.whyKept(m, before.backups, after.backups); why != "" {
				w.t.Errorf("%s: a prune has deleted %s %s: %s", r.Name, m.Kind, m.ID, why)
			}
		}
	}
	if before.newest == nil {
		return gone
	}
	for log, next := range before.newest {
		if after.newest[log] < next {
			w.t.Errorf("%s: of %s the newest point was at %d, and is at %d after a prune", r.Name, log, next, after.newest[log])
		}
	}
	if err := r.checkPoint(timeline.Target{}, logs); err != nil {
		w.t.Errorf("%s: the newest point after a prune: %v", r.Name, err)
	}
	if !before.at.IsZero() {
		if err := r.checkPoint(timeline.Target{Time: before.at}, logs); err != nil {
			w.t.Errorf("%s: %s after a prune: %v", r.Name, before.at, err)
		}
	}
	return gone
}

// checkPoint restores a point and compares it with what the logs come to there.
func (r *Region) checkPoint(target timeline.Target, logs map[events.Log][]*kgo.Record) error {
	fs := vfs.NewMem()
	restored, err := pipeline.Restore(context.Background(), r.restoreJob(fs, target))
	if err != nil {
		return err
	}
	folded, err := r.world.foldAll(restored.Vector, logs)
	if err != nil {
		return err
	}
	return r.isFold(fs, restored, folded, logs, true)
}

// whyKept says why a backup was to stay; empty: it was not. It is told from the configuration
// and from what there was, and shares nothing with prunes.
func (r *Region) whyKept(m *format.Manifest, before, after []*format.Manifest) string {
	cfg := r.config().Backup
	newest := before[len(before)-1]
	if len(after) > 0 {
		newest = after[len(after)-1]
	}
	if p, is := r.pins[m.ID]; is && time.Since(p.made) < catalog.PinFor {
		return "it is pinned"
	}
	if age := newest.Created.Sub(m.Created); age <= r.keeps(m) {
		return fmt.Sprintf("it is %s older than the newest, and %s are kept", age, r.keeps(m))
	}
	newer := 0
	for _, other := range after {
		if slices.Contains(other.Parents, m.ID) {
			return fmt.Sprintf("%s builds on it", other.ID)
		}
		if other.Kind == format.Full && other.ID > m.ID {
			newer++
		}
	}
	if m.Kind == format.Full && newer < cfg.KeepLast {
		return fmt.Sprintf("only %d full backups are newer", newer)
	}
	return ""
}

func (r *Region) keeps(m *format.Manifest) time.Duration {
	keep := r.config().Backup.Keep
	switch step := catalog.Tier(m); {
	case m.Kind == format.Full:
		return keep.Full
	case step >= time.Hour:
		return keep.Delta
	case step > 0:
		return keep.Delta10m
	}
	return keep.Delta60s
}
