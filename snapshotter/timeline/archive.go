package timeline

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// archive is what the bucket holds of the logs of a shard. It belongs to one goroutine.
type archive struct {
	bucket  objstore.Reader
	region  events.Region
	shard   int32
	objects []segment.Listed // ascending, without those that are void
	void    []format.Range
	headers map[int64]*format.Segment // of segments that were searched
}

func newArchive(bucket objstore.Reader, r events.Region, shard int32) *archive {
	return &archive{bucket: bucket, region: r, shard: shard, headers: map[int64]*format.Segment{}}
}

// list lists the segments of the shard.
func (a *archive) list(ctx context.Context) error {
	all, newest, err := segment.List(ctx, a.bucket, a.region, a.shard)
	if err != nil || newest == nil {
		a.objects = all
		return err
	}
	a.headers[newest.Number], a.void = newest, newest.Void
	a.objects = slices.DeleteFunc(all, func(at segment.Listed) bool { return newest.IsVoid(at.Number) })
	return nil
}

// header reads the header of the ith segment.
func (a *archive) header(ctx context.Context, i int) (*format.Segment, error) {
	at := a.objects[i]
	if s := a.headers[at.Number]; s != nil {
		return s, nil
	}
	s, err := segment.HeaderOf(ctx, a.bucket, a.region, a.shard, at)
	if err == nil {
		a.headers[at.Number] = s
	}
	return s, err
}

// newest is the last segment; nil: there is none.
func (a *archive) newest(ctx context.Context) (*format.Segment, error) {
	if len(a.objects) == 0 {
		return nil, nil
	}
	return a.header(ctx, len(a.objects)-1)
}

