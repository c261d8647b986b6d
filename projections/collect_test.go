package projections_test

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/multivalue"
)

func collection(t tb, tombstones ...events.Tombstone) *kgo.Record {
	t.Helper()
	e, err := events.NewCollection(tombstones)
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Key: []byte(e.Key), Value: e.Value, Headers: ceHeaders(e.Type, "1.0")}
}

// genNextToCollect gives what may come next in a log, so that there is much to collect: often a
// delete, or a collection of a key's tombstone, of one that was replaced since or of none.
func (w world) genNextToCollect(l events.Log) *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		what := rapid.SampledFrom([]string{"any", "delete", "collect"}).Draw(t, "what")
		parts := w.fold(l, int64(len(w[l]))).keys
		switch {
		case what == "delete":
			return bare(rapid.SampledFrom(keys[:4]).Draw(t, "key"), nil, 1)
		case what == "any" || len(parts) == 0:
			return genRecord().Draw(t, "record")
		}
		key := rapid.SampledFrom(slices.Sorted(maps.Keys(parts))).Draw(t, "collected")
		at := rapid.SampledFrom(parts[key].written).Draw(t, "event").At.Offset
		return collection(t, events.Tombstone{Key: key, Offset: at})
	})
}

// Regions that have folded the same logs hold the same, whatever is collected when,
// in whatever batches they fold and in whatever order logs come in.
func TestCollectionIsAFunctionOfTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, logs := world{}, genLogs().Draw(t, "logs")[:4]
		for _, l := range logs {
			for range rapid.IntRange(0, 40).Draw(t, l.String()) {
				w.write(l, w.genNextToCollect(l).Draw(t, "record"))
			}
		}
		for range 3 {
			s := openNew(t)
			for {
				var left []events.Log
				for _, l := range logs {
					if s.Next(l) < int64(len(w[l])) {
						left = append(left, l)
					}
				}
				if len(left) == 0 {
					break
				}
				l := rapid.SampledFrom(left).Draw(t, "log")
				apply(t, s, w.from(l, s.Next(l), rapid.IntRange(1, 20).Draw(t, "records")))
			}
			checkShard(t, s, w, w.ends())
		}
	})
}

// What can be collected: tombstones of keys of which nobody holds anything, page by
// page, with the place of their last event and the least that one has to have seen. Collected, they
// are not there any more, and an event behind it folds as if they had never been.
func TestDead(t *testing.T) {
	w := world{}
	us, eu := logsOf(0)[0], logsOf(0)[6]
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		w.write(us, bare(key, []byte("v"), 100))
	}
	for _, key := range []string{"a", "b", "c", "d"} {
		w.write(us, bare(key, nil, 200)) // offsets 5 to 8
	}
	w.write(us, bare("c", []byte("again"), 300)) // 9
	w.write(eu, bare("b", []byte("here"), 50))
	w.write(eu, bare("d", nil, 50))
	s := openNew(t)
	apply(t, s, w.everything()...)

	usSeen, euSeen := events.Seen{Origin: us.Origin, Next: 6}, events.Seen{Origin: eu.Origin, Next: 2}
	want := []projections.Dead{
		{Tombstone: events.Tombstone{Key: "a", Offset: 5}, Clock: events.HLCFromMillis(200), Seen: events.Context{usSeen}},
		{Tombstone: events.Tombstone{Key: "d", Offset: 8}, Clock: events.HLCFromMillis(200), Seen: events.Context{euSeen, {Origin: us.Origin, Next: 9}}},
	}
	if dead, pages := allDead(t, s, us); !reflect.DeepEqual(dead, want) || pages != 3 {
		t.Fatalf("%+v in %d pages, want %+v", dead, pages, want)
	}

	w.write(us, collection(t, events.Tombstone{Key: "a", Offset: 5}, events.Tombstone{Key: "d", Offset: 7}, events.Tombstone{Key: "e", Offset: 4}))
	w.write(us, bare("a", []byte("old"), 1))
	if done := apply(t, s, w.everything()...); done.Collected != 1 {
		t.Errorf("%+v", done)
	}
	checkShard(t, s, w, w.ends())
	if e := getOne(t, []*projections.Shard{s}, us.Stream, "a"); e.Clock != events.HLCFromMillis(1) {
		t.Errorf("%+v", e)
	}
	if page, err := s.Dead(us, "", 100); err != nil || len(page.Dead) != 1 || page.Dead[0].Key != "d" || page.Tombstones != 2 || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
	if _, err := s.Dead(events.Log{Origin: us.Origin, Stream: "nonsense"}, "", 1); events.KindOf(err) != events.KindNotFound {
		t.Error(err)
	}
}

// allDead goes through all pages of two keys.
func allDead(t tb, s *projections.Shard, log events.Log) (dead []projections.Dead, pages int) {
	t.Helper()
	for after := ""; ; {
		page, err := s.Dead(log, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		dead, pages = append(dead, page.Dead...), pages+1
		if after = page.Next; after == "" {
			return dead, pages
		}
	}
}

// A rule that does not say which event a tombstone is of keeps it.
func TestTombstonesWithoutPlaceStay(t *testing.T) {
	cfg := config(vfs.NewMem())
	cfg.Rules = map[events.Stream]merge.Rule{"config": multivalue.Rule{}}
	s := open(t, cfg)
	defer closeShard(t, s)
	w, us := world{}, logsOf(0)[0]
	w.write(us, bare("a", nil, 1))
	w.write(us, collection(t, events.Tombstone{Key: "a", Offset: 0}))
	if done := apply(t, s, w.everything()...); done.Events != 2 || done.Collected != 0 {
		t.Errorf("%+v", done)
	}
	if page, err := s.Dead(us, "", 10); err != nil || len(page.Dead) != 0 || page.Tombstones != 1 {
		t.Errorf("%+v, %v", page, err)
	}
}
