package batch

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestSplitKeepsRecords(t *testing.T) {
	r := NewRecoder()
	rapid.Check(t, func(t *rapid.T) {
		w := genBatches().Draw(t, "source")[0]
		limit := rapid.IntRange(61, 12000).Draw(t, "limit")
		b := read(t, w.encode(t))
		parts, err := r.Split(b, limit)
		if large := new(TooLargeError); errors.As(err, &large) {
			checkTooLarge(t, b, *large, limit)
			return
		} else if err != nil {
			t.Fatal(err)
		}
		var got []Record
		for _, d := range parts {
			if len(d.Raw) > limit {
				t.Fatalf("a part has %d bytes, %d are allowed", len(d.Raw), limit)
			}
			checkDense(t, d, b.Codec())
			got = append(got, restored(t, d)...)
		}
		if want := seen([]written{w}); !same(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// checkTooLarge sees whether the record that is said to be too large is.
func checkTooLarge(t failer, b Batch, e TooLargeError, limit int) {
	t.Helper()
	if e.Limit != limit || e.Bytes <= limit {
		t.Fatalf("got %+v with limit %d", e, limit)
	}
	r := NewRecoder()
	parts, err := r.Split(b, e.Bytes)
	for err != nil { // others may be larger still
		var larger *TooLargeError
		if !errors.As(err, &larger) || larger.Bytes <= e.Bytes {
			t.Fatalf("with limit %d: %v", e.Bytes, err)
		}
		parts, err = r.Split(b, larger.Bytes)
	}
	found := false
	for _, d := range parts {
		for _, run := range d.Runs {
			found = found || run.Source <= e.Offset && e.Offset < run.Source+int64(run.Count)
		}
	}
	if !found {
		t.Fatalf("there is no offset %d, of which it was said that it is too large", e.Offset)
	}
}

// compressible are records of which some compress well and some do not at all.
func compressible(n int, attributes int16) written {
	random := rand.NewChaCha8([32]byte{1})
	w := written{attributes: attributes, pid: 1}
	for i := range n {
		value := make([]byte, 300)
		if i > n/2 {
			_, _ = random.Read(value) // cannot fail
		}
		w.records = append(w.records, Record{Offset: int64(i), Timestamp: int64(i), Value: value})
	}
	return w
}

func TestSplitFillsParts(t *testing.T) {
	const records, limit = 3000, 64 << 10
	for _, codec := range codecs {
		b := read(t, compressible(records, int16(codec)).encode(t))
		parts, err := NewRecoder().Split(b, limit)
		if err != nil {
			t.Fatal(err)
		}
		if least := len(b.Raw)/limit + 1; len(parts) > 2*least+2 {
			t.Errorf("%v: %d parts of at most %d bytes for %d bytes", codec, len(parts), limit, len(b.Raw))
		}
	}
}

func TestSplitWhatFits(t *testing.T) {
	for _, codec := range codecs {
		for _, limit := range []int{1 << 20, math.MaxInt32, math.MaxInt} {
			parts, err := NewRecoder().Split(read(t, small(9, int16(codec)).encode(t)), limit)
			if err != nil || len(parts) != 1 || parts[0].Count != 2 {
				t.Errorf("%v, limit %d: got %v, %v", codec, limit, parts, err)
			}
		}
	}
}

func TestSplitImpossible(t *testing.T) {
	for _, codec := range codecs {
		for _, limit := range []int{math.MinInt, -1, 0, 1, 61} {
			_, err := NewRecoder().Split(read(t, small(9, int16(codec)).encode(t)), limit)
			if large := new(TooLargeError); !errors.As(err, &large) || large.Offset != 9 {
				t.Errorf("%v, limit %d: got %v", codec, limit, err)
			}
		}
	}
	if parts, err := NewRecoder().Split(read(t, written{base: 9}.encode(t)), 0); err != nil || len(parts) != 0 {
		t.Errorf("a batch without records: got %v, %v", parts, err)
	}
}
