package projections

import (
	"bytes"
	"cmp"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/escape"
)

var (
	genStream = rapid.SampledFrom([]events.Stream{"a", "a-b", "a_b", "ab", "b", "session"})
	genOrigin = rapid.SampledFrom([]events.Origin{{Region: "us", Incarnation: 1}, {Region: "us", Incarnation: 2}, {Region: "us", Incarnation: 10}, {Region: "us-a", Incarnation: 1}})

	// genKey gives keys that are often each other's prefixes, and full of the
	// bytes that matter to the escape.
	genKey = rapid.Map(
		rapid.OneOf(rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 0x01, 0x02, 'a', 0xfe, 0xff}), 0, 5), rapid.SliceOf(rapid.Byte())),
		func(b []byte) string { return string(b) })
)

// The database's order is that of (stream, key), byte by byte.
func TestEntityKeysKeepTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s1, s2 := genStream.Draw(t, "stream 1"), genStream.Draw(t, "stream 2")
		k1, k2 := genKey.Draw(t, "key 1"), genKey.Draw(t, "key 2")
		want := cmp.Or(cmp.Compare(s1, s2), strings.Compare(k1, k2))
		e1, e2 := appendEntityKey(nil, s1, k1), appendEntityKey(nil, s2, k2)
		if got := bytes.Compare(e1, e2); got != want {
			t.Fatalf("%s %q against %s %q: %d, want %d", s1, k1, s2, k2, got, want)
		}
		// The slices of an entity stay together: no other entity's lie between.
		o := genOrigin.Draw(t, "origin").String()
		if got := bytes.Compare(append(e1, o...), e2); want != 0 && got != want {
			t.Fatalf("with origin: %s %q against %s %q: %d, want %d", s1, k1, s2, k2, got, want)
		}
		if want != 0 && bytes.HasPrefix(e2, e1) {
			t.Fatalf("%q is a prefix of %q", e1, e2)
		}
	})
}

func TestEntityPrefixIsThatOfKeysWithThePrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s1, s2 := genStream.Draw(t, "stream"), genStream.Draw(t, "stream of the prefix")
		key, prefix := genKey.Draw(t, "key"), genKey.Draw(t, "prefix")
		if rapid.Bool().Draw(t, "make it one") {
			prefix = key[:rapid.IntRange(0, len(key)).Draw(t, "length")]
		}
		want := s1 == s2 && strings.HasPrefix(key, prefix)
		db := appendEntityKey(nil, s1, key)
		lower := appendEntityPrefix(nil, s2, prefix)
		if got := bytes.HasPrefix(db, lower); got != want {
			t.Fatalf("%s %q begins with %s %q: %t, want %t", s1, key, s2, prefix, got, want)
		}
		if got := bytes.Compare(db, lower) >= 0 && bytes.Compare(db, escape.Past(lower)) < 0; got != want {
			t.Fatalf("%s %q is between %s %q and its end: %t, want %t", s1, key, s2, prefix, got, want)
		}
	})
}

func TestSliceKeyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream, key, origin := genStream.Draw(t, "stream"), genKey.Draw(t, "key"), genOrigin.Draw(t, "origin")
		entity := appendEntityKey(nil, stream, key)
		s, k, e, o, err := splitSliceKey(append(entity, origin.String()...))
		if err != nil || s != stream || k != key || !bytes.Equal(e, entity) || o != origin {
			t.Fatalf("%s %q of %s is read as %s %q of %s, %v", stream, key, origin, s, k, o, err)
		}
	})
}

func TestPrefixEnd(t *testing.T) {
	for _, c := range []struct{ prefix, want string }{
		{"a", "b"}, {"a\xff", "b"}, {"a\xff\xff", "b"}, {"a\x00", "a\x01"}, {"\xff\x00", "\xff\x01"}, {"\xff", ""}, {"\xff\xff", ""}, {"", ""},
	} {
		if got := escape.Past([]byte(c.prefix)); string(got) != c.want || (got == nil) != (c.want == "") {
			t.Errorf("after %q comes %q, want %q", c.prefix, got, c.want)
		}
	}
}