// search finds the first segment at or behind the one at from for which holds is true,
// as it has to be of all that follow; len(a.objects) if there is none. It begins at the
// newest, since that is where most of what is looked for is, and so does not come by
// what is damaged further back.
func (a *archive) search(ctx context.Context, from int, holds func(*format.Segment) bool) (int, error) {
	low, high := from, len(a.objects)
	for step := 1; low < high; step *= 2 {
		i := max(low, high-step)
		s, err := a.header(ctx, i)
		if err != nil {
			return 0, err
		}
		if !holds(s) {
			low = i + 1
			break
		}
		high = i
	}
	for low < high {
		middle := low + (high-low)/2
		s, err := a.header(ctx, middle)
		if err != nil {
			return 0, err
		}
		if holds(s) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, nil
}

const parallelHeaders = 8

// walk hands out the headers of the segments from first to last, in order, reading some
// ahead. It keeps none.
func (a *archive) walk(ctx context.Context, first, last int, each func(i int, s *format.Segment) error) error {
	for ; first <= last; first += parallelHeaders {
		headers := make([]*format.Segment, min(parallelHeaders, last-first+1))
		g, ctx := errgroup.WithContext(ctx)
		for k := range headers {
			at := a.objects[first+k]
			if headers[k] = a.headers[at.Number]; headers[k] != nil {
				continue
			}
			g.Go(func() (err error) {
				headers[k], err = segment.HeaderOf(ctx, a.bucket, a.region, a.shard, at)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for k, s := range headers {
			if err := each(first+k, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// MissingError says what of a log is not archived and would be needed.
type MissingError struct {
	Log      events.Log
	From, To int64 // the offsets from From to To-1
	Why      string

	// Lost says that they were archived once: the segments that had them are pruned, or somebody
	// has deleted them. Else they never were, as far as the archive tells.
	Lost bool
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s: offsets %d to %d are not archived: %s", e.Log, e.From, e.To-1, e.Why)
}

func missing(l events.Log, from, to int64, why string, args ...any) error {
	return events.Errorf(events.KindNotFound, "%w", &MissingError{Log: l, From: from, To: to, Why: fmt.Sprintf(why, args...)})
}

// missingBefore is a MissingError of what lies between an offset of a log and the ith segment, which has a
// part of the log; nil: it has nothing.
func (a *archive) missingBefore(i int, s *format.Segment, p *format.SegmentPart, l events.Log, from, to int64, why string, args ...any) error {
	e := &MissingError{Log: l, From: from, To: to, Why: fmt.Sprintf(why, args...)}
	before := s.After()
	there := before == 0 || i > 0 && a.objects[i-1].Number == before
	e.Lost = !there && (p == nil || p.Gap == nil || from < p.Gap.From)
	if e.Lost && i > 0 { // else all up to it are gone, as prunes leave it
		e.Why += fmt.Sprintf("; object %s is missing from the bucket", format.SegmentName(a.region, a.shard, before))
	}
	return events.Errorf(events.KindNotFound, "%w", e)
}

// Span are the segments of a shard that lead from one state to a vector.
type Span struct {
	Shard   int32 `json:"shard"`
	First   int64 `json:"first,omitzero"` // numbers; 0: none is needed
	Last    int64 `json:"last,omitzero"`
	Records int64 `json:"records"` // to be folded, about
	Bytes   int64 `json:"bytes"`   // of the objects

	Void []format.Range `json:"void,omitempty"` // numbers of segments that are left out
}

// Numbers are those of the segments, ascending.
func (s Span) Numbers() iter.Seq[int64] {
	return func(yield func(int64) bool) {
		if s.First == 0 {
			return
		}
		for n := s.First; n <= s.Last; n++ {
			if s.Has(n) && !yield(n) {
				return
			}
		}
	}
}

// Has says whether a segment is one of them.
func (s Span) Has(number int64) bool {
	void := format.Segment{Void: s.Void}
	return s.First > 0 && number >= s.First && number <= s.Last && !void.IsVoid(number)
}

// Segments is how many they are.
func (s Span) Segments() (n int64) {
	for range s.Numbers() {
		n++
	}
	return n
}

// span finds the segments that lead from states to a vector, of the logs that are in
// the vector. They follow each other, and lack nothing.
func (a *archive) span(ctx context.Context, states []events.LogState, to events.Vector) (Span, error) {
	span := Span{Shard: a.shard}
	from, err := a.open(states, to)
	if err != nil || len(from) == 0 {
		return span, err
	}
	first, err := a.search(ctx, 0, func(s *format.Segment) bool {
		for l := range from {
			if end, ok := s.End(l); ok && end.Next > from[l].Next {
				return true
			}
		}
		return false
	})
	if err != nil {
		return span, err
	}
	last, err := a.search(ctx, first, func(s *format.Segment) bool {
		for l := range from {
			if end, _ := s.End(l); end.Next < to[l] {
				return false
			}
		}
		return true
	})
	if err != nil {
		return span, err
	}
	if last == len(a.objects) {
		return span, a.endsBefore(ctx, from, to)
	}
	return a.follow(ctx, first, last, from, to)
}

// open are the states, by log, of the logs that are not at their place in the vector.
func (a *archive) open(states []events.LogState, to events.Vector) (map[events.Log]events.LogState, error) {
	from := map[events.Log]events.LogState{}
	for l, next := range to {
		if l.Partition == a.shard && next > 0 {
			from[l] = events.LogState{Log: l}
		}
	}
	for _, st := range states {
		next, wanted := to[st.Log]
		switch {
		case !wanted:
		case st.Next >= next:
			delete(from, st.Log)
		case st.Next > 0 && st.Chain == (events.Digest{}):
			return nil, events.Errorf(events.KindRefused, "%s: the chain of the records below offset %d is not known, so nothing can be said to follow", st.Log, st.Next)
		default:
			from[st.Log] = st
		}
	}
	return from, nil
}

// endsBefore says of which log the archive does not reach its place in the vector.
func (a *archive) endsBefore(ctx context.Context, from map[events.Log]events.LogState, to events.Vector) error {
	newest, err := a.newest(ctx)
	if err != nil {
		return err
	}
	for _, p := range to.Positions() {
		if _, open := from[p.Log]; !open {
			continue
		}
		if newest == nil {
			return missing(p.Log, from[p.Log].Next, p.Offset, "shard %d has no segments", a.shard)
		}
		if end, _ := newest.End(p.Log); end.Next < p.Offset {
			return missing(p.Log, max(end.Next, from[p.Log].Next), p.Offset, "the archive ends at offset %d, closed at %s (segment %d)",
				end.Next, newest.Created.Format(time.RFC3339), newest.Number)
		}
	}
	return fmt.Errorf("shard %d: the ends of the archive go back", a.shard)
}

// follow makes sure that a run of segments holds everything between states and a
// vector.
func (a *archive) follow(ctx context.Context, first, last int, from map[events.Log]events.LogState, to events.Vector) (Span, error) {
	span := Span{Shard: a.shard, First: a.objects[first].Number, Last: a.objects[last].Number, Void: a.void}
	var before *format.Segment
	err := a.walk(ctx, first, last, func(i int, s *format.Segment) error {
		if before != nil {
			if s.After() != before.Number {
				return events.Errorf(events.KindInconsistent, "object %s is missing from the bucket", format.SegmentName(a.region, a.shard, before.Number+1))
			}
			if err := s.Follows(before); err != nil {
				return events.Errorf(events.KindInconsistent, "object %s: %w", format.SegmentName(a.region, a.shard, s.Number), err)
			}
		}
		before = s
		span.Bytes += a.objects[i].Size
		for l, st := range from {
			if err := a.advance(i, s, &st, to[l], &span); err != nil {
				return err
			}
			from[l] = st
		}
		return nil
	})
	return span, err
}

// advance moves the state of a log over the ith segment, as far as it is wanted.
func (a *archive) advance(i int, s *format.Segment, st *events.LogState, to int64, span *Span) error {
	end, known := s.End(st.Log)
	if !known || end.Next <= st.Next || st.Next >= to {
		return nil
	}
	p := s.Part(st.Log)
	switch {
	case p == nil:
		return a.missingBefore(i, s, p, st.Log, st.Next, min(to, end.Next), "the archive begins behind them, with segment %d", s.Number)
	case p.From > st.Next && p.Gap != nil:
		return a.missingBefore(i, s, p, st.Log, st.Next, min(to, p.From), "segment %d says: %s", s.Number, p.Gap.Reason)
	case p.From > st.Next:
		return a.missingBefore(i, s, p, st.Log, st.Next, min(to, p.From), "the archive begins behind them, with segment %d", s.Number)
	case p.From == st.Next && st.Next > 0 && p.Before != st.Chain:
		return events.Errorf(events.KindInconsistent, "%s: the records below offset %d have the chain %s in what is built on, and %s in object %s",
			st.Log, st.Next, st.Chain, p.Before, format.SegmentName(a.region, a.shard, s.Number))
	}
	span.Records += p.Records
	st.Next, st.Chain = p.To, end.Chain
	return nil
}
