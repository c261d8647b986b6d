package events_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

func TestUpkeepRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buries := rapid.Bool().Draw(t, "buries")
		upkeep := events.NewCollection
		if buries {
			upkeep = events.NewBurial
		}
		var want []events.Tombstone
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			want = append(want, events.Tombstone{
				Key:    string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")),
				Offset: rapid.Int64Min(0).Draw(t, "offset"),
			})
		}
		e, err := upkeep(want)
		if err != nil {
			t.Fatal(err)
		}
		e.ID, e.Source = "1", "test"
		record, err := events.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		read, err := events.Decode(record)
		if err != nil || !read.IsUpkeep() || read.IsBurial() != buries || read.IsCollection() == buries {
			t.Fatalf("%+v, %v", read, err)
		}
		if got, err := read.Upkeep(); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
	})
}

func TestBadCollections(t *testing.T) {
	many := "[" + strings.TrimSuffix(strings.Repeat(`{"key":"aw==","offset":1},`, events.MaxCollected+1), ",") + "]"
	for value, says := range map[string]string{
		"":                              "no list",
		"nonsense":                      "no list",
		`{"tombstones":[]}`:             "0 tombstones",
		`{"tombstones":` + many + `}`:   "1001 tombstones",
		`{"tombstones":[{"offset":1}]}`: "a key of 0 bytes",
		`{"tombstones":[{"key":"aw==","offset":-1}]}`: "negative offset",
		`{"tombstones":[{"key":"?","offset":1}]}`:     "no list",
	} {
		_, err := events.Event{Key: events.CollectKey, Op: events.OpPut, Type: events.TypeCollect, Value: []byte(value)}.Upkeep()
		var bad *events.DecodeError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v, want %q", value, err, says)
		}
	}
	_, err := events.Event{Key: "other", Op: events.OpPut, Type: events.TypeCollect, Value: []byte(`{"tombstones":[{"key":"aw==","offset":1}]}`)}.Upkeep()
	if err == nil {
		t.Error("a collection under any key")
	}
	for value, says := range map[string]string{
		"":                                "no list of slices",
		`{"tombstones":[{"key":"aw=="}]}`: "0 slices",
		`{"slices":[{"offset":1}]}`:       "slice 0 has a key of 0 bytes",
	} {
		_, err := events.Event{Key: events.BuryKey, Op: events.OpPut, Type: events.TypeBury, Value: []byte(value)}.Upkeep()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v, want %q", value, err, says)
		}
	}
	if _, err := (events.Event{Key: events.CollectKey, Op: events.OpPut, Type: events.TypeBury, Value: []byte(`{"slices":[{"key":"aw=="}]}`)}).Upkeep(); err == nil {
		t.Error("a burial under the key of collections")
	}
}
