package lww_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
)

var rule lww.Rule

// at is a place in some log: a slice holds the offset alone.
func at(offset int64) events.Position {
	return events.Position{Log: events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}, Offset: offset}
}

// genEvent gives events whose clocks often meet.
func genEvent() *rapid.Generator[events.Event] {
	clock := rapid.OneOf(rapid.Uint64Range(0, 4), rapid.SampledFrom([]uint64{math.MaxUint64 - 1, math.MaxUint64}), rapid.Uint64())
	return rapid.Custom(func(t *rapid.T) events.Event {
		e := events.Event{
			Key: "k", Op: events.OpPut, Clock: events.HLC(clock.Draw(t, "clock")),
			Value: rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "value"),
			Type:  rapid.SampledFrom([]string{"", "t", string(make([]byte, 200))}).Draw(t, "type"), ContentType: rapid.SampledFrom([]string{"", "a/b"}).Draw(t, "content type"),
		}
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			e.Op = events.OpDelete // it may have a value all the same
		}
		return e
	})
}

// genLogs gives what three origins, one of them in two incarnations, wrote of
// one key, in two partitions each.
func genLogs() *rapid.Generator[map[events.Log][]events.Event] {
	return rapid.Custom(func(t *rapid.T) map[events.Log][]events.Event {
		logs := map[events.Log][]events.Event{}
		for _, o := range []events.Origin{{Region: "eu", Incarnation: 1}, {Region: "us", Incarnation: 1}, {Region: "us", Incarnation: 2}, {Region: "us-a", Incarnation: 1}} {
			for p := range int32(2) {
				if written := rapid.SliceOfN(genEvent(), 0, 5).Draw(t, o.String()); len(written) > 0 {
					logs[events.Log{Origin: o, Stream: "s", Partition: p}] = written
				}
			}
		}
		return logs
	})
}

func fold(t rapid.TB, written []events.Event) (slice []byte) {
	t.Helper()
	for offset := range written {
		now, err := rule.Fold(nil, slice, &written[offset], at(int64(offset)))
		if err != nil {
			t.Fatal(err)
		}
		slice = now
	}
	return slice
}

func foldAll(t rapid.TB, logs map[events.Log][]events.Event) (all []merge.Slice) {
	t.Helper()
	for l, written := range logs {
		all = append(all, merge.Slice{Log: l, Data: fold(t, written)})
	}
	slices.SortFunc(all, func(a, b merge.Slice) int { return a.Log.Compare(b.Log) })
	return all
}

func join(t rapid.TB, all []merge.Slice) merge.View {
	t.Helper()
	view, err := rule.Join(all)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

// Fold depends on its arguments alone, changes none of them, and says the same
// thing in the same bytes.
func TestFoldIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		written := rapid.SliceOfN(genEvent(), 1, 5).Draw(t, "events")
		prev := fold(t, written[:len(written)-1])
		was, e := bytes.Clone(prev), written[len(written)-1]
		offset := at(int64(len(written) - 1))
		first, err := rule.Fold(nil, prev, &e, offset)
		if err != nil {
			t.Fatal(err)
		}
		appended, err := rule.Fold([]byte("before"), bytes.Clone(prev), &e, offset)
		if err != nil || string(appended) != "before"+string(first) {
			t.Fatalf("appended to something: %x, %v; want %x", appended, err, first)
		}
		if !bytes.Equal(prev, was) || !reflect.DeepEqual(e, written[len(written)-1]) {
			t.Fatal("the arguments have changed")
		}
		// What a delete carries is no part of the state.
		if e.Op == events.OpDelete {
			e.Value = append(e.Value, "why"...)
			if again, _ := rule.Fold(nil, prev, &e, offset); !bytes.Equal(again, first) {
				t.Fatalf("%x and %x", again, first)
			}
		}
	})
}

