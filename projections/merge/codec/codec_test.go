package codec_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge/codec"
)

func genContext() *rapid.Generator[events.Context] {
	return rapid.Custom(func(t *rapid.T) events.Context {
		origin := rapid.Custom(func(t *rapid.T) events.Origin {
			return events.Origin{
				Region:      events.Region(rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`).Draw(t, "region")),
				Incarnation: rapid.OneOf(rapid.Uint32Range(1, 3), rapid.Uint32Range(1, math.MaxUint32)).Draw(t, "incarnation"),
			}
		})
		var c events.Context
		for _, o := range slices.SortedFunc(slices.Values(rapid.SliceOfNDistinct(origin, 0, 5, rapid.ID).Draw(t, "origins")), events.Origin.Compare) {
			c = append(c, events.Seen{Origin: o, Next: rapid.Int64Range(1, math.MaxInt64).Draw(t, "next")})
		}
		return c
	})
}

// Everything is read as it was written, and leaves what comes after it.
func TestReadIsInverseOfAppend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock, offset := events.HLC(rapid.Uint64().Draw(t, "clock")), rapid.Int64Range(0, math.MaxInt64).Draw(t, "offset")
		signed, number := rapid.Int64().Draw(t, "signed"), rapid.Uint64().Draw(t, "number")
		text, context := rapid.String().Draw(t, "text"), genContext().Draw(t, "context")
		b := codec.AppendClock([]byte{7}, clock)
		b = codec.AppendOffset(b, offset)
		b = codec.AppendSigned(b, signed)
		b = binary.AppendUvarint(b, number)
		b = codec.AppendText(b, text)
		b = codec.AppendContext(b, context)
		encoded := codec.AppendContext(nil, context)
		b = append(append(b, encoded...), "rest"...)
		r := codec.Read(b)
		if r.Byte() != 7 || r.Clock() != clock || r.Offset() != offset || r.Signed() != signed || r.Number() != number || string(r.Text()) != text {
			t.Fatalf("%x is read as something else", b)
		}
		if got := r.Context(); !reflect.DeepEqual(got, context) {
			t.Fatalf("%s is read as %s", context, got)
		}
		if skipped := r.SkipContext(); !bytes.Equal(skipped, encoded) {
			t.Fatalf("%x skipped, want %x", skipped, encoded)
		}
		if string(r.Rest()) != "rest" || r.Err() != nil || r.End() == nil || r.Err() == nil {
			t.Fatalf("%q is left, %v", r.Rest(), r.Err())
		}
	})
}

// What no Append writes nobody reads.
func TestCorrupt(t *testing.T) {
	many := codec.AppendText(binary.AppendUvarint(nil, events.MaxContextOrigins+1), "eu")
	for name, c := range map[string]struct {
		data string
		read func(r *codec.Reader)
	}{
		"no byte":                 {"", func(r *codec.Reader) { r.Byte() }},
		"no whole clock":          {"00000000000000", func(r *codec.Reader) { r.Clock() }},
		"no number":               {"", func(r *codec.Reader) { r.Number() }},
		"half a number":           {"80", func(r *codec.Reader) { r.Number() }},
		"a number with an excess": {"8000", func(r *codec.Reader) { r.Number() }},
		"more than 64 bits":       {"ffffffffffffffffff02", func(r *codec.Reader) { r.Number() }},
		"endless":                 {"8080808080808080808080808080", func(r *codec.Reader) { r.Number() }},
		"no such offset":          {"80808080808080808001", func(r *codec.Reader) { r.Offset() }},
		"text cut short":          {"026", func(r *codec.Reader) { r.Text() }},
		"text without end":        {"ffffffffffffffffff01", func(r *codec.Reader) { r.Text() }},
		"context without entries": {"01", func(r *codec.Reader) { r.Context() }},
		"too many origins":        {hex.EncodeToString(many), func(r *codec.Reader) { r.Context() }},
		"no region":               {"01" + "00" + "01" + "01", func(r *codec.Reader) { r.Context() }},
		"no incarnation":          {"01" + "026575" + "00" + "01", func(r *codec.Reader) { r.Context() }},
		"incarnation of 33 bits":  {"01" + "026575" + "8080808010" + "01", func(r *codec.Reader) { r.Context() }},
		"nothing seen":            {"01" + "026575" + "01" + "00", func(r *codec.Reader) { r.Context() }},
		"the same twice":          {"02" + "026575" + "01" + "01" + "026575" + "01" + "01", func(r *codec.Reader) { r.Context() }},
		"descending regions":      {"02" + "027573" + "01" + "01" + "026575" + "01" + "01", func(r *codec.Reader) { r.Context() }},
		"descending incarnations": {"02" + "026575" + "02" + "01" + "026575" + "01" + "01", func(r *codec.Reader) { r.Context() }},
		"skipped, too":            {"02" + "026575" + "02" + "01" + "026575" + "01" + "01", func(r *codec.Reader) { r.SkipContext() }},
	} {
		data, _ := hex.DecodeString(c.data)
		r := codec.Read(data)
		c.read(&r)
		if r.Err() == nil || !errors.Is(r.End(), codec.ErrCorrupt) || r.Rest() != nil {
			t.Errorf("%s: error %v, %x left", name, r.Err(), r.Rest())
		}
		// Once failed, everything is zero.
		if r.Byte() != 0 || r.Number() != 0 || r.Offset() != 0 || r.Clock() != 0 || r.Text() != nil || r.Context() != nil || r.SkipContext() != nil {
			t.Errorf("%s: reads on", name)
		}
	}
}

// The orders of origins and of their bytes are one.
func TestContextKeepsTheOrderOfOrigins(t *testing.T) {
	var c events.Context
	for _, region := range []events.Region{"a", "a-1", "a0", "aa", "b"} {
		for _, n := range []uint32{1, 2, 10, 300} {
			c = append(c, events.Seen{Origin: events.Origin{Region: region, Incarnation: n}, Next: 1})
		}
	}
	r := codec.Read(codec.AppendContext(nil, c))
	if got := r.Context(); r.End() != nil || fmt.Sprint(got) != fmt.Sprint(c) || c.Validate() != nil {
		t.Errorf("%s is read as %s", c, got)
	}
}
