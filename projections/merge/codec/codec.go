// Package codec is what the encodings of slices have in common: numbers, texts
// and contexts, appended by Append functions and read by a Reader. Every form is
// canonical: one value, one sequence of bytes, and the Reader takes no other.
//
//	number    uvarint as in encoding/binary, in the fewest bytes
//	signed    number, zigzag
//	offset    number up to 2^63-1
//	clock     8 bytes, big-endian
//	text      number of bytes, bytes
//	context   number of entries, up to events.MaxContextOrigins; entries: region (text),
//	          incarnation (number), next offset (number); origins ascend
package codec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"

	"github.com/evenkeel/evenkeel/events"
)

// AppendClock appends a clock.
func AppendClock(dst []byte, h events.HLC) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(h))
}

// AppendOffset appends an offset, which is not negative.
func AppendOffset(dst []byte, offset int64) []byte {
	return binary.AppendUvarint(dst, uint64(offset))
}

// AppendSigned appends a signed number.
func AppendSigned(dst []byte, n int64) []byte { return binary.AppendVarint(dst, n) }

// AppendText appends a text.
func AppendText[T string | []byte](dst []byte, text T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

// AppendContext appends a valid context.
func AppendContext(dst []byte, c events.Context) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c)))
	for _, s := range c {
		dst = AppendText(dst, string(s.Origin.Region))
		dst = binary.AppendUvarint(dst, uint64(s.Origin.Incarnation))
		dst = AppendOffset(dst, s.Next)
	}
	return dst
}

// ErrCorrupt is the reason of every failed read: the bytes are not what an
// Append wrote.
var ErrCorrupt = errors.New("cut short or damaged")

// Reader reads a slice from its beginning. After the first thing that is not
// there it gives zero values and Err says so. What it returns as bytes is part
// of the slice, not a copy.
type Reader struct {
	rest   []byte
	failed bool
}

// Read begins to read data.
func Read(data []byte) Reader { return Reader{rest: data} }

// Err is ErrCorrupt if something was not there.
func (r *Reader) Err() error {
	if r.failed {
		return ErrCorrupt
	}
	return nil
}

// End is ErrCorrupt if something was not there, or if something is left.
func (r *Reader) End() error {
	if len(r.rest) > 0 {
		r.Fail()
	}
	return r.Err()
}

// Fail makes the reader fail: what it gave cannot be.
func (r *Reader) Fail() { r.rest, r.failed = nil, true }

// Rest is what is left to read.
func (r *Reader) Rest() []byte { return r.rest }

// Byte reads one byte.
func (r *Reader) Byte() byte {
	b := r.Bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// Bytes reads n bytes; nil if they are not there.
func (r *Reader) Bytes(n uint64) []byte {
	if r.failed || n > uint64(len(r.rest)) {
		r.Fail()
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// Number reads a number.
func (r *Reader) Number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || size > 1 && r.rest[size-1] == 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// Signed reads a signed number.
func (r *Reader) Signed() int64 {
	n := r.Number()
	return int64(n>>1) ^ -int64(n&1)
}

// Offset reads an offset.
func (r *Reader) Offset() int64 {
	n := r.Number()
	if n > math.MaxInt64 {
		r.Fail()
		return 0
	}
	return int64(n)
}

// Clock reads a clock.
func (r *Reader) Clock() events.HLC {
	b := r.Bytes(8)
	if b == nil {
		return 0
	}
	return events.HLC(binary.BigEndian.Uint64(b))
}

// Text reads a text.
func (r *Reader) Text() []byte { return r.Bytes(r.Number()) }

// entry is one entry of a context.
type entry struct {
	region      []byte
	incarnation uint32
	next        int64
}

// entries reads the number of entries of a context.
func (r *Reader) entries() int {
	n := r.Number()
	if n > events.MaxContextOrigins {
		r.Fail()
		return 0
	}
	return int(n)
}

// entry reads the entry after another, the zero entry before the first.
func (r *Reader) entry(after entry) entry {
	region, incarnation, next := r.Text(), r.Number(), r.Offset()
	e := entry{region: region, incarnation: uint32(incarnation), next: next}
	ascends := cmp.Or(bytes.Compare(after.region, region), cmp.Compare(after.incarnation, e.incarnation)) < 0
	if len(region) == 0 || len(region) > events.MaxNameBytes || incarnation == 0 || incarnation > math.MaxUint32 || next == 0 || !ascends {
		r.Fail()
		return entry{}
	}
	return e
}

// Context reads a context.
func (r *Reader) Context() events.Context {
	n := r.entries()
	if n == 0 {
		return nil
	}
	c := make(events.Context, 0, n)
	var e entry
	for range n {
		if e = r.entry(e); r.failed {
			return nil
		}
		c = append(c, events.Seen{Origin: events.Origin{Region: events.Region(e.region), Incarnation: e.incarnation}, Next: e.next})
	}
	return c
}

// SkipContext reads over a context and returns it as it is encoded.
func (r *Reader) SkipContext() []byte {
	all := r.rest
	var e entry
	for range r.entries() {
		if e = r.entry(e); r.failed {
			return nil
		}
	}
	return all[:len(all)-len(r.rest)]
}
