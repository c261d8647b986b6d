package fieldmap

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

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

// changesOf reads what an event does, apart from its reset, sorted by name.
func changesOf(e *events.Event) ([]change, error) {
	switch e.Op {
	case events.OpDelete:
		return nil, nil
	case events.OpPut:
		object, err := objectOf(e)
		if err != nil {
			return nil, fmt.Errorf("put: %w", err)
		}
		changes, err := membersToSet(object)
		if err != nil {
			return nil, fmt.Errorf("put: %w", err)
		}
		return changes, nil
	case events.OpPatch:
		changes, err := patch(e)
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

func patch(e *events.Event) ([]change, error) {
	if err := wantJSON(e); err != nil {
		return nil, err
	}
	if err := checkJSON(e.Value); err != nil {
		return nil, err
	}
	parts, err := membersOf(e.Value)
	if err != nil {
		return nil, err
	}
	var all []change
	for _, p := range parts {
		read, known := readers[string(p.name)]
		if !known {
			return nil, errors.New("unknown member; known are set, unset, increment, add and remove")
		}
		changes, err := read(p.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if all == nil {
			all = changes
		} else {
			all = append(all, changes...)
		}
	}
	if len(parts) > 1 {
		slices.SortStableFunc(all, func(a, b change) int { return bytes.Compare(a.name, b.name) })
	}
	return mergeSame(all)
}

// readers read the parts of a patch.
var readers = map[string]func([]byte) ([]change, error){
	"set":       membersToSet,
	"unset":     fieldsToUnset,
	"increment": increments,
	"add":       func(part []byte) ([]change, error) { return elementChanges(part, elementChange{add: true}) },
	"remove":    func(part []byte) ([]change, error) { return elementChanges(part, elementChange{remove: true}) },
}

func membersToSet(object []byte) ([]change, error) {
	members, err := membersOf(object)
	if err != nil {
		return nil, err
	}
	changes := make([]change, len(members))
	values := make([]byte, 0, len(object))
	for i, m := range members {
		from := len(values)
		if values, err = appendCanonical(values, m.value); err != nil {
			return nil, err
		}
		changes[i] = change{name: m.name, kind: register, value: values[from:len(values):len(values)]}
	}
	return changes, checkNames(changes)
}

func fieldsToUnset(array []byte) ([]change, error) {
	items, err := itemsOf(array)
	if err != nil {
		return nil, err
	}
	changes := make([]change, len(items))
	for i, item := range items {
		if item[0] != '"' {
			return nil, errors.New("a field's name is no string")
		}
		changes[i] = change{name: unquote(item), kind: register}
	}
	slices.SortFunc(changes, func(a, b change) int { return bytes.Compare(a.name, b.name) })
	return changes, checkNames(changes)
}

func increments(object []byte) ([]change, error) {
	members, err := membersOf(object)
	if err != nil {
		return nil, err
	}
	changes := make([]change, len(members))
	for i, m := range members {
		delta, err := strconv.ParseInt(string(m.value), 10, 64)
		if err != nil {
			return nil, errors.New("no integer of 64 bits")
		}
		changes[i] = change{name: m.name, kind: counter, delta: delta}
	}
	return changes, checkNames(changes)
}

func elementChanges(object []byte, what elementChange) ([]change, error) {
	members, err := membersOf(object)
	if err != nil {
		return nil, err
	}
	changes := make([]change, len(members))
	texts := make([]byte, 0, len(object)) // canonical form is never longer
	for i, m := range members {
		items, err := itemsOf(m.value)
		if err != nil {
			return nil, err
		}
		changes[i] = change{name: m.name, kind: set, elements: make([]elementChange, len(items))}
		for j, item := range items {
			if item[0] == '{' || item[0] == '[' {
				return nil, errors.New("an element is no string, number, boolean or null")
			}
			from := len(texts)
			if texts, err = appendCanonical(texts, item); err != nil {
				return nil, err
			}
			what.text = texts[from:len(texts):len(texts)]
			if len(what.text) > maxElementBytes {
				return nil, fmt.Errorf("an element of %d bytes: at most %d", len(what.text), maxElementBytes)
			}
			changes[i].elements[j] = what
		}
	}
	return changes, checkNames(changes)
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
