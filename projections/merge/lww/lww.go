// Package lww is the merge rule "last writer wins": a key holds the value of
// its newest event.
//
// Within one origin the log's order decides, whatever the clocks say: an event's
// effective clock is at least one more than that of the event before it. Between
// origins the larger effective clock wins, then the larger origin, then the
// larger partition (producers with different partitioners can put one key into
// several partitions of a log). What a writer had seen plays no part.
//
// Put and resolve give a value, delete takes it away; patch and append have no
// meaning.
//
// A burial takes the value away and leaves the clock, and so all that was hidden and all that comes
// after: events of the own log are newer than the value that was there, as if it still were.
//
// A slice is: version (1 byte, 1), flags (1 byte; 1 for a tombstone), effective
// clock (8 bytes, big-endian), offset of the event (number), type and content
// type (texts, see package codec), value (the rest; none in a tombstone).
package lww

import (
	"encoding/binary"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

// Rule is the rule; its zero value is ready.
type Rule struct{}

var _ merge.Rule = Rule{}

const (
	version       = 1
	flagTombstone = 1
	headerBytes   = 10
)

// Name implements merge.Rule.
func (Rule) Name() string { return "lww" }

// Fold implements merge.Rule.
func (Rule) Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error) {
	clock := e.Clock
	if prev != nil {
		if err := checkHeader(prev); err != nil {
			return nil, err
		}
		clock = max(clock, clockOf(prev).Next())
	}
	flags, value := byte(0), e.Value
	switch e.Op {
	case events.OpPut, events.OpResolve:
	case events.OpDelete:
		flags, value = flagTombstone, nil
	default:
		return nil, &merge.NoMeaningError{Rule: "lww", Reason: fmt.Sprintf("no meaning for the operation %s", e.Op)}
	}
	dst = append(dst, version, flags)
	dst = codec.AppendClock(dst, clock)
	dst = codec.AppendOffset(dst, at.Offset)
	dst = codec.AppendText(dst, e.Type)
	dst = codec.AppendText(dst, e.ContentType)
	return append(dst, value...), nil
}

// Last implements merge.Rule.
func (Rule) Last(s merge.Slice) (events.Position, events.HLC, error) {
	if err := checkHeader(s.Data); err != nil {
		return events.Position{}, 0, fmt.Errorf("slice of %s: %w", s.Log, err)
	}
	view, err := decode(s)
	return view.Position, view.Clock, err
}

// Bury implements merge.Rule.
func (Rule) Bury(dst, slice []byte, at events.Position) ([]byte, error) {
	if err := checkHeader(slice); err != nil {
		return nil, err
	}
	dst = append(dst, version, flagTombstone)
	dst = codec.AppendClock(dst, clockOf(slice))
	dst = codec.AppendOffset(dst, at.Offset)
	dst = codec.AppendText(dst, events.TypeBury)
	return codec.AppendText(dst, ""), nil
}

// Live implements merge.Rule.
func (Rule) Live(slice []byte) bool {
	return checkHeader(slice) == nil && slice[1]&flagTombstone == 0
}

// Join implements merge.Rule.
func (Rule) Join(slices []merge.Slice) (merge.View, error) {
	if len(slices) == 0 {
		return merge.View{}, nil
	}
	best := slices[0]
	for _, s := range slices {
		if err := checkHeader(s.Data); err != nil {
			return merge.View{}, fmt.Errorf("slice of %s: %w", s.Log, err)
		}
		c, d := clockOf(s.Data), clockOf(best.Data)
		if c > d || c == d && position(s).Compare(position(best)) > 0 {
			best = s
		}
	}
	view, err := decode(best)
	if err != nil {
		return merge.View{}, fmt.Errorf("slice of %s: %w", best.Log, err)
	}
	return view, nil
}

// position is where the slice's event was found.
func position(s merge.Slice) events.Position {
	r := codec.Read(s.Data[headerBytes:])
	return s.Log.At(r.Offset())
}

func decode(s merge.Slice) (merge.View, error) {
	r := codec.Read(s.Data[headerBytes:])
	view := merge.View{
		Exists:   s.Data[1]&flagTombstone == 0,
		Clock:    clockOf(s.Data),
		Position: s.Log.At(r.Offset()),
	}
	view.Type, view.ContentType = string(r.Text()), string(r.Text())
	if view.Exists {
		view.Value = r.Rest()
	} else if len(r.Rest()) > 0 {
		return merge.View{}, fmt.Errorf("lww tombstone with a value")
	}
	if err := r.Err(); err != nil {
		return merge.View{}, fmt.Errorf("lww slice: %w", err)
	}
	return view, nil
}

func checkHeader(slice []byte) error {
	if len(slice) < headerBytes || slice[0] != version || slice[1] > flagTombstone {
		return fmt.Errorf("no lww slice of version %d", version)
	}
	return nil
}

func clockOf(slice []byte) events.HLC {
	return events.HLC(binary.BigEndian.Uint64(slice[2:headerBytes]))
}
