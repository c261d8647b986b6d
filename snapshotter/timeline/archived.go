package timeline

import (
	"context"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// Archived is a target as far as segments alone reach, for somebody who wants records and
// no state: the vector, of the logs that are wanted, and the segments of each shard from
// the beginning of the run that its archive ends with. Offsets that are asked for by number must
// be archived.
func (t *Timeline) Archived(ctx context.Context, req Request, wanted func(events.Log) bool) (events.Vector, []Span, error) {
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	shards, err := t.shards(req)
	if err != nil {
		return nil, nil, err
	}
	p, err := t.resolve(ctx, req, shards, wanted)
	if err != nil {
		return nil, nil, err
	}
	var spans []Span
	for _, shard := range shards {
		span, err := t.archives[shard].whole(ctx, p.vector, len(req.Vector)+len(req.Offsets) > 0)
		if err != nil {
			return nil, nil, t.instead(ctx, err, t.now)
		}
		spans = append(spans, span)
	}
	return p.vector, spans, nil
}

// whole finds the segments that hold all that is archived below a vector. What of it is
// not archived is an error if it is to be exact, and else taken out of the vector.
func (a *archive) whole(ctx context.Context, to events.Vector, exact bool) (Span, error) {
	span := Span{Shard: a.shard}
	newest, err := a.newest(ctx)
	if err != nil {
		return span, err
	}
	if newest == nil {
		newest = &format.Segment{}
	}
	wanted := events.Vector{}
	for _, p := range to.Positions() {
		if p.Partition != a.shard {
			continue
		}
		if end, _ := newest.End(p.Log); end.Next < p.Offset {
			if exact {
				return span, missing(p.Log, end.Next, p.Offset, "the archive ends at offset %d", end.Next)
			}
			p.Offset = end.Next
		}
		if to[p.Log] = p.Offset; p.Offset == 0 {
			delete(to, p.Log)
			continue
		}
		wanted[p.Log] = p.Offset
	}
	if len(wanted) == 0 {
		return span, nil
	}
	first := a.lastRun()
	last, err := a.search(ctx, first, func(s *format.Segment) bool {
		for l, next := range wanted {
			if end, _ := s.End(l); end.Next < next {
				return false
			}
		}
		return true
	})
	if err != nil {
		return span, err
	}
	span.First, span.Last, span.Void = a.objects[first].Number, a.objects[last].Number, a.void
	for _, o := range a.objects[first : last+1] {
		span.Bytes += o.Size
	}
	return span, nil
}
