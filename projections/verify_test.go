package projections_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// behindItsBack changes a closed shard's database directly.
func behindItsBack(t *testing.T, fs vfs.FS, do func(db *pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(db), db.Close()); err != nil {
		t.Fatal(err)
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

func get(t tb, db *pebble.DB, key []byte) []byte {
	t.Helper()
	value, closer, err := db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	return append([]byte(nil), value...)
}

func TestVerifyFindsDrift(t *testing.T) {
	w := world{}
	us, eu := logsOf(0)[1], logsOf(0)[7]
	for _, l := range []events.Log{us, eu} {
		w.write(l, bare("a", []byte("value"), 1))
		w.write(l, bare("gone", []byte("value"), 1))
		w.write(l, bare("gone", nil, 1))
		w.write(l, bare("", nil, 1)) // parked
	}
	live, dead := sliceKey("session", "a", "us"), sliceKey("session", "gone", "us")
	logRecord := []byte("Lus/session/0")
	parked := []byte("Pus/session/0\x00\x00\x00\x00\x00\x00\x00\x00\x03")
	for name, c := range map[string]struct {
		do   func(db *pebble.DB) error
		log  events.Log
		want string // of the error
	}{
		"a changed value": {func(db *pebble.DB) error {
			value := get(t, db, live)
			value[len(value)-1] ^= 1
			return db.Set(live, value, pebble.Sync)
		}, us, "over 1 keys and 19 bytes, and 1 parked records, are recorded"},
		"a changed clock": {func(db *pebble.DB) error {
			value := get(t, db, live)
			value[9] ^= 1
			return db.Set(live, value, pebble.Sync)
		}, us, "digest"},
		"a slice less":      {func(db *pebble.DB) error { return db.Delete(live, pebble.Sync) }, us, "over 0 keys and 0 bytes, and 1, are there"},
		"a slice more":      {func(db *pebble.DB) error { return db.Set(sliceKey("session", "b", "us"), smallSlice(0), pebble.Sync) }, us, "over 2 keys"},
		"a swapped origin":  {func(db *pebble.DB) error { return db.Set(live, smallSlice(0), pebble.Sync) }, us, "digest"},
		"a tombstone less":  {func(db *pebble.DB) error { return db.Delete(dead, pebble.Sync) }, us, "tombstones or parked records differ"},
		"a tombstone more":  {func(db *pebble.DB) error { return db.Set(sliceKey("session", "b", "us"), smallSlice(1), pebble.Sync) }, us, "tombstones or parked records differ"},
		"a risen tombstone": {func(db *pebble.DB) error { return db.Set(dead, smallSlice(0), pebble.Sync) }, us, "over 2 keys"},
		"a buried slice":    {func(db *pebble.DB) error { return db.Set(live, smallSlice(1), pebble.Sync) }, us, "over 0 keys"},
		"an emptied slice":  {func(db *pebble.DB) error { return db.Set(live, nil, pebble.Sync) }, us, "over 0 keys"},
		"a clipped slice":   {func(db *pebble.DB) error { return db.Set(live, []byte{1}, pebble.Sync) }, us, "over 0 keys"},
		"a parked less":     {func(db *pebble.DB) error { return db.Delete(parked, pebble.Sync) }, us, "and 0, are there"},
		"a changed parked":  {func(db *pebble.DB) error { return db.Set(parked, []byte("{}"), pebble.Sync) }, us, "tombstones or parked records differ"},
		"wrong counts": {func(db *pebble.DB) error {
			value := get(t, db, logRecord)
			value[50] += 2 // one more of the keys, after a byte of version, three sums and a byte of next
			return db.Set(logRecord, value, pebble.Sync)
		}, us, "and 1 parked records, are recorded"},
		"an unknown log": {func(db *pebble.DB) error {
			return db.Set(sliceKey("session", "a", "nobody"), smallSlice(0), pebble.Sync)
		}, events.Log{Origin: events.FirstOrigin("nobody"), Stream: "session"}, "nobody/session/0 at offset 0"},
		"a changed bucket": {func(db *pebble.DB) error {
			entry := slices.Concat([]byte("B"), []byte(us.String()), make([]byte, 9))
			value := get(t, db, entry)
			value[5] ^= 1
			return db.Set(entry, value, pebble.Sync)
		}, us, "1 of 1024 digest buckets differ"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			s := open(t, config(fs))
			apply(t, s, w.everything()...)
			if _, err := s.Verify(); err != nil {
				t.Fatal(err)
			}
			closeShard(t, s)
			behindItsBack(t, fs, c.do)
			s = open(t, config(fs))
			defer func() { closeShard(t, s) }()
			_, err := s.Verify()
			drift := wantAs[*projections.DriftError](t, err)
			if drift == nil {
				return
			}
			if drift.Stored.Log != c.log || drift.Found.Log != c.log || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q of %s", err, c.want, c.log)
			}
			if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) != 1 {
				t.Errorf("%d logs differ: %v", len(all.Unwrap()), err)
			}
		})
	}
}

