package format

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

func TestFirsts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 6, func(b []byte) string { return string(b) }).Draw(t, "keys")
		slices.SortFunc(keys, bytes.Compare)
		text := EncodeFirsts(keys)
		got, err := DecodeFirsts(text, len(keys))
		if err != nil || !slices.EqualFunc(got, keys, bytes.Equal) {
			t.Fatalf("%q, %v", got, err)
		}
		for _, bad := range [][]byte{text[:max(len(text)-1, 0)], append(slices.Clone(text), 0x80), append(slices.Clone(text), 5, 'x')} {
			if len(bad) == len(text) {
				continue
			}
			if got, err := DecodeFirsts(bad, len(keys)); events.KindOf(err) != events.KindInconsistent {
				t.Fatalf("%q is read as %q, %v", bad, got, err)
			}
		}
		if got, err := DecodeFirsts(text, len(keys)+1); events.KindOf(err) != events.KindInconsistent {
			t.Fatalf("for another number of tables: %q, %v", got, err)
		}
		slices.Reverse(keys)
		if got, err := DecodeFirsts(EncodeFirsts(keys), len(keys)); len(keys) > 1 && events.KindOf(err) != events.KindInconsistent {
			t.Fatalf("in another order: %q, %v", got, err)
		}
	})
}

func FuzzDecodeFirsts(f *testing.F) {
	f.Add(EncodeFirsts([][]byte{[]byte("a"), []byte("b")}), 2)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 1)
	f.Fuzz(func(t *testing.T, text []byte, tables int) {
		if keys, err := DecodeFirsts(text, tables); err == nil && len(keys) != tables {
			t.Fatalf("%d keys for %d tables", len(keys), tables)
		}
	})
}
