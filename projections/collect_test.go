package projections_test

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/appendonly"
)

func collection(t tb, tombstones ...events.Tombstone) *kgo.Record {
	t.Helper()
	return upkeep(t, events.NewCollection, tombstones)
}

func burial(t tb, slices ...events.Tombstone) *kgo.Record {
	t.Helper()
	return upkeep(t, events.NewBurial, slices)
}

func upkeep(t tb, make func([]events.Tombstone) (events.Event, error), named []events.Tombstone) *kgo.Record {
	t.Helper()
	e, err := make(named)
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Key: []byte(e.Key), Value: e.Value, Headers: ceHeaders(e.Type, "1.0")}
}

// genNextOfUpkeep gives what may come next in a log, so that there is much to bury and to collect: often a
// delete, or a burial or collection of a key's slice, of one that was replaced since or of none.
func (w world) genNextOfUpkeep(l events.Log) *rapid.Generator[*kgo.Record] {
	return rapid.Custom(func(t *rapid.T) *kgo.Record {
		what := rapid.SampledFrom([]string{"any", "delete", "collect", "bury"}).Draw(t, "what")
		parts := w.fold(l, int64(len(w[l]))).keys
		switch {
		case what == "delete":
			return bare(rapid.SampledFrom(keys[:4]).Draw(t, "key"), nil, 1)
		case what == "any" || len(parts) == 0:
			return genRecord().Draw(t, "record")
		}
		key := rapid.SampledFrom(slices.Sorted(maps.Keys(parts))).Draw(t, "named")
		named := events.Tombstone{Key: key, Offset: rapid.SampledFrom(parts[key].written).Draw(t, "event").At.Offset}
		if what == "bury" {
			return burial(t, named)
		}
		return collection(t, named)
	})
}

