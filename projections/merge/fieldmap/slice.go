package fieldmap

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

const (
	version  = 1
	flagLive = 1

	maxFields     = 1024
	maxElements   = 4096
	maxSliceBytes = 4 << 20
)

// header is what a slice begins with.
type header struct {
	live   bool
	clock  events.HLC
	last   int64 // offset of the last event
	typ    []byte
	resets events.Context
	fields int
}

func readHeader(r *codec.Reader) header {
	v, flags := r.Byte(), r.Byte()
	if v != version || flags > flagLive {
		r.Fail()
	}
	return header{
		live: flags == flagLive, clock: r.Clock(), last: r.Offset(), typ: r.Text(),
		resets: r.Context(), fields: readCount(r, 0, maxFields),
	}
}

func readCount(r *codec.Reader, least, most int) int {
	b := r.Bytes(2)
	if b == nil {
		return 0
	}
	n := int(binary.BigEndian.Uint16(b))
	if n < least || n > most {
		r.Fail()
		return 0
	}
	return n
}

// field is one field of a slice; its bytes are the slice's.
type field struct {
	name     []byte
	kinds    kinds
	value    valueState
	sum      sumState
	elements int
	set      codec.Reader // stands before the elements
	holds    bool         // a value, a counter or an element
	encoded  []byte
}

// valueState is a register.
type valueState struct {
	offset int64
	clock  events.HLC
	json   []byte // empty: unset
}

// sumState is a counter.
type sumState struct {
	offset int64 // of the last increment
	sum    int64
}

// element is one element of a set.
type element struct {
	text    []byte
	added   int64  // offset of the newest add; -1 if there is none
	removed []byte // a context, encoded
}

// noContext is the empty context, encoded.
var noContext = codec.AppendContext(nil, nil)

// readField reads the field after another, whose name is nil before the first.
func readField(r *codec.Reader, after []byte) field {
	from := r.Rest()
	f := field{name: r.Text(), kinds: kinds(r.Byte())}
	if f.kinds == 0 || f.kinds > allKinds || len(f.name) > maxNameBytes || after != nil && bytes.Compare(after, f.name) >= 0 {
		r.Fail()
	}
	if f.kinds&register != 0 {
		f.value = valueState{offset: r.Offset(), clock: r.Clock(), json: r.Text()}
		f.holds = len(f.value.json) > 0
	}
	if f.kinds&counter != 0 {
		f.sum = sumState{offset: r.Offset(), sum: r.Signed()}
		f.holds = true
	}
	if f.kinds&set != 0 {
		f.elements = readCount(r, 1, maxElements)
		f.set = *r
		var e element
		for range f.elements {
			e = readElement(r, e.text)
			f.holds = f.holds || e.added >= 0
		}
	}
	f.encoded = from[:len(from)-len(r.Rest())]
	return f
}

// readElement reads the element after another, whose text is nil before the
// first.
func readElement(r *codec.Reader, after []byte) element {
	e := element{text: r.Text()}
	dot := r.Number()
	e.added = int64(dot - 1)
	e.removed = r.SkipContext()
	if bytes.Compare(after, e.text) >= 0 || len(e.text) > maxElementBytes || bits.Len64(dot-1) > 63 && dot != 0 || dot == 0 && len(e.removed) == len(noContext) {
		r.Fail()
	}
	return e
}

// context decodes what the removes of the element cover.
func (e element) context() events.Context {
	r := codec.Read(e.removed)
	return r.Context()
}

// above is what c covers beyond floor.
func above(c, floor events.Context) events.Context {
	if len(floor) == 0 {
		return c
	}
	var kept events.Context
	for _, s := range c {
		if s.Next > floor.Next(s.Origin) {
			kept = append(kept, s)
		}
	}
	return kept
}
