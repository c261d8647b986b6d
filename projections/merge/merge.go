// Package merge says what a merge rule is: how one origin's events fold into a
// slice, and how the slices of all origins join into the view that a reader
// sees. Each rule is a package below this one; package projections registers
// them, one line each.
//
// A rule is pure: it reads no clock, no randomness, no map order and nothing
// local. Fold depends on a prefix of one log alone, so that every region that
// has the prefix has the same slice, byte for byte. Join is commutative,
// associative and idempotent over the slices of a key. A Rule is safe for
// concurrent use. Package mergetest is all this as tests.
//
// Logs are not delivered in causal order: an event may take away what has not
// arrived yet. What an event takes away, where a rule knows of that, is what its
// writer had seen; see Covered. DESIGN.md says why rules are made like this.
package merge

import "github.com/evenkeel/evenkeel/events"

// Rule folds and joins the slices of a stream. What a slice holds is the rule's
// own affair; it must be canonical: equal states have equal bytes.
type Rule interface {
	// Name is how configuration calls the rule, e.g. "lww".
	Name() string

	// Fold applies event e, found at a position of its log, to the slice of
	// its key (nil if there is none yet) and appends the new slice to dst. It
	// leaves prev as it is. A *NoMeaningError is about the event: its record
	// is then parked. Any other error is about prev: the state is corrupt.
	Fold(dst, prev []byte, e *events.Event, at events.Position) ([]byte, error)

	// Live reports whether the slice holds anything; a slice that does not is
	// a tombstone and adds nothing to digests and counts. A corrupt slice
	// holds nothing.
	Live(slice []byte) bool

	// Last is where the last event was found that a slice has folded, and the newest
	// effective clock that the slice knows; 0 if it knows none. Another event can be folded from
	// behind it on. An error means that the slice is corrupt.
	Last(s Slice) (at events.Position, clock events.HLC, err error)

	// Bury appends to dst the slice as a tombstone, of which the burial at a position is the last
	// event. If others hide what the slice holds, no view changes, whatever the others hold: the
	// tombstone hides what the slice has hidden, and nothing else. It leaves the slice as it is. A *NoMeaningError
	// says that under this rule nothing is ever hidden. Any other error means that the slice is corrupt.
	Bury(dst, slice []byte, at events.Position) ([]byte, error)

	// Join merges the slices of one key, in any order, into its view. Of several
	// slices of one log that of the longest prefix counts. An error means that
	// a slice is corrupt.
	Join(slices []Slice) (View, error)

	// Back gives the events that bring a key back from the slices that it has now to
	// what it was then: written one behind the other into one log of the key's
	// partition, by a writer who had seen all that it has now and whose clock is ahead of
	// all of it, they make its view have the value, or the values, of then. There are none if it
	// has them. An error of kind refused says why it cannot be brought back.
	Back(now, then []Slice) ([]Change, error)
}

// Bounded is a Rule by which a slice can hold too much for an event that has a meaning
// elsewhere. Whoever is about to write one can fold it onto what is there before.
type Bounded interface {
	Rule

	// NeedsSlice reports whether an event that is written at a position, or behind it, may have no
	// room in a slice that has folded all before the position, though it would have in an empty one. How many
	// origins contexts name together is left aside: a writer knows of those alone whose logs its region has.
	NeedsSlice(e *events.Event, at events.Position) bool

	// Bounds says to people what a slice holds at most, and what makes room.
	Bounds() string
}

// Slice is one slice of a key, with the log whose fold it is.
type Slice struct {
	Log  events.Log
	Data []byte
}

// View is what a reader sees of a key.
type View struct {
	Exists      bool
	Value       []byte
	ContentType string
	Type        string          // CloudEvents type of the event that the value is of; empty for a bare record
	Clock       events.HLC      // of that event, as folded
	Position    events.Position // of that event

	// Siblings are the values of writers who did not know of each other, in the
	// order of their positions; nil unless there are several. Value is then
	// that of the sibling with the newest clock.
	Siblings []Sibling
}

// Sibling is one of several concurrent values of a key.
type Sibling struct {
	Value       []byte
	ContentType string
	Type        string
	Clock       events.HLC
	Position    events.Position
}

// NoMeaningError says that a rule has no meaning for an event.
type NoMeaningError struct {
	Rule   string
	Reason string
}

func (e *NoMeaningError) Error() string { return "merge rule " + e.Rule + ": " + e.Reason }