// Within one log the last event decides, whatever the clocks say, and the
// clock of a slice only grows.
func TestLogOrderBeatsClocks(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	rapid.Check(t, func(t *rapid.T) {
		written := rapid.SliceOfN(genEvent(), 1, 6).Draw(t, "events")
		last := events.HLC(0)
		for n := range written {
			view := join(t, []merge.Slice{{Log: log, Data: fold(t, written[:n+1])}})
			e := written[n]
			want := merge.View{Exists: e.Op == events.OpPut, Type: e.Type, ContentType: e.ContentType, Clock: e.Clock, Position: log.At(int64(n))}
			if want.Exists {
				want.Value = e.Value
			}
			if n > 0 {
				want.Clock = max(e.Clock, last.Next())
			}
			last = want.Clock
			if !reflect.DeepEqual(view, want) {
				t.Fatalf("after %d events: %+v, want %+v", n+1, view, want)
			}
		}
	})
}

func TestJoinIsCommutativeAndIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := foldAll(t, genLogs().Draw(t, "logs"))
		want := join(t, all)
		if got := join(t, rapid.Permutation(all).Draw(t, "order")); !reflect.DeepEqual(got, want) {
			t.Fatalf("in another order: %+v, want %+v", got, want)
		}
		if got := join(t, append(slices.Clone(all), all...)); !reflect.DeepEqual(got, want) {
			t.Fatalf("everything twice: %+v, want %+v", got, want)
		}
	})
}

// Associative: a winner among some, joined with the rest, wins what it would
// have won among all.
func TestJoinIsAssociative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := foldAll(t, genLogs().Draw(t, "logs"))
		if len(all) == 0 {
			t.Skip("nothing was written")
		}
		cut := rapid.IntRange(1, len(all)).Draw(t, "cut")
		winner := slices.IndexFunc(all[:cut], func(s merge.Slice) bool { return s.Log == join(t, all[:cut]).Position.Log })
		rest := append([]merge.Slice{all[winner]}, all[cut:]...)
		if got, want := join(t, rest), join(t, all); !reflect.DeepEqual(got, want) {
			t.Fatalf("in two steps %+v, in one %+v", got, want)
		}
	})
}

// Join against its definition.
func TestJoinPicksTheLargest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := foldAll(t, genLogs().Draw(t, "logs"))
		view := join(t, all)
		for _, s := range all {
			one := join(t, []merge.Slice{s})
			if one.Clock > view.Clock || one.Clock == view.Clock && s.Log.Compare(view.Position.Log) > 0 {
				t.Fatalf("%+v won over %+v", view, one)
			}
		}
		if len(all) == 0 && !reflect.DeepEqual(view, merge.View{}) {
			t.Fatalf("nothing at all is seen as %+v", view)
		}
	})
}

// suite is the laws for events as above, resolves, and those without a meaning.
func suite() mergetest.Suite {
	what := rapid.Custom(func(t *rapid.T) events.Event {
		e := genEvent().Draw(t, "event")
		e.Op = rapid.SampledFrom([]events.Op{e.Op, e.Op, e.Op, events.OpResolve, events.OpPatch, events.OpAppend}).Draw(t, "op")
		return e
	})
	return mergetest.Suite{Rule: rule, Events: what, Model: mergetest.Models[rule.Name()]}
}

func TestLaws(t *testing.T)   { suite().Run(t) }
func FuzzSlices(f *testing.F) { suite().Fuzz(f) }

