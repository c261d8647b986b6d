package projections_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// openAll opens a shard of each partition and feeds it the world's logs.
func openAll(t tb, w world, partitions int32) (shards []*projections.Shard) {
	t.Helper()
	for p := range partitions {
		cfg := config(vfs.NewMem())
		cfg.Partition = p
		s := open(t, cfg)
		t.Cleanup(func() { closeShard(t, s) })
		for _, run := range w.everything() {
			if run.Log.Partition == p {
				apply(t, s, run)
			}
		}
		shards = append(shards, s)
	}
	return shards
}

// genBytes gives short texts of few bytes, so that they are often each other's
// prefixes.
func genBytes(most int) *rapid.Generator[string] {
	b := rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 0x01, 'a', 'b', 0xfe, 0xff}), 0, most)
	return rapid.Map(b, func(b []byte) string { return string(b) })
}

// One key may be in several partitions, of one origin or of several; readers see
// one key.
func TestScanIsASortedMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const partitions = 3
		w := world{}
		var logs []events.Log
		for p := range int32(partitions) {
			logs = append(logs, logsOf(p)...)
		}
		for range rapid.IntRange(0, 30).Draw(t, "records") {
			w.write(rapid.SampledFrom(logs).Draw(t, "log"), genRecord().Draw(t, "record"))
		}
		shards := openAll(t, w, partitions)
		slices.Reverse(shards) // their order must not matter
		texts := rapid.OneOf(rapid.Just(""), rapid.SampledFrom(keys), genBytes(3))
		for _, stream := range streams {
			all := w.entries(stream, w.ends())
			prefix, after := texts.Draw(t, "prefix"), texts.Draw(t, "after")
			var want []projections.Entry
			for _, e := range all {
				if strings.HasPrefix(e.Key, prefix) && (after == "" || e.Key > after) {
					want = append(want, e)
				}
			}
			if got := scanAll(t, shards, stream, prefix, after); !reflect.DeepEqual(got, want) {
				t.Fatalf("stream %s, prefix %q, after %q:\n%+v, want\n%+v", stream, prefix, after, got, want)
			}
			for _, key := range append(keys, texts.Draw(t, "key")) {
				e := getOne(t, shards, stream, key)
				i := slices.IndexFunc(all, func(e projections.Entry) bool { return e.Key == key })
				if e.Exists != (i >= 0) || i >= 0 && !reflect.DeepEqual(e, all[i]) {
					t.Fatalf("stream %s, key %q: %+v", stream, key, e)
				}
			}
		}
	})
}

