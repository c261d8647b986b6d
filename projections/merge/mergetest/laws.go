package mergetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

// The state of a region is a prefix of each log, and two regions together have
// of each log the longer prefix. Joining the slices of three regions at once is
// joining them in any two steps: what older slices say is said by newer ones of
// the same logs, and nothing of it comes back.
func (s Suite) joinIsAssociative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory(s.Events).Draw(t, "history")
		var r [3]region
		for i := range r {
			r[i], _ = s.fold(t, prefixes(t, history))
		}
		a, b, c := r[0], r[1], r[2]
		want := s.join(t, a.join(b).join(c).slices())
		for name, all := range map[string][]merge.Slice{
			"in one step":            slices.Concat(a.slices(), b.slices(), c.slices()),
			"in two steps":           slices.Concat(a.join(b).slices(), c.slices()),
			"in two other steps":     slices.Concat(a.slices(), b.join(c).slices()),
			"beforehand, other ways": a.join(b.join(c)).slices(),
		} {
			if len(all) == 0 {
				continue // rapid has no permutations of nothing
			}
			if got := s.join(t, rapid.Permutation(all).Draw(t, "order")); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s\n%+v, want\n%+v", name, got, want)
			}
		}
	})
}

// Three regions receive the logs interleaved in three ways, some of it again and
// again. At any moment each sees what the model says of what it has received; in
// the end all have the same bytes and see the same.
func (s Suite) regionsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory(s.Events).Draw(t, "history")
		done, _ := s.fold(t, history)
		for range 3 {
			r, meant := region{}, []Written(nil)
			waiting := slices.Clone(history)
			for len(waiting) > 0 {
				log := rapid.SampledFrom(waiting).Draw(t, "which").At.Log
				i := slices.IndexFunc(waiting, func(w Written) bool { return w.At.Log == log })
				if s.receive(t, r, waiting[i]) {
					meant = append(meant, waiting[i])
				}
				waiting = slices.Delete(waiting, i, i+1)
				s.receive(t, r, rapid.SampledFrom(slices.DeleteFunc(slices.Clone(history), func(w Written) bool {
					return w.At.Offset >= r[w.At.Log].next
				})).Draw(t, "again"))
				slices.SortFunc(meant, byPosition)
				if got, want := s.join(t, r.slices()), s.Model(meant); !reflect.DeepEqual(got, want) {
					t.Fatalf("on the way\n%+v, want\n%+v", got, want)
				}
			}
			if !reflect.DeepEqual(r, done) {
				t.Fatalf("one region has\n%x, another\n%x", r, done)
			}
		}
	})
}

// What makes no difference to the state makes none to its bytes: a writer who
// says that it had seen all of its own log, or more than there is of it.
func (s Suite) oneStateOneSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory(s.Events).Draw(t, "history")
		if len(history) == 0 {
			t.Skip("nothing was written")
		}
		want, _ := s.fold(t, history)
		for i, w := range history {
			says := func(seen events.Seen) bool { return seen.Origin == w.At.Origin }
			if slices.ContainsFunc(w.Event.Deps, says) || w.At.Offset == 0 {
				continue
			}
			more := rapid.Int64Range(0, 3).Draw(t, "more")
			own := events.Context{{Origin: w.At.Origin, Next: w.At.Offset + more}}
			history[i].Event.Deps = w.Event.Deps.Join(own)
		}
		if got, _ := s.fold(t, history); !reflect.DeepEqual(got, want) {
			t.Fatalf("%x\nand\n%x", got, want)
		}
	})
}

// A slice is live if and only if, alone, it shows something.
func (s Suite) liveIsExisting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, _ := s.fold(t, genHistory(s.Events).Draw(t, "history"))
		for _, one := range r.slices() {
			if view := s.join(t, []merge.Slice{one}); view.Exists != s.Rule.Live(one.Data) {
				t.Fatalf("%x is live: %t, and seen as %+v", one.Data, s.Rule.Live(one.Data), view)
			}
		}
	})
}

