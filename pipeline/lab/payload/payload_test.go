package payload_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
)

func TestRecordsAreExactAndRepeatable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, size := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(100, 12_000).Draw(t, "size")
		a, b := payload.New(seed), payload.New(seed)
		for range 3 {
			r, again := a.Record(size), b.Record(size)
			if len(r.Key)+len(r.Value) != size {
				t.Fatalf("key of %d and value of %d bytes, want %d together", len(r.Key), len(r.Value), size)
			}
			if !json.Valid(r.Value) {
				t.Fatalf("no JSON: %s", r.Value)
			}
			if !bytes.Equal(r.Value, again.Value) || !bytes.Equal(r.Key, again.Key) {
				t.Fatalf("the same seed made %s and %s", r.Value, again.Value)
			}
		}
	})
	if r, other := payload.New(1).Record(300), payload.New(2).Record(300); bytes.Equal(r.Value, other.Value) {
		t.Error("two seeds made one record")
	}
}
