package digest_test

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
)

func genDigest() *rapid.Generator[events.Digest] {
	edge := rapid.SampledFrom([]events.Digest{{}, {15: 1}, {7: 1}, {8: 0x80}, {0: 0x80},
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		{8: 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}})
	all := rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) events.Digest { return events.Digest(b) })
	return rapid.OneOf(edge, all)
}

func genSum() *rapid.Generator[digest.Sum] { return rapid.Map(genDigest(), digest.FromDigest) }

func TestSumsAreAGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genSum().Draw(t, "a"), genSum().Draw(t, "b"), genSum().Draw(t, "c")
		var zero digest.Sum
		for name, ok := range map[string]bool{
			"associative": a.Add(b).Add(c) == a.Add(b.Add(c)),
			"commutative": a.Add(b) == b.Add(a),
			"neutral":     a.Add(zero) == a && a.Sub(zero) == a,
			"inverse":     a.Add(b).Sub(b) == a && a.Sub(b).Add(b) == a && a.Sub(a) == zero,
		} {
			if !ok {
				t.Fatalf("not %s: %v, %v, %v", name, a.Digest(), b.Digest(), c.Digest())
			}
		}
	})
}

// The sum is that of 128-bit numbers, big-endian, carried over.
func TestSumIsModulo2To128(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 128)
	rapid.Check(t, func(t *rapid.T) {
		a, b := genDigest().Draw(t, "a"), genDigest().Draw(t, "b")
		x, y := new(big.Int).SetBytes(a[:]), new(big.Int).SetBytes(b[:])
		sum := new(big.Int).Mod(new(big.Int).Add(x, y), modulus)
		difference := new(big.Int).Mod(new(big.Int).Sub(x, y), modulus)
		var want [2]events.Digest
		sum.FillBytes(want[0][:])
		difference.FillBytes(want[1][:])
		got := [2]events.Digest{digest.FromDigest(a).Add(digest.FromDigest(b)).Digest(), digest.FromDigest(a).Sub(digest.FromDigest(b)).Digest()}
		if got != want {
			t.Fatalf("%s and %s: sum and difference %s, want %s", a, b, got, want)
		}
	})
}

func TestDigestIsInverseOfFromDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := genDigest().Draw(t, "digest")
		if got := digest.FromDigest(d).Digest(); got != d {
			t.Fatalf("%s comes back as %s", d, got)
		}
	})
	if (digest.Sum{}).Digest() != (events.Digest{}) {
		t.Error("the zero sum is not the zero digest")
	}
}

type entry struct {
	stream     events.Stream
	key, slice string
}

func genEntry() *rapid.Generator[entry] {
	text := rapid.StringMatching("[ab]{0,3}")
	return rapid.Custom(func(t *rapid.T) entry {
		return entry{events.Stream(text.Draw(t, "stream")), text.Draw(t, "key"), text.Draw(t, "slice")}
	})
}

// Two entries hash alike only if they are the same: moving a byte from one part
// to the next is noticed.
func TestHashKeepsPartsApart(t *testing.T) {
	seen := map[digest.Sum]entry{}
	rapid.Check(t, func(t *rapid.T) {
		var h digest.Hasher
		e := genEntry().Draw(t, "entry")
		sum := h.Slice(e.stream, e.key, []byte(e.slice))
		if other, ok := seen[sum]; ok && other != e {
			t.Fatalf("%+v and %+v hash alike", e, other)
		}
		seen[sum] = e
	})
	var h digest.Hasher
	long := string(make([]byte, 300))
	all := []entry{
		{"", "", ""}, {"a", "", ""}, {"", "a", ""}, {"", "", "a"}, {"ab", "", "c"}, {"a", "b", "c"}, {"a", "", "bc"}, {"", "ab", "c"}, {"", "abc", ""},
		{"", "\x00", ""}, {"", "", "\x00"}, {"", "\x01", ""}, {"\x01", "", ""}, {"", long, ""}, {"", long[1:], "\x00"}, {"", "", long}, {events.Stream(long), "", ""},
	}
	hashed := map[digest.Sum]entry{}
	for _, e := range all {
		sum := h.Slice(e.stream, e.key, []byte(e.slice))
		if other, ok := hashed[sum]; ok {
			t.Errorf("%+v and %+v hash alike", e, other)
		}
		hashed[sum] = e
		if again := h.Slice(e.stream, e.key, []byte(e.slice)); again != sum {
			t.Errorf("%+v hashes to two sums", e)
		}
	}
}

// The digest of a set depends on what is in it, and not on the way there.
func TestDigestDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfNDistinct(genEntry(), 0, 12, rapid.ID).Draw(t, "entries")
		keep := rapid.IntRange(0, len(entries)).Draw(t, "kept")
		var h digest.Hasher
		var straight, roundabout digest.Sum
		for _, e := range entries[:keep] {
			straight = straight.Add(h.Slice(e.stream, e.key, []byte(e.slice)))
		}
		for _, e := range rapid.Permutation(entries).Draw(t, "order") {
			roundabout = roundabout.Add(h.Slice(e.stream, e.key, []byte(e.slice)))
		}
		for _, e := range entries[keep:] {
			roundabout = roundabout.Sub(h.Slice(e.stream, e.key, []byte(e.slice)))
		}
		if straight != roundabout {
			t.Fatalf("%s and %s", straight.Digest(), roundabout.Digest())
		}
	})
}

func TestTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digests := rapid.SliceOf(genDigest()).Draw(t, "digests")
		var states []events.LogState
		var want digest.Sum
		for _, d := range digests {
			states = append(states, events.LogState{Digest: d})
			want = want.Add(digest.FromDigest(d))
		}
		if got := digest.Total(states); got != want.Digest() {
			t.Fatalf("total %s, want %s", got, want.Digest())
		}
	})
}

// The hash is part of what regions must agree on: it never changes.
func TestHashIsPinned(t *testing.T) {
	var h digest.Hasher
	if got := h.Slice("session", "s-1", []byte("slice")).Digest().String(); got != "0ea666f0a50f46c36c4c1bc74a22346a" {
		t.Errorf("digest %s", got)
	}
}

// Changes that were made apart and merged are those made together.
func TestChangesMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var together, a, b digest.Changes
		var h digest.Hasher
		for range rapid.IntRange(0, 50).Draw(t, "changes") {
			key := rapid.StringN(1, 3, -1).Draw(t, "key")
			hash, bucket, bytes := h.Slice("s", key, nil), digest.BucketOf(key), int64(rapid.IntRange(0, 100).Draw(t, "bytes"))
			part := rapid.SampledFrom([]*digest.Changes{&a, &b}).Draw(t, "part")
			for _, c := range []*digest.Changes{&together, part} {
				if bytes%2 == 0 {
					c.Add(bucket, hash, bytes)
				} else {
					c.Remove(bucket, hash, bytes)
				}
			}
		}
		a.Merge(&b)
		var want, got digest.Buckets
		want.Apply(&together)
		got.Apply(&a)
		if got != want || a.Len() != together.Len() {
			t.Errorf("%d buckets differ; %d and %d were changed", len(got.Differing(&want)), a.Len(), together.Len())
		}
	})
}
