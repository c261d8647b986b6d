package digest_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/projections/digest"
)

// Whatever of a record changes, and wherever a byte moves from one of its parts
// to another, the chain is another.
func TestChainSeesEverything(t *testing.T) {
	header := func(k, v string) kgo.RecordHeader { return kgo.RecordHeader{Key: k, Value: []byte(v)} }
	at := time.UnixMilli(1000)
	records := []*kgo.Record{
		{Timestamp: at, Key: []byte("ab"), Value: []byte("c")},
		{Timestamp: at, Key: []byte("a"), Value: []byte("bc")},
		{Timestamp: at, Key: []byte("ab"), Value: []byte{}},
		{Timestamp: at, Key: []byte("ab")},
		{Timestamp: at, Value: []byte("ab")},
		{Timestamp: at.Add(time.Millisecond), Key: []byte("ab"), Value: []byte("c")},
		{Timestamp: at, Offset: 1, Key: []byte("ab"), Value: []byte("c")},
		{Timestamp: at, Key: []byte("ab"), Value: []byte("c"), Headers: []kgo.RecordHeader{header("h", "v")}},
		{Timestamp: at, Key: []byte("ab"), Value: []byte("c"), Headers: []kgo.RecordHeader{header("hv", "")}},
		{Timestamp: at, Key: []byte("ab"), Value: []byte("c"), Headers: []kgo.RecordHeader{{Key: "h"}}},
		{Timestamp: at, Key: []byte("ab"), Value: []byte("c"), Headers: []kgo.RecordHeader{header("h", "v"), header("h", "v")}},
	}
	var h digest.Hasher
	seen := map[digest.Sum]int{}
	for i, r := range records {
		sum := h.Chain(digest.Sum{}, r)
		if j, ok := seen[sum]; ok {
			t.Errorf("records %d and %d have the same chain", i, j)
		}
		seen[sum] = i
		if again := new(digest.Hasher).Chain(digest.Sum{}, r); again != sum {
			t.Errorf("record %d: %v and %v", i, sum.Digest(), again.Digest())
		}
	}
}

// Two records in another order, one left out, one twice: another chain.
func TestChainSeesOrder(t *testing.T) {
	var h digest.Hasher
	chain := func(offsets ...int64) (sum digest.Sum) {
		for _, o := range offsets {
			sum = h.Chain(sum, &kgo.Record{Offset: o, Key: []byte("k")})
		}
		return sum
	}
	want := chain(0, 1, 2)
	for _, other := range [][]int64{{0, 2, 1}, {0, 2}, {0, 1, 1, 2}, {0, 1}, {}} {
		if chain(other...) == want {
			t.Errorf("offsets %v have the chain of 0, 1, 2", other)
		}
	}
}

func TestBucketsReadWhatTheyWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var have, read digest.Buckets
		var h digest.Hasher
		var changes digest.Changes
		for range rapid.IntRange(1, 5).Draw(t, "batches") {
			for range rapid.IntRange(0, 30).Draw(t, "changes") {
				key := rapid.StringN(1, 3, 4).Draw(t, "key")
				hash := h.Slice("s", key, nil)
				if rapid.Bool().Draw(t, "remove") {
					changes.Remove(digest.BucketOf(key), hash, int64(len(key)))
				} else {
					changes.Add(digest.BucketOf(key), hash, int64(len(key)))
				}
			}
			text := have.AppendChanged(nil, &changes)
			all := have.AppendAll(nil, &changes)
			have.Apply(&changes)
			if err := read.Read(text); err != nil || read != have {
				t.Fatalf("read %v, buckets %v differ", err, read.Differing(&have))
			}
			var anew digest.Buckets
			if err := anew.Read(all); err != nil || anew != have {
				t.Fatalf("read %v, buckets %v differ", err, anew.Differing(&have))
			}
			if changes.Reset(); changes.Len() != 0 || changes != (digest.Changes{}) {
				t.Fatal("changes are left")
			}
		}
	})
}

func FuzzBucketsRead(f *testing.F) {
	f.Add([]byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		var b, c digest.Buckets
		if b.Read(data) == nil {
			if err := c.Read(b.AppendAll(nil, &digest.Changes{})); err != nil {
				t.Error(err)
			}
		}
	})
}
