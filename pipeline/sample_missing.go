package pipeline

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// missingEvery is how often it is looked whether objects are missing, with a listing that a pass makes anyway. So one that
// is missing is told within this, a pass and a tick.
const missingEvery = 3 * time.Hour

// sampleMissing is what a sampleNote holds of objects that are missing.
type sampleMissing struct {
	Listed    time.Time           `json:"listed"`    // when it was last looked whether any are
	Known     verify.Known        `json:"known"`     // what was there then, or should have been
	Suspected []inventory.Problem `json:"suspected"` // found by one listing: another one is to confirm it
	Missing   []inventory.Problem `json:"missing"`   // found by two
}

func (m *sampleMissing) missingDue(now time.Time) bool {
	return len(m.Suspected) > 0 || now.Sub(m.Listed) >= missingEvery || m.Listed.After(now)
}

// confirm makes a listing only to find out whether what seemed to be missing is.
func (s *sampler) confirm(ctx context.Context, now time.Time) {
	r := s.watch.region
	list, err := verify.List(ctx, r.parts.Bucket, r.cfg.Region, &s.watch.cache)
	if err == nil {
		err = s.compare(ctx, list, now)
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("whether objects of the bucket are missing could not be confirmed", "error", err)
	}
	s.save()
}

// compare notes what is missing by a listing: what the one before lacked too is told.
func (s *sampler) compare(ctx context.Context, list *verify.Listing, now time.Time) error {
	r, note := s.watch.region, &s.note.sampleMissing
	found, known, err := list.Missing(ctx, r.parts.Bucket, r.cfg.Backup.Keep.Segment, note.Known)
	if err != nil {
		return err
	}
	told, suspected := []inventory.Problem{}, []inventory.Problem{}
	for _, p := range found {
		switch {
		case hasProblem(note.Missing, p.Object):
			told = append(told, p)
		case hasProblem(note.Suspected, p.Object):
			r.log.Error("an object of the backups is missing", "object", p.Object, "error", p.Error)
			told = append(told, p)
		default:
			suspected = append(suspected, p)
		}
	}
	note.Listed, note.Known, note.Missing, note.Suspected = now.UTC(), known, told, suspected
	return nil
}

func hasProblem(all []inventory.Problem, object string) bool {
	return slices.ContainsFunc(all, func(p inventory.Problem) bool { return p.Object == object })
}

// problems are all objects that are damaged or missing, by name, each once.
func (s *sampler) problems() []inventory.Problem {
	all := slices.Clone(s.note.Missing)
	for _, p := range s.note.Damaged {
		if !hasProblem(all, p.Object) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b inventory.Problem) int { return cmp.Compare(a.Object, b.Object) })
	return append([]inventory.Problem{}, all...)
}
