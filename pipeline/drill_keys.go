package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
)

// proofs are what the reports of the newest drills say was proved with each key. Each report has what those before
// it had, so that a drill with a key from a safe is remembered however many come after it; several are
// looked at since one drill may have ended while another one was under way.
func (b Backups) proofs(ctx context.Context) (all []format.Proof, err error) {
	past, _, err := b.drillIDs(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	for d, err := range b.reports(ctx, past[max(0, len(past)-drillsLooked):]) {
		switch {
		case unreadable(err):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, d.Proofs...)
	}
	return all, nil
}

// recipients are the keys that the newest backup is sealed for which has anything in it, and what is proved of each.
func recipients(inv *inventory.Inventory, proofs []format.Proof, now time.Time) []api.RecipientProof {
	list := []api.RecipientProof{}
	for _, key := range newestKeys(inv, now) {
		list = append(list, api.RecipientProof{Key: key})
	}
	return withProofs(list, proofs, now)
}

// withProofs adds what is proved that is newer.
func withProofs(list []api.RecipientProof, proofs []format.Proof, now time.Time) []api.RecipientProof {
	list = slices.Clone(list)
	for i := range list {
		r := &list[i]
		for _, p := range proofs {
			if p.Key == r.Key && !catalog.Ahead(p.StateTime, now) && (r.Proved == nil || p.StateTime.After(*r.Proved)) {
				r.Proved, r.Drill = &p.StateTime, p.Drill
			}
		}
	}
	return list
}

func newestKeys(inv *inventory.Inventory, now time.Time) []string {
	for _, b := range slices.Backward(inv.Backups) {
		if b.Manifest != nil && !catalog.Ahead(b.Manifest.Created, now) && b.Manifest.StoredBytes() > 0 {
			return b.Manifest.Keys()
		}
	}
	return nil
}