func TestBrokenSliceKeys(t *testing.T) {
	for _, key := range []string{
		"", "S", "Ssession", "Lus/session/0", "Ssession\x00", "Ssession\x00key", "Ssession\x00key\x00", "Ssession\x00key\x00\x01",
		"Ssession\x00key\x00\x01US", "Ssession\x00key\x00\x02us", "Ssession\x00key\x00\x00us", "Ssession\x00a\x00\x02b\x00\x01us", "Ssession\x00key\x00\x01us_1", "session\x00key\x00\x01us",
	} {
		if s, k, _, o, err := splitSliceKey([]byte(key)); err == nil {
			t.Errorf("%q is read as %s %q of %s", key, s, k, o)
		}
	}
}

func FuzzSliceKey(f *testing.F) {
	for _, key := range []string{"", "S", "Ssession\x00a\x00\xffb\x00\x01us-east-1_2", "S\x00\x00\x01a", "Ssession\x00a\x00bc\x00\x01us", "Ssession\x00key\x00\x00us"} {
		f.Add([]byte(key))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		stream, k, entity, origin, err := splitSliceKey(key)
		if err != nil {
			return
		}
		again := append(appendEntityKey(nil, stream, k), origin.String()...)
		if !bytes.Equal(again, key) || !bytes.HasPrefix(key, entity) {
			t.Errorf("%q is read as %s %q of %s, which is %q", key, stream, k, origin, again)
		}
	})
}

func TestParkedKeyRoundTripAndOrder(t *testing.T) {
	log := events.Log{Origin: events.Origin{Region: "us", Incarnation: 2}, Stream: "s", Partition: 3}
	offset := rapid.OneOf(rapid.Int64Range(0, 300), rapid.Int64Range(0, math.MaxInt64))
	rapid.Check(t, func(t *rapid.T) {
		a, b := log.At(offset.Draw(t, "a")), log.At(offset.Draw(t, "b"))
		if got, err := parseParkedKey(parkedKey(a)); err != nil || got != a {
			t.Fatalf("%s is read as %s, %v", a, got, err)
		}
		if got, want := bytes.Compare(parkedKey(a), parkedKey(b)), a.Compare(b); got != want {
			t.Fatalf("%s against %s: %d, want %d", a, b, got, want)
		}
	})
}

func FuzzParkedKey(f *testing.F) {
	f.Add(parkedKey(events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}.At(7)))
	for _, key := range []string{"", "P", "P\x00", "Pus/s/0\x00\x00\x00\x00\x00\x00\x00\x00", "Pus/s/0\x00\xff\x00\x00\x00\x00\x00\x00\x00", "Lus/s/0\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		f.Add([]byte(key))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		if p, err := parseParkedKey(key); err == nil && (!bytes.Equal(parkedKey(p), key) || p.Validate() != nil) {
			t.Errorf("%q is read as %s, which is %q", key, p, parkedKey(p))
		}
	})
}

func genLogMeta() *rapid.Generator[*logMeta] {
	return rapid.Custom(func(t *rapid.T) *logMeta {
		log := events.Log{Origin: genOrigin.Draw(t, "origin"), Stream: genStream.Draw(t, "stream"), Partition: rapid.Int32Range(0, events.MaxPartition-1).Draw(t, "partition")}
		sum := rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) digest.Sum { return digest.FromDigest(events.Digest(b)) })
		n := rapid.Int64Range(0, math.MaxInt64)
		return &logMeta{
			log: log, origin: log.Origin.String(), rule: rapid.SampledFrom([]string{"", "lww", "\x00\xff"}).Draw(t, "rule"),
			chain: sum.Draw(t, "chain"), sum: sum.Draw(t, "sum"), aside: sum.Draw(t, "aside"),
			next: n.Draw(t, "next"), keys: n.Draw(t, "keys"), bytes: n.Draw(t, "bytes"), events: n.Draw(t, "events"), parked: n.Draw(t, "parked"),
			clock: events.HLC(rapid.Uint64().Draw(t, "clock")),
		}
	})
}

func TestLogMetaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genLogMeta().Draw(t, "meta")
		text := m.encode()
		got, err := decodeLogMeta(logKey(m.log), text)
		if err != nil || got != *m {
			t.Fatalf("%+v is read as %+v, %v", m, got, err)
		}
		want := events.LogState{Log: m.log, Next: m.next, Chain: m.chain.Digest(), Digest: m.sum.Digest(), Keys: m.keys, Bytes: m.bytes, Events: m.events, Parked: m.parked}
		if m.state() != want {
			t.Fatalf("state %+v, want %+v", m.state(), want)
		}
		m.rule = ""
		text = m.encode()
		for n := range text {
			if got, err := decodeLogMeta(logKey(m.log), text[:n]); err == nil {
				t.Fatalf("%d bytes of %d are read as %+v", n, len(text), got)
			}
		}
	})
}

// What was written before the clock was kept is read as it was.
func TestLogMetaWithoutAClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genLogMeta().Draw(t, "meta")
		m.clock = 0
		text := m.encode()
		end := len(text) - len(m.rule)
		old := append(append([]byte{logMetaVersionClockless}, text[1:end-1]...), m.rule...)
		if got, err := decodeLogMeta(logKey(m.log), old); err != nil || got != *m {
			t.Fatalf("%+v is read as %+v, %v", m, got, err)
		}
	})
}

func FuzzLogMeta(f *testing.F) {
	log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
	good := (&logMeta{log: log, rule: "lww", next: 300, keys: 2, bytes: 70, events: 299, parked: 1}).encode()
	f.Add(logKey(log), good)
	f.Add(logKey(log), good[:50])
	f.Add([]byte("L"), good)
	f.Add(logKey(log), append([]byte{1}, good[1:]...))
	f.Add(logKey(log), append([]byte{logMetaVersionClockless}, good[1:]...))
	f.Add(logKey(log), append(bytes.Clone(good[:49]), 1, 0, 0, 0, 0)) // a negative offset
	f.Add(logKey(log), append(bytes.Clone(good[:49]), bytes.Repeat([]byte{0xff}, 60)...))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if len(key) == 0 || key[0] != prefixLog {
			return // the iterator's bounds see to that
		}
		m, err := decodeLogMeta(key, value)
		if err != nil {
			return
		}
		again, err := decodeLogMeta(logKey(m.log), m.encode())
		if err != nil || again != m || !bytes.Equal(logKey(m.log), key) || m.next < 0 || m.parked < 0 {
			t.Errorf("%+v is read again as %+v, %v", m, again, err)
		}
	})
}

// add and remove are inverse, and what is live is counted apart from what is
// not.
func TestLogMetaAddRemove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genLogMeta().Draw(t, "meta")
		m.keys, m.bytes = m.keys/2, m.bytes/2
		var h digest.Hasher
		key, slice := genKey.Draw(t, "key"), []byte(genKey.Draw(t, "slice"))
		hash := h.Slice(m.log.Stream, key, slice)
		was, live, dead := *m, *m, *m
		live.sum, live.keys, live.bytes = m.sum.Add(hash), m.keys+1, m.bytes+int64(len(key)+len(slice))
		dead.aside = m.aside.Add(hash)
		for isLive, want := range map[bool]logMeta{true: live, false: dead} {
			var buckets digest.Buckets
			var changes digest.Changes
			t1 := &touched{key: key, now: slice, hash: hash, live: isLive, bucket: digest.BucketOf(key)}
			if m.add(&changes, t1); *m != want {
				t.Fatalf("live %t: added to %+v gives %+v", isLive, was, m)
			}
			if n := changes.Len(); (n == 1) != isLive {
				t.Fatalf("live %t: %d buckets have changed", isLive, n)
			}
			m.remove(&changes, t1)
			if buckets.Apply(&changes); *m != was || buckets != (digest.Buckets{}) {
				t.Fatalf("live %t: removed again gives %+v, was %+v", isLive, m, was)
			}
		}
	})
}
