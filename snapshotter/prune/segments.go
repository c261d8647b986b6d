package prune

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// Segments says what becomes of the archive of a shard.
type Segments struct {
	Shard  int32  `json:"shard"`
	Delete int    `json:"delete"`         // so many, the oldest
	Bytes  int64  `json:"bytes"`          // that these have in the bucket
	Keep   int    `json:"keep"`           // so many
	From   int64  `json:"from"`           // number of the first that is kept
	Why    string `json:"why"`            // the others are
	Held   *Held  `json:"held,omitempty"` // what Object Lock holds: it would go, and what comes behind it

	names []string // of those that go, ascending
}

// judgeSegments decides about the archive. It goes by nothing but what backups and
// segments say: from the oldest backup that a restore to a point in time may have to start from,
// or that is pinned, everything is kept.
func judgeSegments(ctx context.Context, bucket objstore.Reader, locks *locks, inv *stock, keep time.Duration, kept func(id string) bool) ([]Segments, error) {
	list := []Segments{}
	base, _, needed := pointsFrom(inv.Inventory, inv.now, keep, inv.begins, kept)
	if base == nil {
		return list, nil
	}
	for shard, from := range needed {
		why := fmt.Sprintf("points in time of the last %s are restored from backup %s", days(keep), base.ID)
		for _, b := range inv.Backups {
			if b.Manifest != nil && inv.Pinned(b.ID, inv.now) != nil && lower(from, vectorOf(b.Manifest, shard)) {
				why = pinned(inv, b.ID)
			}
		}
		s, err := cutArchive(ctx, bucket, locks, inv.Region, int32(shard), from)
		if err != nil {
			return nil, err
		}
		if s.Why == "" {
			s.Why = why
		}
		if s.Delete+s.Keep > 0 {
			list = append(list, s)
		}
	}
	return list, nil
}

// pointsFrom is where the segments of each shard have to begin so that the points in time of a
// while can be restored, and the full backup that the oldest of them is restored from; nil: there
// is none. Not found: those that are old enough hold more than one that is newer, or so little that the archive does not
// follow on them, or none is.
//
// A clock that is behind dates a backup before what is in it. So a backup counts as old if the
// bucket has had it for as long too, and if no later one holds less; and nothing is given up that
// follows on a later one. Nor does anything go that follows on an earlier one which holds more: it
// may be all that the archive follows on.
func pointsFrom(inv *inventory.Inventory, now time.Time, keep time.Duration, begins []events.Vector, kept func(id string) bool) (base *format.Manifest, found bool, needed []events.Vector) {
	oldest := now.Add(-keep)
	var n newer
	for _, b := range slices.Backward(inv.Backups) {
		if !b.Restorable() || !kept(b.ID) || catalog.Ahead(b.Manifest.Created, now) {
			continue
		}
		if holdsMost := n.note(b); found && !holdsMost {
			continue
		}
		if needed == nil {
			needed = make([]events.Vector, len(b.Manifest.Shards))
			for shard := range needed {
				needed[shard] = vectorOf(b.Manifest, shard)
			}
		}
		more := false
		for shard := range needed {
			held := vectorOf(b.Manifest, shard)
			lower(needed[shard], held)
			for l, next := range held {
				more = more || next > needed[shard][l] && !n.isOver(l)
			}
		}
		if more || found || b.Kind() != format.Full {
			continue
		}
		base = b.Manifest
		found = !base.Created.After(oldest) && !b.Stored.After(oldest) && !n.isBefore(b, begins)
	}
	return base, found, needed
}

// beginTried bounds how many of the first segments are tried: the first may be void.
const beginTried = 3

// beginOf reads where the archive of a shard begins in each of its logs. What it does not name it has all of, or nothing; or
// nobody knows, since its first segments cannot be read.
func beginOf(ctx context.Context, bucket objstore.Reader, r events.Region, shard int32) (events.Vector, error) {
	tried := 0
	for at, err := range segment.Behind(ctx, bucket, r, shard, 0) {
		if err != nil {
			return nil, err
		}
		s, err := segment.HeaderOf(ctx, bucket, r, shard, at)
		switch kind := events.KindOf(err); {
		case kind == events.KindInconsistent || kind == events.KindRefused || kind == events.KindNotFound:
			if tried++; tried == beginTried {
				return nil, nil
			}
			continue
		case err != nil:
			return nil, err
		}
		begin := events.Vector{}
		for _, end := range s.Ends {
			begin[end.Log] = end.Next
		}
		for _, p := range s.Parts {
			begin[p.Log] = p.From
		}
		return begin, nil
	}
	return nil, nil
}

// isBefore says whether a backup holds so little that the archive does not follow on it: it was made of a shard that had begun anew and
// had not caught up. Then no later point can be restored from it.
func (n *newer) isBefore(b inventory.Backup, begins []events.Vector) bool {
	for shard, begin := range begins {
		held := vectorOf(b.Manifest, shard)
		for l, from := range begin {
			if held[l] < from && !n.isOver(l) {
				return true
			}
		}
	}
	return false
}

