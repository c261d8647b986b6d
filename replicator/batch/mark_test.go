package batch

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// A marked batch has the same records, and differs from the same batch that is not
// marked, or is marked otherwise.
func TestMarkKeepsRecords(t *testing.T) {
	r := NewRecoder()
	rapid.Check(t, func(t *rapid.T) {
		w := genBatches().Draw(t, "source")[0]
		merged, err := r.Merge([]Batch{read(t, w.encode(t))})
		if err != nil {
			t.Fatal(err)
		}
		if merged.Count == 0 {
			return
		}
		back := rapid.Int64Range(1, 1<<31).Draw(t, "back")
		d, err := r.Mark(read(t, merged.Raw), back)
		if err != nil {
			t.Fatal(err)
		}
		b := read(t, d.Raw)
		if err := b.Verify(); err != nil {
			t.Fatal(err)
		}
		if before := read(t, merged.Raw); b.FirstTimestamp != before.FirstTimestamp-back || b.MaxTimestamp != before.MaxTimestamp || b.Count != before.Count {
			t.Fatalf("head %+v, before %+v", b.Header, before.Header)
		}
		d.Runs = merged.Runs
		if got, want := restored(t, d), seen([]written{w}); !same(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		other, err := r.Mark(read(t, merged.Raw), back+1)
		if err != nil || bytes.Equal(other.Raw, d.Raw) || bytes.Equal(merged.Raw, d.Raw) {
			t.Fatalf("it cannot be told from others, error %v", err)
		}
	})
}

func TestSplitEveryKeepsRecords(t *testing.T) {
	r := NewRecoder()
	rapid.Check(t, func(t *rapid.T) {
		w := genBatches().Draw(t, "source")[0]
		merged, err := r.Merge([]Batch{read(t, w.encode(t))})
		if err != nil {
			t.Fatal(err)
		}
		if merged.Count == 0 {
			return
		}
		count := rapid.IntRange(1, int(merged.Count)+1).Draw(t, "count")
		parts, err := r.SplitEvery(merged, count)
		if err != nil {
			t.Fatal(err)
		}
		var got []Record
		for _, d := range parts {
			if int(d.Count) > count {
				t.Fatalf("a part has %d records, %d are allowed", d.Count, count)
			}
			checkDense(t, d, Codec(merged.Raw[atAttributes+1]&codecBits))
			got = append(got, restored(t, d)...)
		}
		if want := seen([]written{w}); !same(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
