package mergetest

import (
	"bytes"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Suite is a rule and what it is held to.
type Suite struct {
	Rule merge.Rule

	// Events gives what writers write: operation, value, type and content type.
	// Some of it may have no meaning. The suite draws the rest.
	Events *rapid.Generator[events.Event]

	// Model is the view of a key of which all this was written: events that have
	// a meaning, in order of position, each log from its beginning.
	Model func(history []Written) merge.View
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	t.Run("FoldIsPure", s.foldIsPure)
	t.Run("FoldAndJoinAreTheModel", s.foldAndJoinAreTheModel)
	t.Run("JoinIsCommutativeAndIdempotent", s.joinIsCommutativeAndIdempotent)
	t.Run("JoinIsAssociative", s.joinIsAssociative)
	t.Run("RegionsConverge", s.regionsConverge)
	t.Run("OneStateOneSlice", s.oneStateOneSlice)
	t.Run("LiveIsExisting", s.liveIsExisting)
	t.Run("LastIsLast", s.lastIsLast)
	t.Run("BuriesWhatIsHidden", s.buriesWhatIsHidden)
	t.Run("GoesBack", s.goesBack)
	t.Run("WhatHasNoMeaning", s.whatHasNoMeaning)
	t.Run("Damage", s.damage)
	if _, ok := s.Rule.(merge.Bounded); ok {
		t.Run("NextIsBehindTheLast", s.nextIsBehindTheLast)
	}
}

// foldOne folds an event as a shard does: what has no meaning leaves the slice
// as it was, and so does the burial of what holds nothing.
func (s Suite) foldOne(t rapid.TB, prev []byte, w Written) (now []byte, meant bool) {
	t.Helper()
	if w.Event.IsBurial() && !s.Rule.Live(prev) {
		return prev, false
	}
	now, err := s.foldOnto(nil, prev, w)
	var noMeaning *merge.NoMeaningError
	switch {
	case errors.As(err, &noMeaning) && noMeaning.Rule == s.Rule.Name() && noMeaning.Reason != "":
		return prev, false
	case err != nil || now == nil:
		t.Fatalf("fold of %+v: %x, error %v", w, now, err)
	}
	return now, true
}

// foldOnto appends what comes of an event.
func (s Suite) foldOnto(dst, prev []byte, w Written) ([]byte, error) {
	if w.Event.IsBurial() {
		return s.Rule.Bury(dst, prev, w.At)
	}
	return s.Rule.Fold(dst, prev, &w.Event, w.At)
}

// region is what a region has of a key: of each log a prefix and its fold.
type region map[events.Log]prefix

type prefix struct {
	next  int64
	slice []byte // nil if nothing of it had a meaning
}

// slices are ascending by log.
func (r region) slices() (all []merge.Slice) {
	for l, p := range r {
		if p.slice != nil {
			all = append(all, merge.Slice{Log: l, Data: p.slice})
		}
	}
	slices.SortFunc(all, func(a, b merge.Slice) int { return a.Log.Compare(b.Log) })
	return all
}

// join has of each log the longer prefix.
func (r region) join(other region) region {
	joined := maps.Clone(r)
	for l, p := range other {
		if p.next > joined[l].next {
			joined[l] = p
		}
	}
	return joined
}

// receive folds an event as a shard does: if it was folded before, not again.
func (s Suite) receive(t rapid.TB, r region, w Written) (meant bool) {
	t.Helper()
	p := r[w.At.Log]
	if w.At.Offset < p.next {
		return false
	}
	p.slice, meant = s.foldOne(t, p.slice, w)
	p.next = w.At.Offset + 1
	r[w.At.Log] = p
	return meant
}

// fold gives the region that has received a history, and those of its events
// that have a meaning, in order of position.
func (s Suite) fold(t rapid.TB, history []Written) (r region, meant []Written) {
	t.Helper()
	r = region{}
	for _, w := range slices.SortedFunc(slices.Values(history), byPosition) {
		if s.receive(t, r, w) {
			meant = append(meant, w)
		}
	}
	return r, meant
}

func (s Suite) join(t rapid.TB, all []merge.Slice) merge.View {
	t.Helper()
	was := slices.Clone(all)
	for i := range was {
		was[i].Data = bytes.Clone(was[i].Data)
	}
	view, err := s.Rule.Join(all)
	if err != nil {
		t.Fatalf("join of %x: %v", all, err)
	}
	if !reflect.DeepEqual(all, was) {
		t.Fatal("join has changed its arguments")
	}
	return view
}

// Fold depends on its arguments alone, changes none of them, and appends the
// same bytes to whatever is there.
func (s Suite) foldIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory(s.Events).Draw(t, "history")
		slices.SortFunc(history, byPosition)
		var prev []byte
		for i, w := range history {
			if i > 0 && history[i-1].At.Log != w.At.Log {
				prev = nil
			}
			was, event := bytes.Clone(prev), clone(w.Event)
			now, meant := s.foldOne(t, prev, w)
			if !bytes.Equal(prev, was) || !reflect.DeepEqual(w.Event, event) {
				t.Fatal("the arguments have changed")
			}
			if w.Event.IsBurial() && !s.Rule.Live(prev) {
				continue
			}
			for _, room := range []int{0, 1 << 12} {
				before := append(make([]byte, 0, 6+room), "before"...)
				appended, err := s.foldOnto(before, bytes.Clone(prev), Written{At: w.At, Event: event})
				if (err == nil) != meant || meant && string(appended) != "before"+string(now) || string(before) != "before" {
					t.Fatalf("appended: %x, %v; want %x", appended, err, now)
				}
			}
			prev = now
		}
	})
}

func clone(e events.Event) events.Event {
	e.Value = bytes.Clone(e.Value)
	e.Deps = slices.Clone(e.Deps)
	return e
}

// Any prefixes of the logs give the view that the model says. Among them are
// those where a delete has arrived and what it had seen has not.
func (s Suite) foldAndJoinAreTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := prefixes(t, genHistory(s.Events).Draw(t, "history"))
		r, meant := s.fold(t, history)
		if got, want := s.join(t, r.slices()), s.Model(meant); !reflect.DeepEqual(got, want) {
			t.Fatalf("seen as\n%+v, want\n%+v", got, want)
		}
	})
}

// prefixes takes a prefix of each log.
func prefixes(t *rapid.T, history []Written) []Written {
	ends := map[events.Log]int64{}
	for _, l := range logs() {
		ends[l] = rapid.SampledFrom([]int64{100, 100, rapid.Int64Range(0, 20).Draw(t, "end")}).Draw(t, "arrived")
	}
	return slices.DeleteFunc(slices.Clone(history), func(w Written) bool { return w.At.Offset >= ends[w.At.Log] })
}

func (s Suite) joinIsCommutativeAndIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, _ := s.fold(t, genHistory(s.Events).Draw(t, "history"))
		all := r.slices()
		want := s.join(t, all)
		if len(all) == 0 {
			if !reflect.DeepEqual(want, merge.View{}) {
				t.Fatalf("nothing at all is seen as %+v", want)
			}
			return
		}
		if got := s.join(t, rapid.Permutation(all).Draw(t, "order")); !reflect.DeepEqual(got, want) {
			t.Fatalf("in another order\n%+v, want\n%+v", got, want)
		}
		again := rapid.SliceOf(rapid.SampledFrom(all)).Draw(t, "again")
		if got := s.join(t, append(slices.Clone(all), again...)); !reflect.DeepEqual(got, want) {
			t.Fatalf("some twice\n%+v, want\n%+v", got, want)
		}
	})
}
