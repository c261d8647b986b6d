package merge

import "github.com/evenkeel/evenkeel/events"

// Change is an event that a rule wants to be written. Its context, clock and all else
// are its writer's.
type Change struct {
	Type        string
	ContentType string
	Value       []byte // nil deletes
}

// Deletion is a change that takes a key away.
func Deletion() Change { return Change{Type: events.TypeDelete} }

// Putting is a change that gives a key a value, under the type that the value had if
// an event of that type gives one.
func Putting(typ, contentType string, value []byte) Change {
	if value == nil {
		value = []byte{}
	}
	if events.OpOf(typ, value) != events.OpPut || typ == "" {
		typ = events.TypePut
	}
	return Change{Type: typ, ContentType: contentType, Value: value}
}

// JoinBoth joins the slices of a key now and then.
func JoinBoth(r Rule, now, then []Slice) (is, was View, err error) {
	if is, err = r.Join(now); err != nil {
		return is, was, err
	}
	was, err = r.Join(then)
	return is, was, err
}
