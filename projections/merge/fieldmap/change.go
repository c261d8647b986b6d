package fieldmap

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/schemas"
)

// kinds is a set of the kinds that one name can be.
type kinds byte

const (
	register kinds = 1 << iota
	counter
	set

	allKinds = register | counter | set
)

const (
	maxNameBytes    = 256
	maxElementBytes = 1 << 10
)

// change is what an event does to one field.
type change struct {
	name     []byte
	kind     kinds
	value    []byte // of a register: canonical JSON, empty to unset it
	delta    int64  // of a counter
	elements []elementChange
}

// elementChange is what an event does to one element of a set.
type elementChange struct {
	text        []byte // canonical JSON
	add, remove bool
}

// reader reads what an event does. What it returns lies in its own memory, which is
// used again with the next event: a fold has one for each.
type reader struct {
	members  []member
	items    [][]byte
	changes  []change
	elements []elementChange
	text     []byte
}

// keptBytes is about as much memory as a reader keeps from one event to the next.
const keptBytes = 64 << 10

var spare = sync.Pool{New: func() any { return &reader{} }}

func newReader() *reader { return spare.Get().(*reader) }

// done lets go of what the reader has returned.
func (r *reader) done() {
	const memberBytes, changeBytes = 48, 96 // and no element is larger
	if cap(r.text)+memberBytes*(cap(r.members)+cap(r.items)+cap(r.elements))+changeBytes*cap(r.changes) > keptBytes {
		return
	}
	clear(r.members)
	clear(r.items)
	clear(r.changes)
	clear(r.elements)
	r.members, r.items, r.changes, r.elements, r.text = r.members[:0], r.items[:0], r.changes[:0], r.elements[:0], r.text[:0]
	spare.Put(r)
}

// changesOf reads what an event does, apart from its reset, sorted by name.
func (r *reader) changesOf(e *events.Event) ([]change, error) {
	switch e.Op {
	case events.OpDelete:
		return nil, nil
	case events.OpPut:
		object, err := objectOf(e)
		if err != nil {
			return nil, fmt.Errorf("put: %w", err)
		}
		if err := r.membersToSet(object); err != nil {
			return nil, fmt.Errorf("put: %w", err)
		}
		return r.changes, nil
	case events.OpPatch:
		changes, err := r.patch(e)
		if err != nil {
			return nil, fmt.Errorf("patch: %w", err)
		}
		return changes, nil
	}
	return nil, fmt.Errorf("no meaning for the operation %s", e.Op)
}

// objectOf is the JSON object that a put is of.
func objectOf(e *events.Event) ([]byte, error) {
	object := e.Value
	if t, known := schemas.Lookup(e.Type); known && !schemas.IsJSON(e.ContentType) {
		m, err := schemas.Decode(t, e.ContentType, e.Value)
		if err != nil {
			return nil, err
		}
		// Its spaces are random, all else is not; canonical form has none.
		if object, err = protojson.Marshal(m); err != nil {
			return nil, errors.New("the payload has no JSON form")
		}
	} else if err := wantJSON(e); err != nil {
		return nil, err
	}
	return object, checkJSON(object)
}

func wantJSON(e *events.Event) error {
	if e.ContentType != "" && !schemas.IsJSON(e.ContentType) {
		return errors.New("the content type is not JSON")
	}
	return nil
}

func (r *reader) patch(e *events.Event) ([]change, error) {
	if err := wantJSON(e); err != nil {
		return nil, err
	}
	if err := checkJSON(e.Value); err != nil {
		return nil, err
	}
	parts, err := r.membersOf(e.Value)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		read, known := partReaders[string(p.name)]
		if !known {
			return nil, errors.New("unknown member; known are set, unset, increment, add and remove")
		}
		if err := read(r, p.value); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if len(parts) > 1 {
		slices.SortStableFunc(r.changes, func(a, b change) int { return bytes.Compare(a.name, b.name) })
	}
	return mergeSame(r.changes)
}

