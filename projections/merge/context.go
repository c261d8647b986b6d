package merge

import (
	"slices"

	"github.com/evenkeel/evenkeel/events"
)

// Covered is the context in effect for an event at a position: what its writer
// had seen of the logs of its partition, and so what the event may take away. Of
// its own log that is everything before own, of any other origin's what others
// says, which has no entry for the own one, none at offset 0, and may share memory with e.Deps.
//
// Within one origin the log's order decides: a writer that does not say how much
// of its own log it had seen counts as having seen all that stands before the
// event, and none can have seen more. A context says nothing of other
// partitions: no event covers anything there.
func Covered(e *events.Event, at events.Position) (own int64, others events.Context) {
	i, says := slices.BinarySearchFunc(e.Deps, at.Origin, func(s events.Seen, o events.Origin) int { return s.Origin.Compare(o) })
	if own = at.Offset; says {
		own = min(e.Deps[i].Next, at.Offset)
	}
	isNone := func(s events.Seen) bool { return s.Next == 0 || s.Origin == at.Origin }
	switch {
	case !slices.ContainsFunc(e.Deps, isNone):
		return own, e.Deps
	case says && i == 0 && !slices.ContainsFunc(e.Deps[1:], isNone):
		return own, e.Deps[1:]
	}
	return own, slices.DeleteFunc(slices.Clone(e.Deps), isNone)
}

// Latest sorts the states of logs by position, and keeps of each log the one
// that has folded most of it. Joining an older state of a log that is there in a
// newer one then changes nothing, and joining the same one twice neither. It
// works in place.
func Latest[S any](states []S, at func(S) events.Position) []S {
	slices.SortStableFunc(states, func(a, b S) int { return at(a).Compare(at(b)) })
	kept := states[:0]
	for i, s := range states {
		if i+1 == len(states) || at(states[i+1]).Log != at(s).Log {
			kept = append(kept, s)
		}
	}
	return kept
}
