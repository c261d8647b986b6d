package appendonly_test

import (
	"encoding/hex"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/appendonly"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
	"github.com/evenkeel/evenkeel/projections/merge/mergetest"
)

func genEvent() *rapid.Generator[events.Event] {
	return rapid.Custom(func(t *rapid.T) events.Event {
		return events.Event{
			Op:          rapid.SampledFrom([]events.Op{events.OpAppend, events.OpAppend, events.OpPut, events.OpDelete, events.OpPatch, events.OpResolve}).Draw(t, "op"),
			Value:       rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value"),
			Type:        rapid.SampledFrom([]string{"", "t", string(make([]byte, 200))}).Draw(t, "type"),
			ContentType: rapid.SampledFrom([]string{"", "a/b"}).Draw(t, "content type"),
		}
	})
}

var suite = mergetest.Suite{Rule: appendonly.Rule{}, Events: genEvent(), Model: mergetest.Models[appendonly.Rule{}.Name()]}

func TestLaws(t *testing.T)   { suite.Run(t) }
func FuzzSlices(f *testing.F) { suite.Fuzz(f) }

var log = events.Log{Origin: events.FirstOrigin("us"), Stream: "metrics"}

// Which operations have a meaning, and what a slice looks like.
func TestSlice(t *testing.T) {
	var slice []byte
	for offset, e := range []events.Event{
		{Op: events.OpAppend, Clock: 0x100, Type: "a", Value: []byte("x")},
		{Op: events.OpDelete},
		{Op: events.OpPatch, Value: []byte("{}")},
		{Op: events.OpResolve, Value: []byte("x")},
		{Op: events.OpPut, Clock: 5, Type: "bc", Value: []byte("x")},
	} {
		now, err := appendonly.Rule{}.Fold(nil, slice, &e, log.At(int64(offset)+200))
		if meant := e.Op == events.OpAppend || e.Op == events.OpPut; (err == nil) != meant {
			t.Errorf("%s: %v", e.Op, err)
		}
		if err == nil {
			slice = now
		}
	}
	const want = "01" + "0000000000000101" + "c801" + "cc01" + "02" + "026263"
	if got := hex.EncodeToString(slice); got != want {
		t.Errorf("slice %s, want %s", got, want)
	}
	view, err := appendonly.Rule{}.Join([]merge.Slice{{Log: log, Data: slice}})
	if err != nil || !reflect.DeepEqual(view, merge.View{
		Exists: true, Value: []byte(`{"count":2}`), ContentType: "application/json", Type: "bc", Clock: 0x101, Position: log.At(204),
	}) {
		t.Errorf("seen as %+v, %v", view, err)
	}
	if _, err := (appendonly.Rule{}).Fold(nil, slice, &events.Event{Op: events.OpAppend, Value: []byte{}}, log.At(204)); err == nil {
		t.Error("an event was folded twice")
	}
}

// slice is a slice of any numbers.
func slice(first, last int64, count uint64) []byte {
	b := codec.AppendClock([]byte{1}, 7)
	b = codec.AppendOffset(codec.AppendOffset(b, first), last)
	b = codec.AppendOffset(b, int64(count))
	return codec.AppendText(b, "t")
}

func TestCountsThatCannotBe(t *testing.T) {
	for name, data := range map[string][]byte{
		"none":                     slice(0, 0, 0),
		"more than offsets":        slice(3, 5, 4),
		"many more":                slice(0, math.MaxInt64, 1<<63+1),
		"last before first":        slice(5, 3, 2),
		"one at two offsets":       slice(3, 5, 1),
		"two at one offset":        slice(3, 3, 2),
		"something behind":         append(slice(3, 3, 1), 0),
		"a number in two bytes":    {1, 0, 0, 0, 0, 0, 0, 0, 0, 0x83, 0x00, 3, 1, 0},
		"no such offset":           append(codec.AppendClock([]byte{1}, 7), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		"another version":          {2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 1, 0},
		"a type that is too short": {1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 1, 1},
	} {
		if view, err := (appendonly.Rule{}).Join([]merge.Slice{{Log: log, Data: data}}); err == nil {
			t.Errorf("%s: seen as %+v", name, view)
		}
	}
	// The most that logs can hold is counted or refused, never wrapped around.
	most := slice(0, math.MaxInt64-1, math.MaxInt64)
	other := log
	other.Partition = 1
	if view, err := (appendonly.Rule{}).Join([]merge.Slice{{Log: log, Data: most}}); err != nil || string(view.Value) != `{"count":9223372036854775807}` {
		t.Errorf("seen as %+v, %v", view, err)
	}
	if view, err := (appendonly.Rule{}).Join([]merge.Slice{{Log: log, Data: most}, {Log: other, Data: most}}); err == nil {
		t.Errorf("seen as %+v", view)
	}
}

func BenchmarkFold(b *testing.B) {
	e := events.Event{Op: events.OpAppend, Clock: 1 << 40, Type: "erlmcp.metrics.sampled.v1", Value: []byte("x")}
	prev := slice(0, 1<<30, 1<<20)
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (appendonly.Rule{}).Fold(dst, prev, &e, log.At(1<<31)); err != nil {
			b.Fatal(err)
		}
	}
}