// Where a slice says that the next event can be folded, it can, and not before; and it makes no
// difference to what has no room whether it is folded there or where it comes to stand.
func (s Suite) nextIsBehindTheLast(t *testing.T) {
	rule := s.Rule.(merge.Bounded)
	rapid.Check(t, func(t *rapid.T) {
		r, _ := s.fold(t, genHistory(s.Events).Draw(t, "history"))
		e := s.Events.Draw(t, "event")
		for _, one := range r.slices() {
			last, _, err := rule.Last(one)
			next := last.Offset + 1
			if err != nil || next > r[one.Log].next {
				t.Fatalf("next of %x is %d of %d, %v", one.Data, next, r[one.Log].next, err)
			}
			var full *merge.NoMeaningError
			_, there := rule.Fold(nil, one.Data, &e, one.Log.At(next))
			_, later := rule.Fold(nil, one.Data, &e, one.Log.At(next+1_000))
			if there != nil && !errors.As(there, &full) || fmt.Sprint(there) != fmt.Sprint(later) {
				t.Fatalf("%+v at %d: %v, and later: %v", e, next, there, later)
			}
			if _, alone := rule.Fold(nil, nil, &e, one.Log.At(next)); alone == nil && there != nil && !rule.NeedsSlice(&e, one.Log.At(next)) {
				t.Fatalf("%+v at %d does not need %x, which has no room for it: %v", e, next, one.Data, there)
			}
			if _, err := rule.Fold(nil, one.Data, &e, one.Log.At(next-1)); err == nil {
				t.Fatalf("%+v is folded at %d, and %x says that the next is %d", e, next-1, one.Data, next)
			}
		}
	})
}

// The last event of a slice is that which was folded last, and no clock of what it shows is newer than
// what it knows.
func (s Suite) lastIsLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, meant := s.fold(t, genHistory(s.Events).Draw(t, "history"))
		last := map[events.Log]events.Position{}
		for _, w := range meant {
			last[w.At.Log] = w.At
		}
		for _, one := range r.slices() {
			at, clock, err := s.Rule.Last(one)
			if err != nil || at != last[one.Log] || clock < s.join(t, []merge.Slice{one}).Clock {
				t.Fatalf("%x: %s by %s, error %v; want %s", one.Data, at, clock, err, last[one.Log])
			}
			if _, _, err := s.Rule.Last(merge.Slice{Log: one.Log, Data: one.Data[:2]}); err == nil {
				t.Fatalf("%x has a last event", one.Data[:2])
			}
		}
	})
}

// Whatever is buried of a key that shows nothing, it shows nothing: not there, and not where some more or
// less of the other logs has come, unless it is seen there now.
func (s Suite) buriesWhatIsHidden(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := genHistory(s.Events).Draw(t, "history")
		for _, l := range logs() { // so that much is hidden
			if rapid.Bool().Draw(t, "deleted") {
				history = append(history, deletion(history, l))
			}
		}
		r, _ := s.fold(t, prefixes(t, history))
		other, _ := s.fold(t, history)
		if s.join(t, r.slices()).Exists {
			return
		}
		buried := region{}
		for l, p := range r {
			if s.Rule.Live(p.slice) && rapid.Bool().Draw(t, "buried") {
				p.slice = s.bury(t, p.slice, l.At(p.next))
				p.next = math.MaxInt64
			}
			buried[l] = p
		}
		if got := s.join(t, buried.slices()); got.Exists {
			t.Fatalf("buried, it is seen as %+v", got)
		}
		want, got := s.join(t, r.join(other).restrictedTo(buried, r).slices()), s.join(t, buried.join(other).slices())
		if s.hidesForGood() && !equalValues(valuesOf(want), valuesOf(got)) {
			t.Fatalf("buried, it is later seen as\n%+v, without\n%+v", got, want)
		}
	})
}

