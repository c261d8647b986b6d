package timeline

import (
	"context"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// offsetAt is the offset of the first record of a log that came after a time; that
// behind the last one if none did. What lies below known came before, since a backup
// from before has it, unless it is archived and that says otherwise. Where records are not archived of which the first after the time
// may be one, it says so.
func (a *archive) offsetAt(ctx context.Context, opener *seal.Opener, l events.Log, at time.Time, known int64) (int64, error) {
	later, err := a.search(ctx, 0, func(s *format.Segment) bool { return s.Created.After(at) })
	if err != nil {
		return 0, err
	}
	next := int64(0) // what lies below it came before
	if later > 0 {
		s, err := a.header(ctx, later-1)
		if err != nil {
			return 0, err
		}
		end, _ := s.End(l)
		next = end.Next
	}
	lacks := next // from there to next nothing is archived
	for i := later; ; i++ {
		if i, err = a.search(ctx, i, func(s *format.Segment) bool { end, _ := s.End(l); return end.Next > next }); err != nil {
			return 0, err
		}
		if i == len(a.objects) {
			return max(next, known), nil
		}
		s, err := a.header(ctx, i)
		if err != nil {
			return 0, err
		}
		p := s.Part(l)
		if p == nil { // its archive begins here, with nothing
			end, _ := s.End(l)
			next = end.Next
			continue
		}
		if next = p.From; len(p.Blocks) == 0 {
			continue // a gap, and nothing behind it yet
		}
		offset, found, err := a.firstAfter(ctx, opener, s, p, at)
		switch {
		case err != nil:
			return 0, err
		case found && offset == p.Blocks[0].First && lacks < next && known < next:
			return 0, a.missingBefore(i, s, p, l, lacks, next, "so it is not known whether they came before %s", at.Format(time.RFC3339Nano))
		case found:
			return offset, nil
		}
		next, lacks = p.To, p.To
	}
}

// firstAfter finds the first record of a part that came after a time.
func (a *archive) firstAfter(ctx context.Context, opener *seal.Opener, s *format.Segment, p *format.SegmentPart, at time.Time) (offset int64, found bool, err error) {
	if !s.Created.After(at) {
		return 0, false, nil
	}
	for _, b := range p.Blocks {
		if b.MinTime > at.UnixMilli() {
			return b.First, true, nil
		}
		if b.MaxTime <= at.UnixMilli() {
			continue
		}
		opened, err := segment.Open(ctx, a.bucket, opener, a.region, a.shard, s.Number)
		if err != nil {
			return 0, false, err
		}
		for r, err := range opened.Records(p.Log, b.First) {
			if err != nil {
				return 0, false, err
			}
			if r.Timestamp.After(at) {
				return r.Offset, true, nil
			}
		}
	}
	return 0, false, nil
}
