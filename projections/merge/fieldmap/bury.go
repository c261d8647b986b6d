package fieldmap

import (
	"encoding/binary"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

// Last implements merge.Rule.
func (Rule) Last(s merge.Slice) (events.Position, events.HLC, error) {
	r := codec.Read(s.Data)
	h := readHeader(&r)
	if err := r.Err(); err != nil {
		return events.Position{}, 0, fmt.Errorf("slice of %s: fieldmap slice: %w", s.Log, err)
	}
	return s.Log.At(h.last), h.clock, nil
}

// Bury implements merge.Rule.
func (Rule) Bury(dst, slice []byte, at events.Position) ([]byte, error) {
	r := codec.Read(slice)
	was := readHeader(&r)
	dst = append(dst, version, 0)
	dst = codec.AppendClock(dst, was.clock)
	dst = codec.AppendOffset(dst, at.Offset)
	dst = codec.AppendText(dst, events.TypeBury)
	dst = codec.AppendContext(dst, was.resets)
	count := len(dst)
	dst = append(dst, 0, 0)
	fields := uint16(0)
	var before []byte
	for range was.fields {
		f := readField(&r, before)
		if r.Err() != nil {
			break // End says it
		}
		begin := len(dst)
		if dst = f.appendBuried(dst); len(dst) > begin {
			fields++
		}
		before = f.name
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("fieldmap slice: %w", err)
	}
	binary.BigEndian.PutUint16(dst[count:], fields)
	return dst, nil
}

// appendBuried appends what a field hides of others, if anything.
func (f field) appendBuried(dst []byte) []byte {
	begin := len(dst)
	dst = codec.AppendText(dst, f.name)
	mask := len(dst)
	dst = append(dst, 0)
	if f.kinds&register != 0 {
		dst[mask] |= byte(register)
		dst = codec.AppendOffset(dst, f.value.offset)
		dst = codec.AppendClock(dst, f.value.clock)
		dst = codec.AppendText(dst, "")
	}
	removes := f.removes()
	if len(removes) > 0 {
		dst[mask] |= byte(set)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(removes)))
		for _, e := range removes {
			dst = codec.AppendText(dst, e.text)
			dst = binary.AppendUvarint(dst, 0)
			dst = append(dst, e.removed...)
		}
	}
	if dst[mask] == 0 {
		return dst[:begin]
	}
	return dst
}

// removes are the elements of which the field remembers that they were removed.
func (f field) removes() (all []element) {
	r := f.set
	var e element
	for range f.elements {
		if e = readElement(&r, e.text); len(e.removed) > len(noContext) {
			all = append(all, e)
		}
	}
	return all
}
