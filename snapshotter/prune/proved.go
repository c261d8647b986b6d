package prune

import (
	"context"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// newestProved is the newest backup, of those that are all there, that a restore drill has
// proved; empty: none is known. Reports that cannot be read are passed over.
func newestProved(ctx context.Context, bucket objstore.Reader, inv *inventory.Inventory) (proved string, err error) {
	there := map[string]bool{}
	for _, b := range inv.Backups {
		there[b.ID] = b.Restorable()
	}
	if len(there) == 0 {
		return "", nil
	}
	ids, err := catalog.Drills(ctx, bucket, inv.Region)
	if err != nil {
		return "", err
	}
	for _, id := range slices.Backward(ids) {
		if id < max(proved, inv.Backups[0].ID) {
			break // it was made before, and has proved nothing that is newer
		}
		d, err := catalog.Drill(ctx, bucket, inv.Region, id)
		switch events.KindOf(err) {
		case 0:
		case events.KindInconsistent, events.KindRefused, events.KindNotFound:
			continue
		default:
			return "", err
		}
		for _, t := range d.Trials {
			if t.Error == "" && there[t.Backup] {
				proved = max(proved, t.Backup)
			}
		}
	}
	return proved, nil
}
