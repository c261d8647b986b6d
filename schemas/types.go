package schemas

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Op is the generic operation that events of a type are folded with.
type Op uint8

// The operations. New ones are only appended: the numbers may be stored.
const (
	OpNone    Op = iota // no operation: the zero value, of no type
	OpPut               // the payload is the key's whole new state
	OpDelete            // the key goes; the payload says why
	OpPatch             // the payload says what changes in the key's state
	OpAppend            // the payload is one more of the key's events; there is no state to replace
	OpResolve           // a put that ends a conflict: its writer had seen the values that it replaces
)

func (o Op) String() string {
	switch o {
	case OpNone:
		return "none"
	case OpPut:
		return "put"
	case OpDelete:
		return "delete"
	case OpPatch:
		return "patch"
	case OpAppend:
		return "append"
	case OpResolve:
		return "resolve"
	}
	return "Op(" + strconv.Itoa(int(o)) + ")"
}

// Type is one event type in one version. Types come from Lookup and All; one
// made otherwise has no message, and Check refuses everything for it.
type Type struct {
	Name    string // CloudEvents type, e.g. "erlmcp.session.started.v1"
	Family  string // e.g. "session"
	Version int    // from 1
	Op      Op

	new      func() proto.Message
	validate func(proto.Message, *rules)
}

// New returns an empty message of the type, or nil for a Type that is not from
// Lookup or All.
func (t Type) New() proto.Message {
	if t.new == nil {
		return nil
	}
	return t.new()
}

// Lookup finds a type by its CloudEvents name.
func Lookup(name string) (Type, bool) {
	t, ok := catalogue().byName[name]
	return t, ok
}

// All returns every type, sorted by name. The slice is the caller's own.
func All() []Type { return slices.Clone(catalogue().sorted) }

// families lists every family's types; one file each.
func families() []Type {
	return slices.Concat(
		configTypes(),
		controlTypes(),
		metricsTypes(),
		registryTypes(),
		secretsTypes(),
		sessionTypes(),
	)
}

type index struct {
	sorted []Type
	byName map[string]Type
}

// catalogue is built on first use and never changed after.
var catalogue = sync.OnceValue(func() index {
	types := families()
	slices.SortFunc(types, func(a, b Type) int { return strings.Compare(a.Name, b.Name) })
	byName := make(map[string]Type, len(types))
	for _, t := range types {
		byName[t.Name] = t
	}
	return index{sorted: types, byName: byName}
})

// define joins a type's name with its message M and the message's rules.
func define[M any, P interface {
	*M
	proto.Message
}](name, family string, version int, op Op, validate func(P, *rules)) Type {
	return Type{
		Name: name, Family: family, Version: version, Op: op,
		new:      func() proto.Message { return P(new(M)) },
		validate: func(m proto.Message, r *rules) { validate(m.(P), r) },
	}
}