// hidesForGood tells whether what others hide stays hidden, whatever they write next. Under fieldmap an unset goes
// away by a reset that had not seen what it hides.
func (s Suite) hidesForGood() bool { return s.Rule.Name() != "fieldmap" }

// bury buries a slice that holds something, behind all that it has folded.
func (s Suite) bury(t rapid.TB, slice []byte, at events.Position) []byte {
	t.Helper()
	now, err := s.Rule.Bury(nil, slice, at)
	if err != nil || s.Rule.Live(now) {
		t.Fatalf("%x is buried as %x, error %v", slice, now, err)
	}
	last, clock, err := s.Rule.Last(merge.Slice{Log: at.Log, Data: now})
	_, was, _ := s.Rule.Last(merge.Slice{Log: at.Log, Data: slice})
	if err != nil || last != at || clock > was {
		t.Fatalf("%x is buried as %x: %s by %s, error %v", slice, now, last, clock, err)
	}
	return now
}

// restrictedTo has of the logs that are buried what was there before.
func (r region) restrictedTo(buried, before region) region {
	less := maps.Clone(r)
	for l, p := range buried {
		if p.next == math.MaxInt64 {
			less[l] = before[l]
		}
	}
	return less
}

// deletion deletes the key, behind all that was written in a log, by a writer who knows it all.
func deletion(history []Written, log events.Log) Written {
	ends := map[events.Log]int64{}
	clock := events.HLC(0)
	for _, w := range history {
		ends[w.At.Log] = max(ends[w.At.Log], w.At.Offset+1)
		clock = max(clock, w.Event.Clock)
	}
	var deps events.Context
	for _, l := range logs() {
		if l.Partition == log.Partition && l != log && ends[l] > 0 {
			deps = append(deps, events.Seen{Origin: l.Origin, Next: ends[l]})
		}
	}
	slices.SortFunc(deps, func(a, b events.Seen) int { return a.Origin.Compare(b.Origin) })
	return Written{At: log.At(ends[log]), Event: events.Event{Key: "k", Op: events.OpDelete, Type: events.TypeDelete, Clock: clock.Next(), Deps: deps}}
}

func (s Suite) whatHasNoMeaning(t *testing.T) {
	for _, op := range []events.Op{0, 6, 255} {
		e := events.Event{Key: "k", Op: op, Value: []byte("{}")}
		slice, err := s.Rule.Fold([]byte("before"), nil, &e, logs()[0].At(1))
		var noMeaning *merge.NoMeaningError
		if !errors.As(err, &noMeaning) || noMeaning.Rule != s.Rule.Name() || slice != nil {
			t.Errorf("operation %s: %x, error %v", op, slice, err)
		}
	}
}

// A damaged slice is an error, or is seen as something that can be; it is never
// taken for an event without a meaning. Cut short, it is no slice, unless its
// end is a value, of any length.
func (s Suite) damage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, _ := s.fold(t, genHistory(s.Events).Draw(t, "history"))
		e := s.Events.Draw(t, "event")
		for _, good := range r.slices() {
			for i := range good.Data {
				s.survives(t, merge.Slice{Log: good.Log, Data: good.Data[:i]}, e)
				bad := bytes.Clone(good.Data)
				bad[i] = rapid.Byte().Draw(t, "byte")
				s.survives(t, merge.Slice{Log: good.Log, Data: bad}, e)
			}
			if _, err := s.Rule.Join([]merge.Slice{{Log: good.Log}}); err == nil {
				t.Fatal("no bytes at all are a slice")
			}
		}
	})
}