// partReaders read the parts of a patch, each into the changes, sorted by name.
var partReaders = map[string]func(*reader, []byte) error{
	"set":       (*reader).membersToSet,
	"unset":     (*reader).fieldsToUnset,
	"increment": (*reader).increments,
	"add":       func(r *reader, part []byte) error { return r.elementChanges(part, elementChange{add: true}) },
	"remove":    func(r *reader, part []byte) error { return r.elementChanges(part, elementChange{remove: true}) },
}

func (r *reader) membersToSet(object []byte) error {
	members, err := r.membersOf(object)
	if err != nil {
		return err
	}
	from := len(r.changes)
	for _, m := range members {
		value, err := r.canonical(m.value)
		if err != nil {
			return err
		}
		r.changes = append(r.changes, change{name: m.name, kind: register, value: value})
	}
	return checkNames(r.changes[from:])
}

func (r *reader) fieldsToUnset(array []byte) error {
	items, err := r.itemsOf(array)
	if err != nil {
		return err
	}
	from := len(r.changes)
	for _, item := range items {
		if item[0] != '"' {
			return errors.New("a field's name is no string")
		}
		r.changes = append(r.changes, change{name: unquote(item), kind: register})
	}
	changes := r.changes[from:]
	slices.SortFunc(changes, func(a, b change) int { return bytes.Compare(a.name, b.name) })
	return checkNames(changes)
}

func (r *reader) increments(object []byte) error {
	members, err := r.membersOf(object)
	if err != nil {
		return err
	}
	from := len(r.changes)
	for _, m := range members {
		delta, err := strconv.ParseInt(string(m.value), 10, 64)
		if err != nil {
			return errors.New("no integer of 64 bits")
		}
		r.changes = append(r.changes, change{name: m.name, kind: counter, delta: delta})
	}
	return checkNames(r.changes[from:])
}

func (r *reader) elementChanges(object []byte, what elementChange) error {
	members, err := r.membersOf(object)
	if err != nil {
		return err
	}
	from := len(r.changes)
	for _, m := range members {
		items, err := r.itemsOf(m.value)
		if err != nil {
			return err
		}
		first := len(r.elements)
		for _, item := range items {
			if item[0] == '{' || item[0] == '[' {
				return errors.New("an element is no string, number, boolean or null")
			}
			if what.text, err = r.canonical(item); err != nil {
				return err
			}
			if len(what.text) > maxElementBytes {
				return fmt.Errorf("an element of %d bytes: at most %d", len(what.text), maxElementBytes)
			}
			r.elements = append(r.elements, what)
		}
		// Merged with others later, it must not run into what lies behind it.
		elements := r.elements[first:len(r.elements):len(r.elements)]
		r.changes = append(r.changes, change{name: m.name, kind: set, elements: elements})
	}
	return checkNames(r.changes[from:])
}

func checkNames(changes []change) error {
	if len(changes) > maxFields {
		return fmt.Errorf("%d fields, more than %d", len(changes), maxFields)
	}
	for _, c := range changes {
		if len(c.name) > maxNameBytes {
			return fmt.Errorf("a field's name of %d bytes: at most %d", len(c.name), maxNameBytes)
		}
	}
	return nil
}

// mergeSame makes one change of the adds and removes of a field, and one of
// those of an element. No other name may be there twice.
func mergeSame(sorted []change) ([]change, error) {
	merged := sorted[:0]
	for _, c := range sorted {
		n := len(merged)
		switch {
		case n == 0 || !bytes.Equal(merged[n-1].name, c.name):
			merged = append(merged, c)
		case merged[n-1].kind == set && c.kind == set:
			merged[n-1].elements = append(merged[n-1].elements, c.elements...)
		default:
			return nil, errors.New("a field in several ways, or twice")
		}
	}
	for i := range merged {
		merged[i].elements = mergeElements(merged[i].elements)
	}
	return merged, nil
}

func mergeElements(elements []elementChange) []elementChange {
	slices.SortFunc(elements, func(a, b elementChange) int { return bytes.Compare(a.text, b.text) })
	merged := elements[:0]
	for _, e := range elements {
		if n := len(merged); n > 0 && bytes.Equal(merged[n-1].text, e.text) {
			merged[n-1].add = merged[n-1].add || e.add
			merged[n-1].remove = merged[n-1].remove || e.remove
			continue
		}
		merged = append(merged, e)
	}
	return merged
}