func TestScanTable(t *testing.T) {
	w := world{}
	here, there := logsOf(0)[1], events.Log{Origin: logsOf(1)[7].Origin, Stream: "session", Partition: 1}
	for i, key := range []string{"a", "a\x00", "a\x00b", "ab", "b", "\xff", "\xff\xff"} {
		w.write(here, bare(key, []byte{byte(i)}, 5))
	}
	w.write(there, bare("a", []byte("newer"), 6))
	w.write(there, bare("ab", []byte("older"), 4))
	w.write(there, bare("b", nil, 6)) // deleted, later than it was put
	w.write(there, bare("c", []byte(""), 1))
	shards := openAll(t, w, 2)
	for _, c := range []struct {
		name, prefix, after string
		want                []string
	}{
		{"all", "", "", []string{"a", "a\x00", "a\x00b", "ab", "c", "\xff", "\xff\xff"}},
		{"prefix", "a", "", []string{"a", "a\x00", "a\x00b", "ab"}},
		{"prefix with a zero byte", "a\x00", "", []string{"a\x00", "a\x00b"}},
		{"prefix that is no key", "a\x00b", "", []string{"a\x00b"}},
		{"prefix of nothing", "aa", "", nil},
		{"prefix of the last byte", "\xff", "", []string{"\xff", "\xff\xff"}},
		{"after", "", "a", []string{"a\x00", "a\x00b", "ab", "c", "\xff", "\xff\xff"}},
		{"after a key that is not there", "", "aa", []string{"ab", "c", "\xff", "\xff\xff"}},
		{"after a deleted key", "", "b", []string{"c", "\xff", "\xff\xff"}},
		{"after a zero byte", "", "a\x00", []string{"a\x00b", "ab", "c", "\xff", "\xff\xff"}},
		{"after the last", "", "\xff\xff", nil},
		{"prefix, after within", "a", "a\x00", []string{"a\x00b", "ab"}},
		{"prefix, after before it", "b", "a", nil},
		{"prefix, after past it", "a", "b", nil},
		{"prefix, after is it", "a\x00", "a\x00", []string{"a\x00b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, e := range scanAll(t, shards, "session", c.prefix, c.after) {
				got = append(got, e.Key)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	for key, want := range map[string]string{"a": "newer", "ab": "\x03", "c": ""} {
		if e := getOne(t, shards, "session", key); !e.Exists || string(e.Value) != want || e.Value == nil {
			t.Errorf("key %q: %+v", key, e)
		}
	}
	if e := getOne(t, shards, "session", "b"); e.Exists || e.Value != nil {
		t.Errorf("a deleted key: %+v", e)
	}
	if got := scanAll(t, shards, "config", "", ""); got != nil {
		t.Errorf("another stream has %+v", got)
	}
	if got := scanAll(t, nil, "config", "", ""); got != nil {
		t.Errorf("no shards have %+v", got)
	}
}

// A reader that has enough leaves nothing open: closeShard, which comes after,
// would find it.
func TestReadersLeaveNothingOpen(t *testing.T) {
	w := smallWorld(0)
	shards := openAll(t, w, 1)
	for range projections.Scan(shards, "session", "", "") {
		break
	}
	func() {
		defer func() { _ = recover() }()
		for range projections.Scan(shards, "session", "", "") {
			panic("the reader breaks down")
		}
	}()
	for range projections.Scan(shards, "session", "", "") {
	}
	if e := getOne(t, shards, "session", "a"); !e.Exists {
		t.Error("a is gone")
	}
}

// Each shard is read as it was when the scan began.
func TestScanIsStable(t *testing.T) {
	w := smallWorld(0)
	shards := openAll(t, w, 1)
	want := w.entries("session", w.ends())
	l := logsOf(0)[1]
	var got []projections.Entry
	for e, err := range projections.Scan(shards, "session", "", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
		for i, key := range keys {
			r := bare(key, fmt.Append(nil, i), 1000+int64(len(got)))
			w.write(l, r)
			apply(t, shards[0], projections.Run{Log: l, Records: []*kgo.Record{r}})
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the scan saw what came later: %+v", got)
	}
	checkShard(t, shards[0], w, w.ends())
}

func TestScanOfAStreamWithoutRule(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.everything()...)
	closeShard(t, s)
	cfg := config(fs)
	delete(cfg.Rules, "session")
	s = open(t, cfg)
	_, err := projections.Get([]*projections.Shard{s}, "session", "a")
	wantKind(t, err, events.KindNotFound)
	if getOne(t, []*projections.Shard{s}, "config", "a").Key != "a" {
		t.Error("the other stream cannot be read")
	}
	closeShard(t, s)
	// Its logs say by which rule it was folded, so that it is proved like any other.
	verified := func() error {
		t.Helper()
		s := open(t, cfg)
		defer closeShard(t, s)
		states, err := s.Verify()
		if err == nil && !reflect.DeepEqual(states, s.Logs()) {
			t.Errorf("verified %+v, want %+v", states, s.Logs())
		}
		return err
	}
	if err := verified(); err != nil {
		t.Error(err)
	}
	slice := sliceKey("session", "a", "us")
	behindItsBack(t, fs, func(db *pebble.DB) error {
		value := get(t, db, slice)
		value[len(value)-1] ^= 1
		return db.Set(slice, value, pebble.Sync)
	})
	var drift *projections.DriftError
	if err := verified(); !errors.As(err, &drift) || drift.Stored.Log.Stream != "session" {
		t.Errorf("a changed value: %v", err)
	}
	// Without any log nobody knows.
	behindItsBack(t, fs, func(db *pebble.DB) error { return db.Set(sliceKey("secrets", "a", "us"), smallSlice(0), pebble.Sync) })
	wantKind(t, verified(), events.KindRefused)
}

// Asked for by name, keys have the same slices as by themselves; those that are not there are left out.
func TestEntitiesOf(t *testing.T) {
	w := smallWorld(0)
	for log, records := range smallWorld(1) {
		w[log] = records
	}
	shards := openAll(t, w, 2)
	asked := slices.Concat(keys, []string{"absent", "zz"})
	slices.Sort(asked)
	var want, got []projections.Entity
	for _, key := range asked {
		e, err := projections.EntityOf(shards, "session", key)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Slices) > 0 {
			want = append(want, e)
		}
	}
	for e, err := range projections.EntitiesOf(shards, "session", asked) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if len(want) != len(keys) || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for e, err := range projections.EntitiesOf(shards, "session", asked) {
		if err != nil || e.Key != want[0].Key {
			t.Fatalf("%+v, %v", e, err)
		}
		break // and nothing is left open
	}
}
