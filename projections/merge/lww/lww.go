// Package lww is the merge rule "last writer wins": a key holds the value of
// its newest event.
//
// Within one origin the log's order decides, whatever the clocks say: an event's
// effective clock is at least one more than that of the event before it. Between
// origins the larger effective clock wins, then the larger origin, then the
// larger partition (producers with different partitioners can put one key into
// several partitions of a log).
package lww

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Rule is the rule; its zero value is ready.
type Rule struct{}

var _ merge.Rule = Rule{}

// A slice is: version (1 byte), flags (1 byte), effective clock (8 bytes, big-
// endian), offset of the event (uvarint), type and content type (uvarint length
// and bytes each), value (the rest; none in a tombstone).
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
	case events.OpPut:
	case events.OpDelete:
		flags, value = flagTombstone, nil
	default:
		return nil, &merge.NoMeaningError{Rule: "lww", Reason: fmt.Sprintf("no meaning for the operation %s", e.Op)}
	}
	dst = append(dst, version, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(clock))
	dst = binary.AppendUvarint(dst, uint64(at.Offset))
	dst = binary.AppendUvarint(dst, uint64(len(e.Type)))
	dst = append(dst, e.Type...)
	dst = binary.AppendUvarint(dst, uint64(len(e.ContentType)))
	dst = append(dst, e.ContentType...)
	return append(dst, value...), nil
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
		if c > d || c == d && s.Log.Compare(best.Log) > 0 {
			best = s
		}
	}
	view, err := decode(best)
	if err != nil {
		return merge.View{}, fmt.Errorf("slice of %s: %w", best.Log, err)
	}
	return view, nil
}

func decode(s merge.Slice) (merge.View, error) {
	offset, rest, err := uvarint(s.Data[headerBytes:])
	if err != nil {
		return merge.View{}, err
	}
	if offset > math.MaxInt64 {
		return merge.View{}, fmt.Errorf("lww slice of an event at no offset")
	}
	typ, rest, err := text(rest)
	if err != nil {
		return merge.View{}, err
	}
	contentType, value, err := text(rest)
	if err != nil {
		return merge.View{}, err
	}
	view := merge.View{
		Exists:      s.Data[1]&flagTombstone == 0,
		Type:        typ,
		ContentType: contentType,
		Clock:       clockOf(s.Data),
		Position:    s.Log.At(int64(offset)),
	}
	if view.Exists {
		view.Value = value
	} else if len(value) > 0 {
		return merge.View{}, fmt.Errorf("lww tombstone with a value")
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

func uvarint(b []byte) (uint64, []byte, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return 0, nil, fmt.Errorf("lww slice is cut short")
	}
	return n, b[size:], nil
}

func text(b []byte) (string, []byte, error) {
	n, rest, err := uvarint(b)
	if err != nil || n > uint64(len(rest)) {
		return "", nil, fmt.Errorf("lww slice is cut short")
	}
	return string(rest[:n]), rest[n:], nil
}