// Needed is where the segments of each shard have to begin so that the points in time of a while can be restored from some
// of the backups: no prune that knew of them deletes any of those behind. Nothing: there is none of these backups.
func Needed(inv *inventory.Inventory, now time.Time, keep time.Duration, from func(id string) bool) []events.Vector {
	_, _, needed := pointsFrom(inv, now, keep, nil, from)
	return needed
}

// basePromised is the full backup that the oldest point in time of a while is restored from, if
// none goes; empty: there is none, or no such point is promised.
func basePromised(inv *stock, keep time.Duration) string {
	if keep == 0 {
		return ""
	}
	base, found, _ := pointsFrom(inv.Inventory, inv.now, keep, inv.begins, func(string) bool { return true })
	switch {
	case base == nil:
		return ""
	case !found: // the oldest point may be restored from any that holds more than a newer one
		return inv.Backups[0].ID
	}
	return base.ID
}

// vectorOf is where a backup has a shard.
func vectorOf(m *format.Manifest, shard int) events.Vector {
	if shard >= len(m.Shards) {
		return events.Vector{}
	}
	return events.VectorOf(m.Shards[shard].States)
}

// lower lowers a vector to another, and reports whether that was needed.
func lower(v, to events.Vector) (lowered bool) {
	for l, next := range v {
		if to[l] < next {
			lowered = true
			if v[l] = to[l]; to[l] == 0 {
				delete(v, l)
			}
		}
	}
	return lowered
}

// cutArchive finds the segments of a shard that hold nothing behind a vector. The ends of
// logs only grow from one segment to the next, so that a few headers tell.
func cutArchive(ctx context.Context, bucket objstore.Reader, locks *locks, r events.Region, shard int32, needed events.Vector) (Segments, error) {
	s := Segments{Shard: shard}
	listed, newest, err := segment.List(ctx, bucket, r, shard)
	if err != nil || len(listed) == 0 {
		return s, err
	}
	// What is void goes with what comes before it.
	all := slices.DeleteFunc(slices.Clone(listed), func(at segment.Listed) bool { return newest != nil && newest.IsVoid(at.Number) })
	// The newest always stays: an archiver begins behind it.
	var failed error
	goes := sort.Search(len(all)-1, func(i int) bool {
		if failed != nil {
			return true
		}
		header, err := segment.Header(ctx, bucket, r, shard, all[i].Number)
		failed = err
		return err != nil || slices.ContainsFunc(header.Ends, func(e format.LogEnd) bool { return e.Next > needed[e.Log] })
	})
	switch kind := events.KindOf(failed); {
	case kind == events.KindInconsistent || kind == events.KindRefused || kind == events.KindNotFound:
		goes, s.Why = 0, failed.Error() // nobody knows what may go
	case failed != nil:
		return s, failed
	}
	s.From = all[goes].Number
	if goes == 0 {
		s.From = listed[0].Number
	}
	before, _ := slices.BinarySearchFunc(listed, s.From, func(at segment.Listed, from int64) int { return cmp.Compare(at.Number, from) })
	var names []string
	for _, at := range listed[:before] {
		names = append(names, format.SegmentName(r, shard, at.Number))
	}
	if s.Held, err = locks.cut(ctx, names); err != nil {
		return s, err
	}
	if s.Held != nil {
		names = names[:slices.Index(names, s.Held.Object)]
		s.Why, s.From = s.Held.why(), listed[len(names)].Number
	}
	for _, at := range listed[:len(names)] {
		s.Bytes += at.Size
	}
	s.names, s.Delete, s.Keep = names, len(names), len(listed)-len(names)
	return s, nil
}

// deleteSegments deletes what no kept backup needs of the archive, oldest first: what is left has
// no hole, wherever it is broken off. A store that lets some objects of a request go and not
// others leaves one; what lies before it is needed by nobody, and nobody reads it.
func (p *pruner) deleteSegments(ctx context.Context) error {
	// Only now: what was to be deleted of the backups is, and a restore that has pinned its
	// backup is seen.
	inv, err := p.locks.take(ctx, p.cfg.Region)
	if err != nil {
		return err
	}
	for _, b := range inv.Backups {
		if b.Manifest == nil {
			return events.Errorf(events.KindRefused, "no segment is deleted while manifest %s cannot be read: %s", b.Problems[0].Object, b.Problems[0].Error)
		}
	}
	p.report.Segments, err = judgeSegments(ctx, p.bucket, p.locks, inv, p.cfg.Policy.Segment, func(string) bool { return true })
	if err != nil {
		return err
	}
	for _, s := range p.report.Segments {
		p.report.hold(s.Held)
		if err := p.delete(ctx, s.names); err != nil {
			return err
		}
	}
	return nil
}