func TestTies(t *testing.T) {
	in := func(origin string, incarnation uint32, partition int32) events.Log {
		return events.Log{Origin: events.Origin{Region: events.Region(origin), Incarnation: incarnation}, Stream: "s", Partition: partition}
	}
	put := func(clock events.HLC) []events.Event {
		return []events.Event{{Op: events.OpPut, Clock: clock, Value: []byte("v")}}
	}
	erase := func(clock events.HLC) []events.Event { return []events.Event{{Op: events.OpDelete, Clock: clock}} }
	for name, c := range map[string]struct {
		logs   map[events.Log][]events.Event
		winner events.Log
		exists bool
	}{
		"larger clock":                 {map[events.Log][]events.Event{in("us", 1, 0): put(1), in("eu", 1, 0): put(2)}, in("eu", 1, 0), true},
		"same clock, larger origin":    {map[events.Log][]events.Event{in("us", 1, 0): put(1), in("eu", 1, 0): put(1)}, in("us", 1, 0), true},
		"same region, incarnation":     {map[events.Log][]events.Event{in("us", 2, 0): put(1), in("us", 10, 0): put(1)}, in("us", 10, 0), true},
		"same origin, partition":       {map[events.Log][]events.Event{in("us", 1, 2): put(1), in("us", 1, 10): put(1)}, in("us", 1, 10), true},
		"deleted later elsewhere":      {map[events.Log][]events.Event{in("us", 1, 0): put(1), in("eu", 1, 0): erase(2)}, in("eu", 1, 0), false},
		"deleted before elsewhere":     {map[events.Log][]events.Event{in("us", 1, 0): put(2), in("eu", 1, 0): erase(1)}, in("us", 1, 0), true},
		"deleted at the same time":     {map[events.Log][]events.Event{in("eu", 1, 0): put(1), in("us", 1, 0): erase(1)}, in("us", 1, 0), false},
		"put again after the deletion": {map[events.Log][]events.Event{in("us", 1, 0): append(erase(9), put(0)...), in("eu", 1, 0): put(9)}, in("us", 1, 0), true},
		"a late clock is not enough":   {map[events.Log][]events.Event{in("us", 1, 0): append(put(7), put(0)...), in("eu", 1, 0): put(7)}, in("us", 1, 0), true},
	} {
		view := join(t, foldAll(t, c.logs))
		if view.Position.Log != c.winner || view.Exists != c.exists || (view.Value != nil) != c.exists {
			t.Errorf("%s: %+v, want %s", name, view, c.winner)
		}
	}
}

func TestLive(t *testing.T) {
	put := fold(t, []events.Event{{Op: events.OpPut, Value: []byte{}}})
	erase := fold(t, []events.Event{{Op: events.OpDelete, Value: []byte("why")}})
	if !rule.Live(put) || rule.Live(erase) {
		t.Errorf("a put is live: %t, a delete: %t", rule.Live(put), rule.Live(erase))
	}
	if view := join(t, []merge.Slice{{Data: put}}); !view.Exists || view.Value == nil {
		t.Errorf("an empty value is seen as %+v", view)
	}
	for n := range 10 {
		if rule.Live(put[:n]) {
			t.Errorf("%d bytes of a slice are live", n)
		}
	}
}

func TestFoldOfWhatHasNoMeaning(t *testing.T) {
	for _, op := range []events.Op{0, events.OpPatch, events.OpAppend, 6} {
		_, err := rule.Fold(nil, nil, &events.Event{Op: op}, at(0))
		var noMeaning *merge.NoMeaningError
		if !errors.As(err, &noMeaning) || noMeaning.Rule != rule.Name() {
			t.Errorf("operation %s: error %v", op, err)
		}
	}
}

func TestCorruptSlices(t *testing.T) {
	good := fold(t, []events.Event{{Op: events.OpPut, Clock: 9, Type: "type", ContentType: "a/b", Value: []byte("v")}})
	with := func(i int, b byte) []byte {
		c := bytes.Clone(good)
		c[i] = b
		return c
	}
	header := good[:10]
	for name, c := range map[string]struct {
		data []byte
		fold bool // Fold, which looks at the header only, refuses it too
	}{
		"nothing":              {[]byte{}, true},
		"one byte":             {good[:1], true},
		"no whole clock":       {good[:9], true},
		"header only":          {header, false},
		"no whole type":        {good[:13], false},
		"no content type":      {good[:16], false},
		"another version":      {with(0, 2), true},
		"unknown flag":         {with(1, 2), true},
		"tombstone with value": {with(1, 1), false},
		"type too long":        {with(11, 200), false},
		"endless number":       {append(bytes.Clone(header), bytes.Repeat([]byte{0x80}, 20)...), false},
		"no such offset":       {append(binary.AppendUvarint(bytes.Clone(header), 1<<63), 0, 0), false},
		"length past all":      {append(append(bytes.Clone(header), 0), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), false},
	} {
		if view, err := rule.Join([]merge.Slice{{Data: c.data}}); err == nil {
			t.Errorf("%s: seen as %+v", name, view)
		}
		_, err := rule.Fold(nil, c.data, &events.Event{Op: events.OpPut, Value: []byte("v")}, at(1))
		var noMeaning *merge.NoMeaningError
		if (err != nil) != c.fold || errors.As(err, &noMeaning) {
			t.Errorf("%s: fold says %v", name, err)
		}
	}
	// A corrupt slice is noticed beside good ones, wherever it stands.
	for _, all := range [][]merge.Slice{{{Data: good}, {Data: nil}}, {{Data: nil}, {Data: good}}} {
		if _, err := rule.Join(all); err == nil {
			t.Error("a corrupt slice beside a good one was not noticed")
		}
	}
}

