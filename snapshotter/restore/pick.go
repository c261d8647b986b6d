package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// Pick looks for some records of a shard in a run of segments, up to a vector. Of each
// segment it reads the header, and the blocks of the logs that are in the vector; and it
// follows their chains over all records, wanted or not: so none is missing among those
// that it finds.
type Pick struct {
	Region events.Region
	Shard  int32
	Run    []segment.Listed  // ascending
	From   []events.LogState // where the logs stand; those that are not in it at offset 0
	To     events.Vector     // of the logs that are looked at

	// Anywhere says that logs begin where the segments have them, and go on behind what
	// the segments lack: whoever reads them tells what that is. From is not used.
	Anywhere bool

	// Chain is the hash chain of a log after a record.
	Chain func(before events.Digest, r *kgo.Record) events.Digest

	// Want is what is wanted of a record: itself, what of it matters, or nil.
	Want func(r *kgo.Record) *kgo.Record
}

// Picked is what was found in a segment.
type Picked struct {
	*format.Segment
	Looked int64     // at so many records
	Found  []Records // of each log that has some, in order
}

// Segments yields what is wanted, segment by segment. A chain that is not what a segment
// says, or anything that is missing, is of kind events.KindInconsistent.
func (p Pick) Segments(ctx context.Context, src Source) iter.Seq2[Picked, error] {
	return func(yield func(Picked, error) bool) {
		at := map[events.Log]*events.LogState{}
		for l := range p.To {
			at[l] = &events.LogState{Log: l, Next: -1} // begins anywhere
			if !p.Anywhere {
				at[l].Next = 0
			}
		}
		for _, st := range p.From {
			if _, wanted := p.To[st.Log]; wanted {
				at[st.Log] = &st
			}
		}
		read := func(ctx context.Context, listed segment.Listed) (*pickable, error) { return p.open(ctx, src, listed) }
		for s, err := range ahead(ctx, slices.Values(p.Run), read) {
			var found Picked
			if err == nil {
				found, err = p.followAll(s, at)
			}
			if err != nil {
				err = fmt.Errorf("shard %d: %w", p.Shard, err)
			}
			if !yield(found, err) || err != nil {
				return
			}
		}
		for l, st := range at {
			if !p.Anywhere && st.Next < p.To[l] {
				yield(Picked{}, events.Errorf(events.KindInconsistent, "shard %d: %s: the segments end at offset %d, before %d", p.Shard, l, st.Next, p.To[l]))
				return
			}
		}
	}
}

// pickable is what was read of a segment: of each log that is looked at, and that it has
// something of, the records from some place on.
type pickable struct {
	*format.Segment
	records map[events.Log][]*kgo.Record
}

// open reads the records of a segment. A reading that failed in a way that may pass is
// tried again; one reading proves no damage.
func (p Pick) open(ctx context.Context, src Source, listed segment.Listed) (opened *pickable, err error) {
	begin := events.VectorOf(p.From)
	err = Retry(ctx, func() error {
		opened, err = p.read(ctx, src, listed, begin)
		switch {
		case events.KindOf(err) == events.KindInconsistent:
			return fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
		case errors.Is(err, objstore.ErrNotFound):
			return events.Errorf(events.KindInconsistent, "missing from the bucket: %w", err)
		}
		return err
	})
	return opened, err
}

func (p Pick) read(ctx context.Context, src Source, listed segment.Listed, begin events.Vector) (*pickable, error) {
	s, err := segment.OpenAt(ctx, src.Bucket, src.Opener, p.Region, p.Shard, listed)
	if err != nil {
		return nil, err
	}
	opened := &pickable{Segment: s.Segment, records: map[events.Log][]*kgo.Record{}}
	for _, part := range s.Parts {
		if to, wanted := p.To[part.Log]; !wanted || part.From >= to {
			continue
		}
		records := []*kgo.Record{}
		for r, err := range s.Records(ctx, part.Log, begin[part.Log]) {
			if err != nil {
				return nil, err
			}
			records = append(records, r)
		}
		opened.records[part.Log] = records
	}
	return opened, nil
}

// followAll moves the logs over a segment.
func (p Pick) followAll(s *pickable, at map[events.Log]*events.LogState) (found Picked, err error) {
	found.Segment = s.Segment
	for i := range s.Parts {
		part := &s.Parts[i]
		st := at[part.Log]
		if st == nil || part.To <= st.Next || st.Next >= p.To[part.Log] {
			continue
		}
		records, err := p.follow(s, part, st, &found.Looked)
		if err != nil {
			return found, err
		}
		if len(records) > 0 {
			found.Found = append(found.Found, Records{Log: part.Log, Records: records})
		}
	}
	return found, nil
}

// follow moves a log over what a segment has of it.
func (p Pick) follow(s *pickable, part *format.SegmentPart, st *events.LogState, looked *int64) (wanted []*kgo.Record, err error) {
	object := format.SegmentName(s.Region, s.Shard, s.Number)
	differs := func(at int64, says, found events.Digest) error {
		return events.Errorf(events.KindInconsistent, "%w", &MarkError{
			Log: st.Log, Object: object, ChainOnly: true, Want: events.Mark{Next: at, Chain: says}, Found: events.Mark{Next: at, Chain: found},
		})
	}
	switch {
	case part.From > st.Next && p.Anywhere:
		st.Next, st.Chain = part.From, part.Before
	case part.From > st.Next:
		return nil, events.Errorf(events.KindInconsistent, "%s: offsets %d to %d are missing before object %s", st.Log, st.Next, part.From-1, object)
	case part.From == st.Next && st.Next > 0 && part.Before != st.Chain:
		return nil, differs(st.Next, part.Before, st.Chain)
	}
	chained := format.LogEnd{Log: st.Log, Next: st.Next, Chain: st.Chain}.IsChained()
	for _, r := range s.records[st.Log] {
		if r.Offset < st.Next {
			continue
		}
		*looked++
		st.Chain = p.Chain(st.Chain, r)
		if r.Offset >= p.To[st.Log] {
			continue // it is only followed to where the segment ends
		}
		if r := p.Want(r); r != nil {
			wanted = append(wanted, r)
		}
	}
	end, _ := s.End(st.Log)
	if chained && st.Chain != end.Chain {
		return nil, differs(part.To, end.Chain, st.Chain)
	}
	st.Next, st.Chain = part.To, end.Chain
	return wanted, nil
}
