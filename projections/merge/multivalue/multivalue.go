package multivalue

import (
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

// Rule is the rule; its zero value is ready.
type Rule struct{}

var _ merge.Bounded = Rule{}

const (
	version     = 1
	name        = "multivalue"
	maxSiblings = 64
	maxBytes    = 64 << 20 // of a slice with several values
)

// Name implements merge.Rule.
func (Rule) Name() string { return name }

func noMeaning(format string, args ...any) error {
	return &merge.NoMeaningError{Rule: name, Reason: fmt.Sprintf(format, args...)}
}

// header is what a slice begins with.
type header struct {
	last    int64 // offset of the last event
	context events.Context
	values  int
}

func readHeader(r *codec.Reader) header {
	if v := r.Byte(); v != version {
		r.Fail()
	}
	h := header{last: r.Offset(), context: r.Context(), values: int(r.Byte())}
	if h.values > maxSiblings {
		r.Fail()
	}
	return h
}

// value is one value in a slice; its bytes are the slice's.
type value struct {
	offset                 int64
	clock                  events.HLC
	typ, contentType, body []byte
	encoded                []byte
}

func readValue(r *codec.Reader) value {
	from := r.Rest()
	v := value{offset: r.Offset(), clock: r.Clock(), typ: r.Text(), contentType: r.Text(), body: r.Text()}
	v.encoded = from[:len(from)-len(r.Rest())]
	return v
}

// Fold implements merge.Rule. It copies the values that stay from one slice to
// the next as they are.
func (Rule) Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error) {
	adds := e.Op == events.OpPut || e.Op == events.OpResolve
	if !adds && e.Op != events.OpDelete {
		return nil, noMeaning("no meaning for the operation %s", e.Op)
	}
	r, was := codec.Reader{}, header{}
	if prev != nil {
		r = codec.Read(prev)
		if was = readHeader(&r); at.Offset <= was.last {
			return nil, fmt.Errorf("multivalue slice: stands at offset %d already", was.last)
		}
	}
	own, others := merge.Covered(e, at)
	context := was.context.Join(others)
	if len(context) > events.MaxContextOrigins {
		return nil, noMeaning("the contexts of the key's events name more than %d origins", events.MaxContextOrigins)
	}
	begin := len(dst)
	dst = append(dst, version)
	dst = codec.AppendOffset(dst, at.Offset)
	dst = codec.AppendContext(dst, context)
	count := len(dst)
	dst = append(dst, 0)
	clock := e.Clock
	for range was.values {
		if v := readValue(&r); v.offset < own {
			clock = max(clock, v.clock.Next())
		} else {
			dst = append(dst, v.encoded...)
			dst[count]++
		}
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("multivalue slice: %w", err)
	}
	if !adds {
		return dst, nil
	}
	if stay := dst[count]; stay == maxSiblings || stay > 0 && len(dst)-begin+len(e.Value) > maxBytes {
		return nil, noMeaning("%d values that this one does not replace are enough; resolve them first", stay)
	}
	dst[count]++
	dst = codec.AppendOffset(dst, at.Offset)
	dst = codec.AppendClock(dst, clock)
	dst = codec.AppendText(dst, e.Type)
	dst = codec.AppendText(dst, e.ContentType)
	return codec.AppendText(dst, e.Value), nil
}

// NeedsSlice implements merge.Bounded: where an event covers all values of its log it stands alone.
func (Rule) NeedsSlice(e *events.Event, at events.Position) bool {
	own, _ := merge.Covered(e, at)
	return e.Op != events.OpDelete && own < at.Offset
}

// Bounds implements merge.Bounded.
func (Rule) Bounds() string {
	return fmt.Sprintf("a key holds at most %d values of one region that stand side by side, and at most %d MiB if they are several; "+
		"read the key and resolve it with the context of that answer", maxSiblings, maxBytes>>20)
}

// Last implements merge.Rule. A slice without values knows no clock.
func (Rule) Last(s merge.Slice) (at events.Position, clock events.HLC, err error) {
	d, err := decode(s)
	if err != nil {
		return events.Position{}, 0, err
	}
	for _, v := range d.kept {
		clock = max(clock, v.clock)
	}
	return d.position(), clock, nil
}

// Bury implements merge.Rule.
func (Rule) Bury(dst, slice []byte, at events.Position) ([]byte, error) {
	r := codec.Read(slice)
	was := readHeader(&r)
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("multivalue slice: %w", err)
	}
	dst = append(dst, version)
	dst = codec.AppendOffset(dst, at.Offset)
	dst = codec.AppendContext(dst, was.context)
	return append(dst, 0), nil
}

// Live implements merge.Rule.
func (Rule) Live(slice []byte) bool {
	r := codec.Read(slice)
	if v := r.Byte(); v != version {
		return false
	}
	r.Offset()
	r.SkipContext()
	values := r.Byte()
	return r.Err() == nil && values > 0
}

// state is a slice, decoded.
type state struct {
	header
	log  events.Log
	kept []value
}

func (s state) position() events.Position { return s.log.At(s.last) }

func decode(s merge.Slice) (state, error) {
	r := codec.Read(s.Data)
	d := state{log: s.Log, header: readHeader(&r)}
	if d.context.Next(s.Log.Origin) > 0 {
		r.Fail()
	}
	for range d.values {
		v := readValue(&r)
		if n := len(d.kept); n > 0 && d.kept[n-1].offset >= v.offset || v.offset > d.last {
			r.Fail()
		}
		d.kept = append(d.kept, v)
	}
	if err := r.End(); err != nil {
		return state{}, fmt.Errorf("slice of %s: multivalue slice: %w", s.Log, err)
	}
	return d, nil
}

// Join implements merge.Rule.
func (Rule) Join(all []merge.Slice) (merge.View, error) {
	states := make([]state, len(all))
	for i, s := range all {
		var err error
		if states[i], err = decode(s); err != nil {
			return merge.View{}, err
		}
	}
	states = merge.Latest(states, state.position)
	var siblings []merge.Sibling // ascending by position, as the states and their values do
	for _, s := range states {
		for _, v := range s.kept {
			at := s.log.At(v.offset)
			if slices.ContainsFunc(states, func(other state) bool { return other.covers(at) }) {
				continue
			}
			siblings = append(siblings, merge.Sibling{
				Value: v.body, ContentType: string(v.contentType), Type: string(v.typ), Clock: v.clock, Position: at,
			})
		}
	}
	return viewOf(siblings), nil
}

// covers reports whether an event of the state's log had seen the one at a
// position.
func (s state) covers(at events.Position) bool {
	return s.log.Partition == at.Partition && s.context.Next(at.Origin) > at.Offset
}

func viewOf(siblings []merge.Sibling) merge.View {
	if len(siblings) == 0 {
		return merge.View{}
	}
	newest := siblings[0]
	for _, s := range siblings {
		if s.Clock >= newest.Clock { // equal: they ascend by position
			newest = s
		}
	}
	view := merge.View{
		Exists: true, Value: newest.Value, ContentType: newest.ContentType,
		Type: newest.Type, Clock: newest.Clock, Position: newest.Position,
	}
	if len(siblings) > 1 {
		view.Siblings = siblings
	}
	return view
}
