package prune

import (
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
)

// storedWithin is how exact the times of objects are: S3 leaves out what is behind whole seconds.
const storedWithin = time.Second

// earliestClock is the time from which ages are counted back: the earliest of what the newest
// backup, the pruner's clock and the bucket's say. None of them alone makes everything look
// old, and neither do the first two, which are one clock where a node prunes what it has made.
//
// A newest backup that is later than the bucket got it, and not later than the pruner's clock
// is, shows that this clock is ahead as well. By it pins and locks would end that
// hold, so that nothing is deleted: the error is of kind events.KindRefused.
func earliestClock(inv *inventory.Inventory, newest *inventory.Backup, now time.Time) (time.Time, error) {
	made := newest.Manifest.Created
	if !newest.Stored.IsZero() && catalog.Ahead(made, newest.Stored) && !catalog.Ahead(made, now) {
		return now, events.Errorf(events.KindRefused, "nothing is deleted while a clock is wrong: the newest backup, %s, was begun at %s by the clock of who made it, and was in the bucket at %s by the bucket's; by this machine's clock it is %s",
			newest.ID, made.Format(time.RFC3339), newest.Stored.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	earliest := made
	if now.Before(earliest) {
		earliest = now
	}
	if !inv.Clock.IsZero() && inv.Clock.Before(earliest.Truncate(storedWithin)) {
		earliest = inv.Clock
	}
	return earliest, nil
}
