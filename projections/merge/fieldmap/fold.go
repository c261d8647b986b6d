package fieldmap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

// Rule is the rule; its zero value is ready.
type Rule struct{}

var _ merge.Bounded = Rule{}

const name = "fieldmap"

// Name implements merge.Rule.
func (Rule) Name() string { return name }

func noMeaning(format string, args ...any) error {
	return &merge.NoMeaningError{Rule: name, Reason: fmt.Sprintf(format, args...)}
}

// Fold implements merge.Rule. It goes through the fields of the old slice and
// the changes once, both sorted by name; what does not change is copied as it is.
func (Rule) Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error) {
	read := newReader()
	defer read.done()
	changes, err := read.changesOf(e)
	if err != nil {
		return nil, noMeaning("%s", err)
	}
	r, was, clock := codec.Reader{}, header{}, e.Clock
	if prev != nil {
		r = codec.Read(prev)
		if was = readHeader(&r); at.Offset <= was.last {
			return nil, fmt.Errorf("fieldmap slice: stands at offset %d already", was.last)
		}
		clock = max(clock, was.clock.Next())
	}
	f := folder{at: at.Offset, clock: clock, resets: was.resets, isReset: e.Op != events.OpPatch}
	f.own, f.others = merge.Covered(e, at)
	if f.isReset {
		if f.resets, err = join(was.resets, f.others); err != nil {
			return nil, err
		}
	}
	begin := len(dst)
	f.dst = append(dst, version, 0)
	f.dst = codec.AppendClock(f.dst, clock)
	f.dst = codec.AppendOffset(f.dst, at.Offset)
	f.dst = codec.AppendText(f.dst, e.Type)
	f.dst = codec.AppendContext(f.dst, f.resets)
	count := len(f.dst)
	f.dst = append(f.dst, 0, 0)
	if err := f.merge(&r, was.fields, changes); err != nil {
		return nil, err
	}
	if f.fields > maxFields || f.elements > maxElements || len(f.dst)-begin > maxSliceBytes {
		return nil, noMeaning("%d fields, %d elements and removes, %d bytes: at most %d, %d, %d; put or delete the key to make room",
			f.fields, f.elements, len(f.dst)-begin, maxFields, maxElements, maxSliceBytes)
	}
	binary.BigEndian.PutUint16(f.dst[count:], uint16(f.fields))
	if f.live {
		f.dst[begin+1] = flagLive
	}
	return f.dst, nil
}

func join(a, b events.Context) (events.Context, error) {
	joined := a.Join(b)
	if len(joined) > events.MaxContextOrigins {
		return nil, noMeaning("the contexts of the key's events name more than %d origins", events.MaxContextOrigins)
	}
	return joined, nil
}

// folder writes the slice after an event.
type folder struct {
	dst []byte

	at      int64      // offset of the event
	clock   events.HLC // effective
	isReset bool
	own     int64 // what the event covers: own log and others'
	others  events.Context
	resets  events.Context // of the new slice

	live             bool
	fields, elements int
}

func (f *folder) merge(r *codec.Reader, n int, changes []change) error {
	var before []byte
	for range n {
		old := readField(r, before)
		if err := r.Err(); err != nil {
			break // End says it
		}
		for len(changes) > 0 && bytes.Compare(changes[0].name, old.name) < 0 {
			if err := f.field(field{name: changes[0].name}, changes[0]); err != nil {
				return err
			}
			changes = changes[1:]
		}
		var c change
		if len(changes) > 0 && bytes.Equal(changes[0].name, old.name) {
			c, changes = changes[0], changes[1:]
		}
		if err := f.field(old, c); err != nil {
			return err
		}
		before = old.name
	}
	if err := r.End(); err != nil {
		return fmt.Errorf("fieldmap slice: %w", err)
	}
	for _, c := range changes {
		if err := f.field(field{name: c.name}, c); err != nil {
			return err
		}
	}
	return nil
}

// field writes what becomes of a field; c has no kind if it does not change.
func (f *folder) field(old field, c change) error {
	if !f.isReset && c.kind == 0 {
		f.dst = append(f.dst, old.encoded...)
		f.fields++
		f.elements += old.elements
		f.live = f.live || old.holds
		return nil
	}
	begin := len(f.dst)
	f.dst = codec.AppendText(f.dst, old.name)
	mask := len(f.dst)
	f.dst = append(f.dst, 0)
	now := f.register(old, c)
	isCounter, err := f.counter(old, c)
	if err != nil {
		return err
	}
	isSet, err := f.set(old, c)
	if err != nil {
		return err
	}
	now |= isCounter | isSet
	if now == 0 {
		f.dst = f.dst[:begin]
		return nil
	}
	f.dst[mask] = byte(now)
	f.fields++
	return nil
}

