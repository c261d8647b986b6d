package batch

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// from keeps the records at an offset and behind it.
func from(records []Record, offset int64) []Record {
	return slices.DeleteFunc(slices.Clone(records), func(r Record) bool { return r.Offset < offset })
}

// What is trimmed is what a consumer sees from there on, be it a batch of the
// source or one that was framed anew.
func TestTrimKeepsRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batches := genBatches().Draw(t, "batches")
		w := batches[rapid.IntRange(0, len(batches)-1).Draw(t, "which")]
		all := seen([]written{w})
		at := rapid.Int64Range(w.base-1, w.base+20).Draw(t, "from")
		r := NewRecoder()
		d, err := r.Trim(read(t, w.encode(t)), at)
		if err != nil {
			t.Fatal(err)
		}
		if got := restored(t, d); !same(got, from(all, at)) {
			t.Fatalf("trimmed: %v, want %v", got, from(all, at))
		}
		whole, err := r.Merge([]Batch{read(t, w.encode(t))})
		if err != nil {
			t.Fatal(err)
		}
		if whole.Count == 0 {
			return
		}
		if d, err = r.TrimDense(whole, at); err != nil {
			t.Fatal(err)
		}
		if got := restored(t, d); !same(got, from(all, at)) {
			t.Fatalf("trimmed once more: %v, want %v", got, from(all, at))
		}
	})
}

// Parts of what was framed anew know where they come from.
func TestSplitDenseKeepsRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var batches []Batch
		all := genBatches().Draw(t, "batches")
		for _, w := range all {
			batches = append(batches, read(t, w.encode(t)))
		}
		r := NewRecoder()
		d, err := r.Merge(batches)
		if err != nil || d.Count == 0 {
			return
		}
		limit := rapid.IntRange(HeaderBytes+1, len(d.Raw)+10).Draw(t, "limit")
		parts, err := r.SplitDense(d, limit)
		var got []Record
		for _, part := range parts {
			if len(part.Raw) > limit {
				t.Fatalf("a part of %d bytes, the limit is %d", len(part.Raw), limit)
			}
			got = append(got, restored(t, part)...)
		}
		want := seen(all)
		var large *TooLargeError
		switch {
		case errors.As(err, &large):
			want = slices.DeleteFunc(slices.Clone(want), func(r Record) bool { return r.Offset >= large.Offset })
		case err != nil:
			t.Fatal(err)
		}
		if !same(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

func TestSameAs(t *testing.T) {
	r := Record{Offset: 3, Timestamp: 5, Key: []byte("k"), Value: []byte{}, Headers: []RecordHeader{{"h", nil}}}
	for name, c := range map[string]struct {
		change func(*Record)
		same   bool
	}{
		"nothing":      {func(*Record) {}, true},
		"offset":       {func(r *Record) { r.Offset = 4 }, true},
		"timestamp":    {func(r *Record) { r.Timestamp = 6 }, false},
		"key":          {func(r *Record) { r.Key = []byte("l") }, false},
		"null key":     {func(r *Record) { r.Key = nil }, false},
		"null value":   {func(r *Record) { r.Value = nil }, false},
		"header name":  {func(r *Record) { r.Headers = []RecordHeader{{"i", nil}} }, false},
		"header value": {func(r *Record) { r.Headers = []RecordHeader{{"h", []byte{}}} }, false},
		"no header":    {func(r *Record) { r.Headers = nil }, false},
	} {
		q := r
		if c.change(&q); r.SameAs(q) != c.same || q.SameAs(r) != c.same {
			t.Errorf("%s: %v, want %v", name, !c.same, c.same)
		}
	}
}
