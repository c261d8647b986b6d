package events_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

func TestCollectionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []events.Tombstone
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			want = append(want, events.Tombstone{
				Key:    string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")),
				Offset: rapid.Int64Min(0).Draw(t, "offset"),
			})
		}
		e, err := events.NewCollection(want)
		if err != nil {
			t.Fatal(err)
		}
		e.ID, e.Source = "1", "test"
		record, err := events.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		read, err := events.Decode(record)
		if err != nil || !read.IsCollection() {
			t.Fatalf("%+v, %v", read, err)
		}
		if got, err := read.Collection(); err != nil || !slices.Equal(got, want) {
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
		_, err := events.Event{Key: events.CollectKey, Op: events.OpPut, Type: events.TypeCollect, Value: []byte(value)}.Collection()
		var bad *events.DecodeError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v, want %q", value, err, says)
		}
	}
	_, err := events.Event{Key: "other", Op: events.OpPut, Type: events.TypeCollect, Value: []byte(`{"tombstones":[{"key":"aw==","offset":1}]}`)}.Collection()
	if err == nil {
		t.Error("a collection under any key")
	}
}
