package fieldmap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math/big"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

// state is a slice, decoded.
type state struct {
	header
	log  events.Log
	held []field
}

func (s *state) position() events.Position { return s.log.At(s.last) }

// Join implements merge.Rule.
func (Rule) Join(all []merge.Slice) (merge.View, error) {
	if len(all) == 0 {
		return merge.View{}, nil
	}
	states := make([]*state, len(all))
	for i, s := range all {
		var err error
		if states[i], err = decode(s); err != nil {
			return merge.View{}, fmt.Errorf("slice of %s: fieldmap slice: %w", s.Log, err)
		}
	}
	states = merge.Latest(states, (*state).position)
	newest := states[0]
	for _, s := range states {
		if s.clock >= newest.clock { // equal: they ascend by position
			newest = s
		}
	}
	view := merge.View{Type: string(newest.typ), Clock: newest.clock, Position: newest.position()}
	if value := joined(states).object(); value != nil {
		view.Exists, view.Value, view.ContentType = true, value, "application/json"
	}
	return view, nil
}

// decode reads a slice and checks all of it.
func decode(s merge.Slice) (*state, error) {
	r := codec.Read(s.Data)
	d := &state{log: s.Log, header: readHeader(&r)}
	var before []byte
	live, elements := false, 0
	d.held = make([]field, 0, d.fields)
	for range d.fields {
		f := readField(&r, before)
		if r.Err() != nil || !d.fits(f) {
			return nil, codec.ErrCorrupt
		}
		before, live, elements = f.name, live || f.holds, elements+f.elements
		d.held = append(d.held, f)
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	if live != d.live || elements > maxElements || d.resets.Next(s.Log.Origin) > 0 {
		return nil, codec.ErrCorrupt
	}
	return d, nil
}

// fits reports whether a field can be in a slice with this header.
func (s *state) fits(f field) bool {
	if f.value.offset > s.last || f.value.clock > s.clock || f.sum.offset > s.last {
		return false
	}
	if len(f.value.json) > 0 && !json.Valid(f.value.json) {
		return false
	}
	r := f.set
	for range f.elements {
		e := readElement(&r, nil)
		c := e.context()
		if e.added > s.last || !json.Valid(e.text) || c.Next(s.log.Origin) > 0 || len(above(c, s.resets)) != len(c) {
			return false
		}
	}
	return true
}

// joined are the slices of a key, ascending by log, one each.
type joined []*state

// occurrence is a field in one of the slices.
type occurrence struct {
	*state
	*field
}

// fields gives each field with what it has in all slices, in the order of names.
func (j joined) fields() iter.Seq[[]occurrence] {
	return func(yield func([]occurrence) bool) {
		n := 0
		for _, s := range j {
			n += len(s.held)
		}
		all := make([]occurrence, 0, n)
		for _, s := range j {
			for i := range s.held {
				all = append(all, occurrence{s, &s.held[i]})
			}
		}
		slices.SortStableFunc(all, func(a, b occurrence) int { return bytes.Compare(a.name, b.name) })
		for len(all) > 0 {
			n := 1
			for n < len(all) && bytes.Equal(all[n].name, all[0].name) {
				n++
			}
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// object is the view's value, nil if there is nothing.
func (j joined) object() []byte {
	dst := []byte{'{'}
	for in := range j.fields() {
		dst = j.appendField(dst, in)
	}
	if len(dst) == 1 {
		return nil
	}
	return append(dst, '}')
}

// appendField appends a member with what a field has in all slices, if it has
// anything.
func (j joined) appendField(dst []byte, in []occurrence) []byte {
	begin := len(dst)
	if begin > 1 {
		dst = append(dst, ',')
	}
	dst = append(appendString(dst, in[0].name), ':')
	for _, appendKind := range []func([]byte, []occurrence) []byte{j.appendSet, j.appendCounter, j.appendRegister} {
		empty := len(dst)
		if dst = appendKind(dst, in); len(dst) > empty {
			return dst
		}
	}
	return dst[:begin]
}

// isReset reports whether a reset of another origin covers what the state has at
// an offset. What the own ones cover is gone.
func (j joined) isReset(s *state, offset int64) bool {
	return slices.ContainsFunc(j, func(other *state) bool {
		return other.log.Partition == s.log.Partition && other.resets.Next(s.log.Origin) > offset
	})
}

func (j joined) appendRegister(dst []byte, in []occurrence) []byte {
	var best *occurrence
	for i, o := range in {
		if o.kinds&register == 0 || j.isReset(o.state, o.value.offset) {
			continue
		}
		if best == nil || o.value.clock >= best.value.clock { // equal: they ascend by log
			best = &in[i]
		}
	}
	if best == nil {
		return dst
	}
	return append(dst, best.value.json...)
}

func (j joined) appendCounter(dst []byte, in []occurrence) []byte {
	total, counts := new(big.Int), false
	for _, o := range in {
		if o.kinds&counter != 0 && !j.isReset(o.state, o.sum.offset) {
			total.Add(total, big.NewInt(o.sum.sum))
			counts = true
		}
	}
	if !counts {
		return dst
	}
	return total.Append(dst, 10)
}

// setMember is an element of a set in one of the slices.
type setMember struct {
	*state
	element
	covers events.Context
}

func (j joined) appendSet(dst []byte, in []occurrence) []byte {
	var all []setMember
	for _, o := range in {
		r := o.set
		for range o.elements {
			e := readElement(&r, nil)
			all = append(all, setMember{o.state, e, e.context()})
		}
	}
	slices.SortStableFunc(all, func(a, b setMember) int { return bytes.Compare(a.text, b.text) })
	begin := len(dst)
	for len(all) > 0 {
		n := 1
		for n < len(all) && bytes.Equal(all[n].text, all[0].text) {
			n++
		}
		if j.isIn(all[:n]) {
			dst = append(append(dst, ','), all[0].text...)
		}
		all = all[n:]
	}
	if len(dst) == begin {
		return dst
	}
	dst[begin] = '['
	return append(dst, ']')
}

// isIn reports whether an element, given as it is in all slices, has an add that
// nothing covers.
func (j joined) isIn(same []setMember) bool {
	for _, m := range same {
		isRemoved := func(other setMember) bool {
			return other.log.Partition == m.log.Partition && other.covers.Next(m.log.Origin) > m.added
		}
		if m.added >= 0 && !j.isReset(m.state, m.added) && !slices.ContainsFunc(same, isRemoved) {
			return true
		}
	}
	return false
}