// survives checks what must hold of any bytes in place of a slice.
func (s Suite) survives(t rapid.TB, slice merge.Slice, e events.Event) {
	t.Helper()
	was := bytes.Clone(slice.Data)
	live := s.Rule.Live(slice.Data)
	view, err := s.Rule.Join([]merge.Slice{slice})
	var noMeaning *merge.NoMeaningError
	if errors.As(err, &noMeaning) {
		t.Fatalf("%x has no meaning: %v", slice.Data, err)
	}
	if err == nil && (view.Exists != live || !view.Exists && view.Value != nil || view.Position.Offset < 0 || len(view.Siblings) == 1) {
		t.Fatalf("%x is seen as %+v, live %t", slice.Data, view, live)
	}
	buried, buryErr := s.Rule.Bury(nil, slice.Data, slice.Log.At(math.MaxInt64))
	_, _, lastErr := s.Rule.Last(slice)
	if buryErr == nil && s.Rule.Live(buried) || err == nil && (lastErr != nil || buryErr != nil && !errors.As(buryErr, &noMeaning)) {
		t.Fatalf("%x is seen as %+v, error %v; last error %v; buried it is %x, error %v", slice.Data, view, err, lastErr, buried, buryErr)
	}
	if _, unseen := s.Rule.Join([]merge.Slice{{Log: slice.Log, Data: buried}}); err == nil && buryErr == nil && unseen != nil {
		t.Fatalf("%x is a slice, buried it is %x, which is none: %v", slice.Data, buried, unseen)
	}
	noMeaning = nil
	now, foldErr := s.Rule.Fold(nil, slice.Data, &e, slice.Log.At(math.MaxInt64))
	if !bytes.Equal(slice.Data, was) {
		t.Fatal("the slice has changed")
	}
	if err != nil || errors.As(foldErr, &noMeaning) || bytes.Contains(was, codec.AppendOffset(nil, math.MaxInt64)) {
		return // the last: nothing comes after the last offset
	}
	// What can be joined can be folded, and what comes out can be joined again.
	if foldErr != nil {
		t.Fatalf("%x is seen as %+v, but cannot be folded: %v", slice.Data, view, foldErr)
	}
	if _, err := s.Rule.Join([]merge.Slice{{Log: slice.Log, Data: now}}); err != nil {
		t.Fatalf("%x is a slice, with %+v it is %x, which is none: %v", slice.Data, e, now, err)
	}
}

// Fuzz feeds the rule any slices and any values of events. None of it may make
// it panic, what it takes for a slice must make sense, and the order of slices
// must not matter.
func (s Suite) Fuzz(f *testing.F) {
	for seed := range 8 {
		history := genHistory(s.Events).Example(seed)
		slices.SortFunc(history, byPosition)
		f.Add([]byte{}, []byte(nil), uint8(0), []byte("{}"))
		var prev []byte
		for _, w := range history {
			if w.Event.IsBurial() && !s.Rule.Live(prev) {
				continue
			}
			now, err := s.foldOnto(nil, prev, w)
			if err == nil {
				f.Add(now, prev, uint8(w.Event.Op), w.Event.Value)
				prev = now
			}
		}
	}
	all := logs()
	f.Fuzz(func(t *testing.T, a, b []byte, op uint8, value []byte) {
		e := events.Event{Key: "k", Op: events.Op(op % 7), Value: value, Clock: 3, Deps: events.Context{{Origin: all[0].Origin, Next: 4}, {Origin: all[7].Origin, Next: 2}}}
		for _, slice := range []merge.Slice{{Log: all[0], Data: a}, {Log: all[2], Data: b}} {
			s.survives(t, slice, e)
		}
		if first, err := s.Rule.Fold(nil, nil, &e, all[0].At(9)); err == nil {
			s.join(t, []merge.Slice{{Log: all[0], Data: first}})
		}
		x, errX := s.Rule.Join([]merge.Slice{{Log: all[0], Data: a}, {Log: all[2], Data: b}})
		y, errY := s.Rule.Join([]merge.Slice{{Log: all[2], Data: b}, {Log: all[0], Data: a}})
		if (errX == nil) != (errY == nil) || !reflect.DeepEqual(x, y) {
			t.Fatalf("%+v, %v; the other way %+v, %v", x, errX, y, errY)
		}
	})
}
