package prune

import (
	"context"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
)

// stock is what the bucket holds of a region, and the time that counts for it: ages, pins and
// locks go by that.
type stock struct {
	*inventory.Inventory
	now    time.Time       // earliestClock
	proved string          // id of the newest backup that a restore drill has proved; empty: none is known
	begins []events.Vector // of the archive of each shard, see beginOf
}

// take takes stock. What the store holds ends by the time of the newest stock from then on.
func (l *locks) take(ctx context.Context, r events.Region) (*stock, error) {
	inv, err := inventory.Read(ctx, l.store, r)
	if err != nil {
		return nil, err
	}
	if l.now, err = earliestClock(inv, time.Now()); err != nil {
		return nil, err
	}
	s := &stock{Inventory: inv, now: l.now}
	if newest := inv.Newest(); newest != nil {
		for shard := range newest.Manifest.Shards {
			b, err := beginOf(ctx, l.store, r, int32(shard))
			if err != nil {
				return nil, err
			}
			s.begins = append(s.begins, b)
		}
	}
	return s, nil
}

// storedWithin is how exact the times of objects are: S3 leaves out what is behind whole seconds.
const storedWithin = time.Second

// earliestClock is the time from which ages are counted back and by which pins and locks end:
// the earliest of what the newest backup, the pruner's clock and the bucket's say. None of them
// alone makes everything look old, and neither do the first two, which are one clock where a
// node prunes what it has made.
//
// A newest backup that is later than the bucket got it, and not later than the pruner's clock
// is, shows that this clock is ahead as well. Then nothing is deleted: the error is of kind
// events.KindRefused.
func earliestClock(inv *inventory.Inventory, now time.Time) (time.Time, error) {
	earliest := now
	if newest := inv.Newest(); newest != nil {
		made := newest.Manifest.Created
		if !newest.Stored.IsZero() && catalog.Ahead(made, newest.Stored) && !catalog.Ahead(made, now) {
			return now, events.Errorf(events.KindRefused, "nothing is deleted while a clock is wrong: the newest backup, %s, was begun at %s by the clock of who made it, and was in the bucket at %s by the bucket's; by this machine's clock it is %s",
				newest.ID, made.Format(time.RFC3339), newest.Stored.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		if made.Before(earliest) {
			earliest = made
		}
	}
	if !inv.Clock.IsZero() && inv.Clock.Before(earliest.Truncate(storedWithin)) {
		earliest = inv.Clock
	}
	return earliest, nil
}
