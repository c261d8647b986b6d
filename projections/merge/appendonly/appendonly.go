// Package appendonly is the merge rule "append": for streams whose events are
// the data (metrics, audit trails), so that there is no state to merge. A key
// holds how many events it has, and where the last of them are.
//
// Append and put add one; everything else has no meaning. A view's value is the
// number of events of all origins, {"count":N}; its clock, position and type are
// those of the newest event, by effective clock, then origin, then partition. The
// effective clock of an event is at least one more than that of the event before
// it in its log.
//
// A slice is, in the words of package codec: version (1 byte, 1), effective clock
// of the last event (clock), first and last offset (offsets), count (number), type
// of the last event (text).
package appendonly

import (
	"fmt"
	"math"
	"strconv"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

// Rule is the rule; its zero value is ready.
type Rule struct{}

var _ merge.Rule = Rule{}

const (
	version = 1
	name    = "append"
)

// Name implements merge.Rule.
func (Rule) Name() string { return name }

// state is a slice, decoded.
type state struct {
	log         events.Log
	clock       events.HLC
	first, last int64 // offsets
	count       uint64
	typ         []byte
}

func (s state) position() events.Position { return s.log.At(s.last) }

// Fold implements merge.Rule.
func (Rule) Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error) {
	if e.Op != events.OpAppend && e.Op != events.OpPut {
		return nil, &merge.NoMeaningError{Rule: name, Reason: fmt.Sprintf("no meaning for the operation %s", e.Op)}
	}
	clock, first, count := e.Clock, at.Offset, uint64(1)
	if prev != nil {
		was, err := decode(merge.Slice{Log: at.Log, Data: prev})
		if err != nil {
			return nil, err
		}
		if at.Offset <= was.last {
			return nil, fmt.Errorf("append slice: stands at offset %d already", was.last)
		}
		clock, first, count = max(clock, was.clock.Next()), was.first, was.count+1
	}
	dst = append(dst, version)
	dst = codec.AppendClock(dst, clock)
	dst = codec.AppendOffset(dst, first)
	dst = codec.AppendOffset(dst, at.Offset)
	dst = codec.AppendOffset(dst, int64(count))
	return codec.AppendText(dst, e.Type), nil
}

// Last implements merge.Rule.
func (Rule) Last(s merge.Slice) (events.Position, events.HLC, error) {
	d, err := decode(s)
	if err != nil {
		return events.Position{}, 0, fmt.Errorf("slice of %s: %w", s.Log, err)
	}
	return d.position(), d.clock, nil
}

// Bury implements merge.Rule: there are no tombstones.
func (Rule) Bury(_, _ []byte, _ events.Position) ([]byte, error) {
	return nil, &merge.NoMeaningError{Rule: name, Reason: "events that are counted are never hidden"}
}

// Live implements merge.Rule.
func (Rule) Live(slice []byte) bool {
	_, err := decode(merge.Slice{Data: slice})
	return err == nil
}

// Join implements merge.Rule.
func (Rule) Join(slices []merge.Slice) (merge.View, error) {
	if len(slices) == 0 {
		return merge.View{}, nil
	}
	states := make([]state, len(slices))
	for i, s := range slices {
		var err error
		if states[i], err = decode(s); err != nil {
			return merge.View{}, fmt.Errorf("slice of %s: %w", s.Log, err)
		}
	}
	states = merge.Latest(states, state.position)
	newest, total := states[0], uint64(0)
	for _, s := range states {
		if s.clock >= newest.clock { // equal: they ascend by log
			newest = s
		}
		if total += s.count; total > math.MaxInt64 {
			return merge.View{}, fmt.Errorf("append slices: more events than can be counted")
		}
	}
	value := strconv.AppendUint([]byte(`{"count":`), total, 10)
	return merge.View{
		Exists: true, Value: append(value, '}'), ContentType: "application/json",
		Type: string(newest.typ), Clock: newest.clock, Position: newest.position(),
	}, nil
}

// decode reads a slice. Offsets bound the count, which therefore never
// overflows.
func decode(s merge.Slice) (state, error) {
	r := codec.Read(s.Data)
	if v := r.Byte(); v != version {
		return state{}, fmt.Errorf("no append slice of version %d", version)
	}
	d := state{log: s.Log, clock: r.Clock(), first: r.Offset(), last: r.Offset(), count: r.Number(), typ: r.Text()}
	if err := r.End(); err != nil {
		return state{}, fmt.Errorf("append slice: %w", err)
	}
	if d.first > d.last || d.count == 0 || d.count-1 > uint64(d.last-d.first) || (d.count == 1) != (d.first == d.last) {
		return state{}, fmt.Errorf("append slice: %d events from offset %d to %d", d.count, d.first, d.last)
	}
	return d, nil
}