// A log of which only slices and buckets are left is not begun anew on top of
// them.
func TestForgottenLogIsRefused(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.everything()...)
	closeShard(t, s)
	l := logsOf(0)[0]
	behindItsBack(t, fs, func(db *pebble.DB) error { return db.Delete([]byte("L"+l.String()), pebble.Sync) })
	if s, err := projections.Open(config(fs)); err == nil {
		closeShard(t, s)
		t.Error("it was opened")
	} else if !strings.Contains(err.Error(), "digest buckets of "+l.String()+", of which nothing else is there") {
		t.Error(err)
	}
}

// What cannot be counted is an error, and not a log that is fine.
func TestVerifyRefuses(t *testing.T) {
	for name, key := range map[string]string{
		"a slice's key without an origin": string(sliceKey("session", "a", "")),
		"a slice's key that is cut short": "Ssession\x00a\x00",
		"a wrong escape":                  "Ssession\x00a\x00\x02us",
		"a parked record without a log":   "P\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"a parked record of no offset":    "Pus/session/0\x00",
		"a negative offset":               "Pus/session/0\x00\xff\xff\xff\xff\xff\xff\xff\xff",
		"a key of no kind":                "Zz",
		"a stream without a rule":         string(sliceKey("nobodys", "a", "us")),
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			closeShard(t, open(t, config(fs)))
			behindItsBack(t, fs, func(db *pebble.DB) error { return db.Set([]byte(key), smallSlice(0), pebble.Sync) })
			s := open(t, config(fs))
			defer closeShard(t, s)
			if _, err := s.Verify(); err == nil {
				t.Error("nothing was noticed")
			}
		})
	}
}

// A slice that is corrupt stops the Apply that would build on it, and only it.
func TestCorruptSliceStopsApply(t *testing.T) {
	w, fs := world{}, vfs.NewMem()
	us, eu := logsOf(0)[1], logsOf(0)[7]
	w.write(us, bare("a", []byte("v"), 1))
	w.write(us, bare("b", []byte("v"), 1))
	s := open(t, config(fs))
	apply(t, s, w.everything()...)
	closeShard(t, s)
	for name, slice := range map[string][]byte{"empty": {}, "cut short": {1, 0, 0}, "of another version": append([]byte{9}, smallSlice(0)[1:]...)} {
		t.Run(name, func(t *testing.T) {
			behindItsBack(t, fs, func(db *pebble.DB) error { return db.Set(sliceKey("session", "a", "us"), slice, pebble.Sync) })
			s := open(t, config(fs))
			defer closeShard(t, s)
			next := bare("a", []byte("w"), 1)
			next.Offset = 2
			other := bare("a", []byte("w"), 1)
			_, err := s.Apply([]projections.Run{{Log: eu, Records: []*kgo.Record{other}}, {Log: us, Records: []*kgo.Record{next}}})
			const want = "slice in state, of us/session/0: no lww slice of version 1"
			if err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
			if s.Next(us) != 2 || s.Next(eu) != 0 || len(s.Logs()) != 1 {
				t.Errorf("went on: %+v", s.Logs())
			}
			if _, err := projections.Get([]*projections.Shard{s}, "session", "a"); err == nil {
				t.Error("Get shows a corrupt slice")
			}
			if e := getOne(t, []*projections.Shard{s}, "session", "b"); !e.Exists {
				t.Error("the slice beside it is gone")
			}
		})
	}
}