// Regions that have folded the same logs hold the same, whatever is buried and collected when,
// in whatever batches they fold and in whatever order logs come in.
func TestUpkeepIsAFunctionOfTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, logs := world{}, genLogs().Draw(t, "logs")[:4]
		for _, l := range logs {
			for range rapid.IntRange(0, 40).Draw(t, l.String()) {
				w.write(l, w.genNextOfUpkeep(l).Draw(t, "record"))
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

	size := len(slice{log: us, offset: 5, event: events.Event{Op: events.OpDelete}}.encode())
	usSeen, euSeen := events.Seen{Origin: us.Origin, Next: 6}, events.Seen{Origin: eu.Origin, Next: 2}
	want := []projections.Dead{
		{Tombstone: events.Tombstone{Key: "a", Offset: 5}, Bytes: size, Clock: events.HLCFromMillis(200), Seen: events.Context{usSeen}},
		{Tombstone: events.Tombstone{Key: "d", Offset: 8}, Bytes: size, Clock: events.HLCFromMillis(200), Seen: events.Context{euSeen, {Origin: us.Origin, Next: 9}}},
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
	if page, err := s.Dead(us, "", 100); err != nil || len(page.Dead) != 1 || page.Dead[0].Key != "d" || len(page.Tombstones) != 2 || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
	if _, err := s.Dead(events.Log{Origin: us.Origin, Stream: "nonsense"}, "", 1); events.KindOf(err) != events.KindNotFound {
		t.Error(err)
	}
}

// sizeOf is how many bytes a shard's slice of a key has.
func sizeOf(t tb, s *projections.Shard, log events.Log, key string) int {
	t.Helper()
	e, err := projections.EntityOf([]*projections.Shard{s}, log.Stream, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range e.Slices {
		if part.Log == log {
			return len(part.Data)
		}
	}
	return 0
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

// What others hide is told with what there is to know before it is buried; buried, it is a tombstone of the
// burial, and what came in between is left alone.
func TestDeadThatOthersHide(t *testing.T) {
	w := world{}
	us, former, eu := logsOf(0)[0], logsOf(0)[4], logsOf(0)[6]
	w.write(former, bare("old", []byte("v"), 100))
	for _, key := range []string{"gone", "here", "new", "old"} {
		w.write(us, bare(key, []byte("value"), 200)) // offsets 0 to 3
	}
	for _, key := range []string{"gone", "new", "old"} {
		w.write(eu, bare(key, nil, 300))
	}
	w.write(eu, bare("here", nil, 100))
	s := openNew(t)
	apply(t, s, w.everything()...)
	size := len(slice{log: us, offset: 1, event: events.Event{Value: []byte("value")}}.encode())
	hidden := func(key string, offset int64, seen ...events.Seen) projections.Dead {
		return projections.Dead{Tombstone: events.Tombstone{Key: key, Offset: offset}, Holds: true, Bytes: size, Clock: events.HLCFromMillis(300), Seen: seen}
	}
	seen := func(l events.Log, next int64) events.Seen { return events.Seen{Origin: l.Origin, Next: next} }
	want := []projections.Dead{
		hidden("gone", 0, seen(eu, 1), seen(us, 1)), hidden("new", 2, seen(eu, 2), seen(us, 3)),
		hidden("old", 3, seen(eu, 3), seen(us, 4), seen(former, 1)),
	}
	if dead, _ := allDead(t, s, us); !reflect.DeepEqual(dead, want) {
		t.Fatalf("%+v, want %+v", dead, want)
	}
	hides := []projections.Tombstone{{"gone", []events.Origin{us.Origin}}, {"here", nil}, {"new", []events.Origin{us.Origin}}, {"old", []events.Origin{us.Origin, former.Origin}}}
	if page, err := s.Dead(eu, "", 100); err != nil || len(page.Dead) > 0 || !reflect.DeepEqual(page.Tombstones, hides) {
		t.Fatalf("%+v, %v", page, err)
	}

	w.write(us, bare("new", []byte("newer"), 400)) // 4
	w.write(us, burial(t, events.Tombstone{Key: "gone", Offset: 0}, events.Tombstone{Key: "new", Offset: 2}, events.Tombstone{Key: "none"}))
	if done := apply(t, s, w.everything()...); done.Buried != 1 || done.Collected != 0 {
		t.Errorf("%+v", done)
	}
	checkShard(t, s, w, w.ends())
	if e := getOne(t, []*projections.Shard{s}, us.Stream, "new"); string(e.Value) != "newer" {
		t.Errorf("%+v", e)
	}
	page, err := s.Dead(us, "", 1)
	tombstone := len(slice{log: us, offset: 5, event: events.Event{Op: events.OpDelete, Type: events.TypeBury}}.encode())
	dead := projections.Dead{Tombstone: events.Tombstone{Key: "gone", Offset: 5}, Bytes: tombstone, Clock: events.HLCFromMillis(300), Seen: events.Context{seen(eu, 1), seen(us, 6)}}
	if err != nil || !reflect.DeepEqual(page.Dead, []projections.Dead{dead}) || len(page.Tombstones) != 1 {
		t.Errorf("%+v, %v, want %+v", page, err, dead)
	}
	w.write(us, collection(t, events.Tombstone{Key: "gone", Offset: 0}, events.Tombstone{Key: "gone", Offset: 5}))
	w.write(eu, collection(t, events.Tombstone{Key: "gone", Offset: 0}))
	if done := apply(t, s, w.everything()...); done.Collected != 2 {
		t.Errorf("%+v", done)
	}
	checkShard(t, s, w, w.ends())
}

// A value of which nothing is hidden is not told of, nor is one that is counted only; and to bury such takes it away from all
// readers alike, under every rule that can bury, but never makes a log wait.
func TestBuryingWhatIsSeen(t *testing.T) {
	for stream, rule := range ruleOf {
		t.Run(rule.Name(), func(t *testing.T) {
			us, eu := events.Log{Origin: regions[0], Stream: stream}, events.Log{Origin: regions[3], Stream: stream}
			w := world{}
			json := kgo.RecordHeader{Key: "content-type", Value: []byte("application/json")}
			put := func(l events.Log, value string) {
				headers := slices.DeleteFunc(ceHeaders(events.TypePut, "5.0"), func(h kgo.RecordHeader) bool { return h.Key == json.Key })
				w.write(l, &kgo.Record{Key: []byte("a"), Value: []byte(value), Headers: append(headers, json)})
			}
			put(us, `{"f":1}`)
			put(us, `{"f":2}`)
			put(eu, `{"g":1}`)
			put(eu, `{"g":2}`)
			s := openNew(t)
			apply(t, s, w.everything()...)
			for _, l := range []events.Log{us, eu} {
				if page, err := s.Dead(l, "", 10); err != nil || len(page.Dead) > 0 && getOne(t, []*projections.Shard{s}, stream, "a").Exists {
					t.Errorf("%s: %+v, %v", l, page, err)
				}
			}
			buried := 0
			for _, l := range []events.Log{us, eu} {
				w.write(l, burial(t, events.Tombstone{Key: "a", Offset: 1}))
				buried += apply(t, s, w.from(l, 2, 1)).Buried
			}
			counts := rule == merge.Rule(appendonly.Rule{})
			if seen := getOne(t, []*projections.Shard{s}, stream, "a"); counts != (buried == 0) || !counts && (buried != 2 || seen.Exists) {
				t.Errorf("%d were buried, and it is %+v", buried, seen)
			}
			checkShard(t, s, w, w.ends())
		})
	}
}

// A page ends, whatever it holds, when enough of the state was read for it.
func TestPagesOfDeadAreBounded(t *testing.T) {
	w := world{}
	us, eu := logsOf(0)[0], logsOf(0)[6]
	large := make([]byte, 6<<20)
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		w.write(us, bare(key, large, 100))
		w.write(eu, bare(key, nil, 200))
	}
	s := openNew(t)
	for _, l := range []events.Log{us, eu} {
		apply(t, s, w.from(l, 0, len(w[l])))
	}
	page, err := s.Dead(us, "", 1000)
	if err != nil || len(page.Dead) != 3 || page.Next != "c" {
		t.Errorf("%d, then %q, %v", len(page.Dead), page.Next, err)
	}
	if page, err = s.Dead(us, page.Next, 1000); err != nil || len(page.Dead) != 3 {
		t.Errorf("%d, then %q, %v", len(page.Dead), page.Next, err)
	}
}

// Tombstones of multivalue are told and collected like any other.
func TestTombstonesOfValues(t *testing.T) {
	w := world{}
	us, eu := events.Log{Origin: regions[0], Stream: "values"}, events.Log{Origin: regions[3], Stream: "values"}
	w.write(us, bare("a", []byte("v"), 1))
	w.write(us, bare("b", []byte("v"), 1))
	delete := &kgo.Record{Key: []byte("a"), Headers: append(ceHeaders(events.TypeDelete, "2.0"), kgo.RecordHeader{Key: "ce_deps", Value: []byte(us.Origin.String() + "@1")})}
	w.write(eu, delete)
	w.write(eu, bare("b", nil, 9)) // which has not seen it
	w.write(us, burial(t, events.Tombstone{Key: "a", Offset: 0}))
	s := openNew(t)
	apply(t, s, w.everything()...)
	seen := events.Context{{Origin: eu.Origin, Next: 1}, {Origin: us.Origin, Next: 3}}
	for l, offset := range map[events.Log]int64{us: 2, eu: 0} {
		page, err := s.Dead(l, "", 10)
		want := []projections.Dead{{Tombstone: events.Tombstone{Key: "a", Offset: offset}, Bytes: sizeOf(t, s, l, "a"), Seen: seen}}
		if err != nil || !reflect.DeepEqual(page.Dead, want) {
			t.Errorf("%s: %+v, %v, want %+v", l, page, err, want)
		}
		w.write(l, collection(t, page.Dead[0].Tombstone))
	}
	if done := apply(t, s, w.everything()...); done.Collected != 2 {
		t.Errorf("%+v", done)
	}
	checkShard(t, s, w, w.ends())
	w.write(us, bare("a", []byte("again"), 1))
	apply(t, s, w.everything()...)
	if e := getOne(t, []*projections.Shard{s}, "values", "a"); string(e.Value) != "again" || e.Siblings != nil {
		t.Errorf("%+v", e)
	}
}