// gone reports whether the event's reset takes away what has this dot.
func (f *folder) gone(offset int64) bool { return f.isReset && offset < f.own }

func (f *folder) register(old field, c change) kinds {
	v := old.value
	if c.kind == register {
		v = valueState{offset: f.at, clock: f.clock, json: c.value}
	} else if old.kinds&register == 0 || f.gone(v.offset) {
		return 0
	}
	f.dst = codec.AppendOffset(f.dst, v.offset)
	f.dst = codec.AppendClock(f.dst, v.clock)
	f.dst = codec.AppendText(f.dst, v.json)
	f.live = f.live || len(v.json) > 0
	return register
}

func (f *folder) counter(old field, c change) (kinds, error) {
	is := old.kinds&counter != 0 && !f.gone(old.sum.offset)
	var s sumState
	if is {
		s = old.sum
	}
	if c.kind == counter {
		sum := s.sum + c.delta
		if (sum > s.sum) != (c.delta > 0) && c.delta != 0 {
			return 0, noMeaning("patch: increment: the origin's sum would need more than 64 bits")
		}
		s, is = sumState{offset: f.at, sum: sum}, true
	}
	if !is {
		return 0, nil
	}
	f.dst = codec.AppendOffset(f.dst, s.offset)
	f.dst = codec.AppendSigned(f.dst, s.sum)
	f.live = true
	return counter, nil
}

func (f *folder) set(old field, c change) (kinds, error) {
	begin, before := len(f.dst), f.elements
	f.dst = append(f.dst, 0, 0)
	changes, r := c.elements, old.set
	var e element
	for range old.elements {
		e = readElement(&r, e.text)
		for len(changes) > 0 && bytes.Compare(changes[0].text, e.text) < 0 {
			if err := f.element(element{text: changes[0].text, added: -1}, changes[0]); err != nil {
				return 0, err
			}
			changes = changes[1:]
		}
		var ec elementChange
		if len(changes) > 0 && bytes.Equal(changes[0].text, e.text) {
			ec, changes = changes[0], changes[1:]
		}
		if err := f.element(e, ec); err != nil {
			return 0, err
		}
	}
	for _, ec := range changes {
		if err := f.element(element{text: ec.text, added: -1}, ec); err != nil {
			return 0, err
		}
	}
	n := f.elements - before
	if n == 0 {
		f.dst = f.dst[:begin]
		return 0, nil
	}
	if n > maxElements {
		return 0, noMeaning("%d elements and removes of one set: at most %d; put or delete the key to make room", n, maxElements)
	}
	binary.BigEndian.PutUint16(f.dst[begin:], uint16(n))
	return set, nil
}

// element writes what becomes of an element; c is zero if it does not change.
func (f *folder) element(old element, c elementChange) error {
	added, removed := old.added, old.removed
	if (f.isReset || c.remove) && added < f.own {
		added = -1
	}
	if c.add {
		added = f.at
	}
	if removed == nil {
		removed = noContext
	}
	begin := len(f.dst)
	f.dst = codec.AppendText(f.dst, old.text)
	f.dst = binary.AppendUvarint(f.dst, uint64(added+1))
	context := len(f.dst)
	if f.isReset && len(removed) > len(noContext) || c.remove && len(f.others) > 0 {
		covered := old.context()
		if c.remove {
			var err error
			if covered, err = join(covered, f.others); err != nil {
				return err
			}
		}
		f.dst = codec.AppendContext(f.dst, above(covered, f.resets))
	} else {
		f.dst = append(f.dst, removed...)
	}
	if added < 0 && len(f.dst)-context == len(noContext) {
		f.dst = f.dst[:begin]
		return nil
	}
	f.elements++
	f.live = f.live || added >= 0
	return nil
}

// NeedsSlice implements merge.Bounded. A delete only takes away. What is put by one who knows all that its
// region has stands alone; a context that was given may lack what others have added, and then the removes of
// that stay.
func (Rule) NeedsSlice(e *events.Event, at events.Position) bool {
	says := slices.ContainsFunc(e.Deps, func(s events.Seen) bool { return s.Origin == at.Origin })
	return e.Op == events.OpPatch || e.Op != events.OpDelete && says
}

// Bounds implements merge.Bounded.
func (Rule) Bounds() string {
	return fmt.Sprintf("a key holds at most %d fields, %d elements and removes of sets and %d MiB of one region, and counts in 64 bits; "+
		"fields that are unset count, too: put the key with the fields that are to stay, or delete it", maxFields, maxElements, maxSliceBytes>>20)
}

// Live implements merge.Rule.
func (Rule) Live(slice []byte) bool {
	return len(slice) > 1 && slice[0] == version && slice[1] == flagLive
}
