package merge_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
)

var origins = []events.Origin{
	{Region: "ap", Incarnation: 1}, {Region: "eu", Incarnation: 1}, {Region: "us", Incarnation: 1}, {Region: "us", Incarnation: 2}, {Region: "us-a", Incarnation: 1},
}

// What is covered is what the writer saw, as package mergetest defines it; and
// no writer has seen its own event.
func TestCovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		offset := rapid.OneOf(rapid.Int64Range(0, 9), rapid.Just(int64(math.MaxInt64)))
		at := events.Log{Origin: rapid.SampledFrom(origins).Draw(t, "origin"), Stream: "s"}.At(offset.Draw(t, "offset"))
		var deps events.Context
		for _, o := range origins {
			if rapid.Bool().Draw(t, "named") {
				deps = append(deps, events.Seen{Origin: o, Next: max(1, offset.Draw(t, "next"))})
			}
		}
		w := mergetest.Written{At: at, Event: events.Event{Deps: slices.Clone(deps)}}
		own, others := merge.Covered(&w.Event, at)
		if !slices.Equal(w.Event.Deps, deps) || others.Validate() != nil || others.Next(at.Origin) != 0 {
			t.Fatalf("%s at %s: others %s", deps, at, others)
		}
		if own > at.Offset || len(others.Join(events.Context{{Origin: at.Origin, Next: 1}})) != len(others)+1 {
			t.Fatalf("%s at %s: own %d, others %s", deps, at, own, others)
		}
		for _, o := range origins {
			other := events.Log{Origin: o, Stream: "s"}.At(offset.Draw(t, "other"))
			covered := other.Offset < others.Next(o)
			if o == at.Origin {
				covered = other.Offset < own
			}
			if covered != w.Saw(other) {
				t.Fatalf("%s with %s covers %s: %t", at, deps, other, covered)
			}
		}
	})
}

func TestLatest(t *testing.T) {
	log := func(o int, partition int32) events.Log {
		return events.Log{Origin: origins[o], Stream: "s", Partition: partition}
	}
	same := func(p events.Position) events.Position { return p }
	got := merge.Latest([]events.Position{log(3, 0).At(4), log(1, 1).At(7), log(1, 0).At(9), log(3, 0).At(5), log(1, 1).At(7), log(3, 0).At(2)}, same)
	want := []events.Position{log(1, 0).At(9), log(1, 1).At(7), log(3, 0).At(5)}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := merge.Latest(nil, same); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
