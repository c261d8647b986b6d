package format

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

func drawGroups(t *rapid.T) []GroupOffset {
	offsets := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) GroupOffset {
		return GroupOffset{
			Group: rapid.StringN(1, 10, -1).Draw(t, "group"), Next: rapid.Int64Min(0).Draw(t, "next"), Metadata: rapid.String().Draw(t, "metadata"),
			Log: events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session", Partition: rapid.Int32Range(0, 3).Draw(t, "partition")},
		}
	}), 1, 20).Draw(t, "offsets")
	slices.SortFunc(offsets, GroupOffset.compare)
	return slices.CompactFunc(offsets, func(a, b GroupOffset) bool { return a.compare(b) == 0 })
}

// What is written of groups is read again; any flipped byte, and another number of them, is
// refused or changes nothing.
func TestGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawGroups(t)
		text, err := EncodeGroups(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeGroups(text, int64(len(want)))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
		if _, err := DecodeGroups(text, int64(len(want)+1)); events.KindOf(err) != events.KindInconsistent {
			t.Fatalf("one more: %v", err)
		}
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		text[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if got, err := DecodeGroups(text, int64(len(want))); err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("byte %d flipped: %+v", at, got)
		}
		if len(want) > 1 {
			if _, err := EncodeGroups(slices.Concat(want[1:], want[:1])); err == nil {
				t.Fatal("out of order")
			}
		}
	})
}

func TestGroupsRefused(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session"}
	for name, bad := range map[string]GroupOffset{
		"no group": {Log: log}, "no log": {Group: "g"}, "below 0": {Group: "g", Log: log, Next: -1},
	} {
		if _, err := EncodeGroups([]GroupOffset{bad}); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	for name, change := range map[string]func(m *Manifest){
		"too early": func(m *Manifest) { m.Format = 3 },
		"no data":   func(m *Manifest) { m.Groups.Data = nil },
		"too much":  func(m *Manifest) { m.Groups.Data = make([]byte, MaxGroupsBytes+1) },
		"none":      func(m *Manifest) { m.Groups.Offsets = 0 },
		"no keys":   func(m *Manifest) { m.Groups.Keys = nil },
		"bad key":   func(m *Manifest) { m.Groups.Keys = []string{"x"} },
	} {
		m := sample()
		change(m)
		if err := m.Validate(); events.KindOf(err) != events.KindInconsistent {
			t.Errorf("%s: %v", name, err)
		}
	}
}
