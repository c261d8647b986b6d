package fieldmap

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/big"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Back implements merge.Rule. Where it can it is one patch: registers are set and unset,
// counters counted up or down by what they are away, elements added and removed. A counter
// that was not there, one by which an origin cannot count so far, one of which an origin's contribution was reset by another, and would
// come back with its next increment, and a name that was used in another way, go by a put
// alone: then the put takes everything away and sets the registers, and a patch behind it
// counts and adds.
func (r Rule) Back(now, then []merge.Slice) ([]merge.Change, error) {
	is, err := contentsOf(now)
	if err != nil {
		return nil, err
	}
	was, err := contentsOf(then)
	if err != nil {
		return nil, err
	}
	if !anyShown(was) {
		if !anyShown(is) {
			return nil, nil
		}
		return []merge.Change{merge.Deletion()}, nil
	}
	patch, can := patchTo(is, was)
	if can {
		return patch.changes()
	}
	return anew(was)
}

// content is what a field has, of each kind; the view shows a set, else a counter, else a
// register.
type content struct {
	value    []byte   // of a register; empty: none
	total    *big.Int // nil: no counter
	least    int64    // that an origin has contributed to it, 0 at most
	most     int64    // 0 at least
	hidden   bool     // an origin has a contribution to it that another has reset
	elements map[string]bool
}

// canCount says whether any origin, in whose log it may be written, can count by so much
// without needing more than 64 bits.
func (c content) canCount(away *big.Int) bool {
	for _, contributed := range []int64{c.least, c.most} {
		if !new(big.Int).Add(away, big.NewInt(contributed)).IsInt64() {
			return false
		}
	}
	return true
}

func (c content) kind() kinds {
	switch {
	case len(c.elements) > 0:
		return set
	case c.total != nil:
		return counter
	case len(c.value) > 0:
		return register
	}
	return 0
}

func anyShown(contents map[string]content) bool {
	for _, c := range contents {
		if c.kind() != 0 {
			return true
		}
	}
	return false
}

// contentsOf joins the slices of a key, field by field.
func contentsOf(all []merge.Slice) (map[string]content, error) {
	states := make([]*state, len(all))
	for i, s := range all {
		var err error
		if states[i], err = decode(s); err != nil {
			return nil, err
		}
	}
	j := joined(merge.Latest(states, (*state).position))
	contents := map[string]content{}
	for in := range j.fields() {
		c := content{value: j.appendRegister(nil, in)}
		if sum := j.appendCounter(nil, in); len(sum) > 0 {
			c.total, _ = new(big.Int).SetString(string(sum), 10)
		}
		if array := j.appendSet(nil, in); len(array) > 0 {
			var items []json.RawMessage
			if err := json.Unmarshal(array, &items); err != nil {
				return nil, err
			}
			c.elements = map[string]bool{}
			for _, item := range items {
				c.elements[string(item)] = true
			}
		}
		for _, o := range in {
			if o.kinds&counter != 0 {
				c.least, c.most = min(c.least, o.sum.sum), max(c.most, o.sum.sum)
			}
		}
		c.hidden = slices.ContainsFunc(in, func(o occurrence) bool {
			return o.kinds&counter != 0 && j.isReset(o.state, o.sum.offset)
		})
		contents[string(in[0].name)] = c
	}
	return contents, nil
}

// backPatch is a patch as it is written.
type backPatch struct {
	Set       map[string]json.RawMessage   `json:"set,omitempty"`
	Unset     []string                     `json:"unset,omitempty"`
	Increment map[string]*big.Int          `json:"increment,omitempty"`
	Add       map[string][]json.RawMessage `json:"add,omitempty"`
	Remove    map[string][]json.RawMessage `json:"remove,omitempty"`
}

func newBackPatch() *backPatch {
	return &backPatch{
		Set: map[string]json.RawMessage{}, Increment: map[string]*big.Int{}, Add: map[string][]json.RawMessage{}, Remove: map[string][]json.RawMessage{},
	}
}

func (p *backPatch) isEmpty() bool {
	return len(p.Set)+len(p.Unset)+len(p.Increment)+len(p.Add)+len(p.Remove) == 0
}

// changes is the patch as an event, if it does anything.
func (p *backPatch) changes() ([]merge.Change, error) {
	if p.isEmpty() {
		return nil, nil
	}
	text, err := json.Marshal(p)
	return []merge.Change{{Type: events.TypePatch, ContentType: "application/json", Value: text}}, err
}

// patchTo is the patch that leads from what fields have to what they had; not ok if no
// patch does.
func patchTo(is, was map[string]content) (p *backPatch, ok bool) {
	p = newBackPatch()
	names := map[string]bool{}
	for _, contents := range []map[string]content{is, was} {
		for name := range contents {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !p.field(name, is[name], was[name]) {
			return nil, false
		}
	}
	return p, true
}

// field adds what leads from what a field has to what it had. A patch uses a field in
// one way only.
func (p *backPatch) field(name string, is, was content) (ok bool) {
	want := was.kind()
	var ways kinds
	if want == set || len(is.elements) > 0 {
		keep := was.elements
		if want != set {
			keep = nil
		}
		add, remove := without(keep, is.elements), without(is.elements, keep)
		if len(add) > 0 {
			p.Add[name] = add
		}
		if len(remove) > 0 {
			p.Remove[name] = remove
		}
		if len(add)+len(remove) > 0 {
			ways |= set
		}
	}
	if want == set {
		return true
	}
	if want == counter {
		away := new(big.Int).Set(was.total)
		if is.total != nil {
			away.Sub(away, is.total)
		}
		if is.total == nil || away.Sign() != 0 {
			p.Increment[name] = away
			ways |= counter
		}
		if ways&counter != 0 && is.hidden {
			return false
		}
		return is.canCount(away) && ways&(ways-1) == 0
	}
	if is.total != nil {
		return false
	}
	switch {
	case want == 0 && len(is.value) > 0:
		p.Unset = append(p.Unset, name)
		ways |= register
	case want == register && !bytes.Equal(is.value, was.value):
		p.Set[name] = was.value
		ways |= register
	}
	return ways&(ways-1) == 0
}

// without are the elements of a that are not in b, in order.
func without(a, b map[string]bool) (left []json.RawMessage) {
	for _, text := range slices.Sorted(maps.Keys(a)) {
		if !b[text] {
			left = append(left, json.RawMessage(text))
		}
	}
	return left
}

// anew takes everything away and makes it what it was.
func anew(was map[string]content) ([]merge.Change, error) {
	registers, rest := map[string]json.RawMessage{}, newBackPatch()
	for name, c := range was {
		switch c.kind() {
		case register:
			registers[name] = c.value
		case counter:
			if !c.total.IsInt64() {
				return nil, events.Errorf(events.KindRefused, "merge rule fieldmap: a counter had a value of more than 64 bits, which several regions have counted; one alone cannot")
			}
			rest.Increment[name] = c.total
		case set:
			rest.Add[name] = without(c.elements, nil)
		}
	}
	object, err := json.Marshal(registers)
	if err != nil {
		return nil, err
	}
	changes, err := rest.changes()
	return append([]merge.Change{merge.Putting(events.TypePut, "application/json", object)}, changes...), err
}
