package mergetest

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Whatever regions have done to a key since, what Back says brings back the values that it
// had, in whichever log it is written; asked again, nothing is left to do.
func (s Suite) goesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := inOnePartition(genHistory(s.Events).Draw(t, "history"))
		if len(history) == 0 {
			return
		}
		then, _ := s.fold(t, prefixes(t, history))
		now, _ := s.fold(t, history)
		want := valuesOf(s.join(t, then.slices()))
		changes, err := s.Rule.Back(now.slices(), then.slices())
		switch events.KindOf(err) {
		case 0:
		case events.KindRefused:
			if equalValues(valuesOf(s.join(t, now.slices())), want) {
				t.Fatalf("refused, though it is what it was: %v", err)
			}
			return
		default:
			t.Fatal(err)
		}
		log := rapid.SampledFrom(history).Draw(t, "which").At.Log
		for i, w := range writtenBy(log, now, changes) {
			if !s.receive(t, now, w) {
				t.Fatalf("event %d of %d has no meaning: %+v", i, len(changes), w)
			}
		}
		if got := valuesOf(s.join(t, now.slices())); !equalValues(got, want) {
			t.Fatalf("with %+v\nit came to %+v, want %+v", changes, got, want)
		}
		if again, err := s.Rule.Back(now.slices(), then.slices()); err != nil || len(again) > 0 {
			t.Fatalf("asked again: %+v, error %v", again, err)
		}
	})
}

// inOnePartition leaves of a history what is in one partition, claims nothing that never
// was, and has clocks that can be surpassed.
func inOnePartition(history []Written) []Written {
	history = slices.DeleteFunc(slices.Clone(history), func(w Written) bool { return w.At.Partition > 0 })
	ends := map[events.Origin]int64{}
	for _, w := range history {
		ends[w.At.Origin] = max(ends[w.At.Origin], w.At.Offset+1)
	}
	for i, w := range history {
		var deps events.Context
		for _, seen := range w.Event.Deps {
			if seen.Next = min(seen.Next, ends[seen.Origin]); seen.Next > 0 {
				deps = append(deps, seen)
			}
		}
		history[i].Event.Deps = deps
		history[i].Event.Clock = min(w.Event.Clock, math.MaxInt32)
	}
	return history
}

// writtenBy are changes as a writer writes them who has seen all of a region.
func writtenBy(log events.Log, r region, changes []merge.Change) (all []Written) {
	var seen events.Context
	for l, p := range r {
		seen = append(seen, events.Seen{Origin: l.Origin, Next: p.next})
	}
	slices.SortFunc(seen, func(a, b events.Seen) int { return a.Origin.Compare(b.Origin) })
	for i, c := range changes {
		e := events.Event{Key: "k", Op: events.OpOf(c.Type, c.Value), Value: c.Value, Type: c.Type, ContentType: c.ContentType}
		e.Deps, e.Clock = slices.Clone(seen), events.HLC(math.MaxInt64+uint64(i))
		all = append(all, Written{At: log.At(r[log].next + int64(i)), Event: e})
	}
	return all
}

// valuesOf are the values that a reader sees, in the order of their bytes.
func valuesOf(v merge.View) []merge.Sibling {
	values := slices.Clone(v.Siblings)
	if v.Exists && len(values) == 0 {
		values = []merge.Sibling{{Value: v.Value, ContentType: v.ContentType}}
	}
	slices.SortFunc(values, compareValues)
	return values
}

func compareValues(a, b merge.Sibling) int {
	return cmp.Or(bytes.Compare(a.Value, b.Value), cmp.Compare(a.ContentType, b.ContentType))
}

func equalValues(a, b []merge.Sibling) bool {
	return slices.EqualFunc(a, b, func(a, b merge.Sibling) bool { return compareValues(a, b) == 0 })
}