// Nothing that a disk can hold makes the rule panic, and whatever Join reads it
// reads to the last byte.
func FuzzCorruptSlices(f *testing.F) {
	f.Add([]byte{}, []byte{1})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, []byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 5, 1, 't', 0})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 1, 0, 0}, []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 3, 'a', 'b'})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, data := range [][]byte{a, b} {
			live := rule.Live(data)
			for _, op := range []events.Op{0, events.OpPut, events.OpDelete} {
				_, _ = rule.Fold(nil, data, &events.Event{Op: op, Value: b}, at(1))
			}
			view, err := rule.Join([]merge.Slice{{Data: data}})
			if err == nil && (view.Exists != live || view.Position.Offset < 0 || !view.Exists && view.Value != nil) {
				t.Errorf("%x is seen as %+v, live %t", data, view, live)
			}
		}
		l, m := events.Log{Partition: 1}, events.Log{Partition: 2}
		x, errX := rule.Join([]merge.Slice{{Log: l, Data: a}, {Log: m, Data: b}})
		y, errY := rule.Join([]merge.Slice{{Log: m, Data: b}, {Log: l, Data: a}})
		if (errX == nil) != (errY == nil) || !reflect.DeepEqual(x, y) {
			t.Errorf("%+v, %v; the other way %+v, %v", x, errX, y, errY)
		}
	})
}

func BenchmarkFold(b *testing.B) {
	e := events.Event{Op: events.OpPut, Type: "erlmcp.session.started.v1", Value: make([]byte, 300)}
	prev := fold(b, []events.Event{e})
	dst := make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rule.Fold(dst, prev, &e, at(1)); err != nil {
			b.Fatal(err)
		}
	}
}

// A burial takes the value and leaves the clock: older writes of others stay hidden, newer ones are seen,
// and the next write of the log is newer than what was buried, whatever its clock says.
func TestBuried(t *testing.T) {
	fold := func(prev []byte, clock events.HLC, at events.Position) []byte {
		slice, err := lww.Rule{}.Fold(nil, prev, &events.Event{Op: events.OpPut, Clock: clock, Value: []byte(at.Origin.Region)}, at)
		if err != nil {
			t.Fatal(err)
		}
		return slice
	}
	eu, us := events.Log{Origin: events.FirstOrigin("eu"), Stream: "s"}, events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	buried, err := lww.Rule{}.Bury(nil, fold(nil, 7, eu.At(3)), eu.At(5))
	if err != nil {
		t.Fatal(err)
	}
	for clock, exists := range map[events.HLC]bool{6: false, 7: true, 8: true} { // us wins where clocks are equal
		view, err := lww.Rule{}.Join([]merge.Slice{{Log: us, Data: fold(nil, clock, us.At(0))}, {Log: eu, Data: buried}})
		if err != nil || view.Exists != exists {
			t.Errorf("beside a write by %s: %+v, %v", clock, view, err)
		}
	}
	view, err := lww.Rule{}.Join([]merge.Slice{{Log: eu, Data: buried}})
	if want := (merge.View{Type: events.TypeBury, Clock: 7, Position: eu.At(5)}); err != nil || !reflect.DeepEqual(view, want) {
		t.Errorf("%+v, %v, want %+v", view, err, want)
	}
	next, err := lww.Rule{}.Join([]merge.Slice{{Log: eu, Data: fold(buried, 1, eu.At(6))}})
	if err != nil || next.Clock != 8 || !next.Exists {
		t.Errorf("%+v, %v", next, err)
	}
	if _, err := (lww.Rule{}).Bury(nil, []byte{2, 0}, eu.At(0)); err == nil {
		t.Error("what is no slice was buried")
	}
}
