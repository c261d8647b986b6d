package mergetest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Tell folds a story, and gives the slices in the order in which their logs are
// first told of. A line is origin, partition and offset, what the writer had seen,
// the operation and its value:
//
//	eu/0@3 [ap@1,us@2] put some value
//
// The operation may also be bury.
//
// All clocks are 9, so that nothing but logs and contexts decides.
func Tell(t testing.TB, rule merge.Rule, lines ...string) (all []merge.Slice) {
	t.Helper()
	for _, line := range lines {
		w, err := parse(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		i := slices.IndexFunc(all, func(s merge.Slice) bool { return s.Log == w.At.Log })
		if i < 0 {
			all, i = append(all, merge.Slice{Log: w.At.Log}), len(all)
		}
		if all[i].Data, err = (Suite{Rule: rule}).foldOnto(nil, all[i].Data, w); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return all
}

func parse(line string) (Written, error) {
	place, rest, _ := strings.Cut(line, " [")
	deps, rest, _ := strings.Cut(rest, "] ")
	op, value, _ := strings.Cut(rest, " ")
	origin, rest, _ := strings.Cut(place, "/")
	w := Written{Event: events.Event{Key: "k", Clock: 9, Value: []byte(value)}}
	var errs [3]error
	if w.At, errs[0] = events.ParsePosition(origin + "/s/" + rest); op == "bury" {
		return Burial("k", w.At), errs[0]
	}
	w.Event.Deps, errs[1] = events.ParseContext(deps)
	w.Event.Op, errs[2] = events.ParseOp(op)
	return w, errors.Join(errs[:]...)
}
