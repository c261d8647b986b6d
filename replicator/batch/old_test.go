package batch

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// old is a message of an old format.
func old(magic int8, offset int64, attributes int8, timestamp int64, key, value []byte) []byte {
	var raw []byte
	if magic == 0 {
		raw = (&kmsg.MessageV0{Offset: offset, Attributes: attributes, Key: key, Value: value}).AppendTo(nil)
	} else {
		raw = (&kmsg.MessageV1{Offset: offset, Magic: 1, Attributes: attributes, Timestamp: timestamp, Key: key, Value: value}).AppendTo(nil)
	}
	return sealedOld(raw)
}

func sealedOld(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[12:], crc32.ChecksumIEEE(raw[16:]))
	return raw
}

// wrapped puts messages into a compressed one.
func wrapped(t failer, magic int8, codec Codec, attributes int8, timestamp int64, records []Record) []byte {
	var plain []byte
	last := records[len(records)-1].Offset
	for _, r := range records {
		offset := r.Offset
		if magic == 1 {
			offset -= records[0].Offset
		}
		plain = append(plain, old(magic, offset, 0, r.Timestamp, r.Key, r.Value)...)
	}
	return old(magic, last, int8(codec)|attributes, timestamp, nil, compress(t, plain, codec))
}

func TestOldKeepsRecords(t *testing.T) {
	r := NewRecoder()
	rapid.Check(t, func(t *rapid.T) {
		magic := rapid.Int8Range(0, 1).Draw(t, "magic")
		codec := rapid.SampledFrom([]Codec{None, Gzip, Snappy, LZ4}).Draw(t, "codec")
		least, most := 1, 1
		if codec != None {
			most = 6
		}
		records := rapid.SliceOfN(genRecord(), least, most).Draw(t, "records")
		next := rapid.SampledFrom([]int64{0, 5, 1 << 40}).Draw(t, "base")
		for i := range records {
			records[i].Offset, records[i].Headers = next, nil
			next += rapid.SampledFrom([]int64{1, 1, 2, 1 << 33}).Draw(t, "step")
			if magic == 0 {
				records[i].Timestamp = -1
			}
		}
		raw := old(magic, records[0].Offset, 0, records[0].Timestamp, records[0].Key, records[0].Value)
		if codec != None {
			raw = wrapped(t, magic, codec, 0, 77, records)
		}
		after := small(next, 0).encode(t)
		d, rest, err := r.Old(append(raw, after...))
		if err != nil {
			t.Fatal(err)
		}
		if string(rest) != string(after) {
			t.Fatalf("%d bytes are left, want %d", len(rest), len(after))
		}
		checkDense(t, d, codec)
		if got := restored(t, d); !same(got, records) {
			t.Fatalf("got %v, want %v", got, records)
		}
		if want := consumed(t, raw); magic == 1 && !same(restored(t, d), want) {
			t.Fatalf("got %v, the client reads %v", restored(t, d), want)
		}
	})
}

func TestOldLogAppendTime(t *testing.T) {
	records := []Record{{Offset: 4, Timestamp: 1, Value: []byte("a")}, {Offset: 6, Timestamp: 2, Value: []byte("b")}}
	d, _, err := NewRecoder().Old(wrapped(t, 1, Gzip, logAppendTimeBit, 99, records))
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range restored(t, d) {
		if got.Timestamp != 99 {
			t.Errorf("offset %d has timestamp %d, want the broker's", got.Offset, got.Timestamp)
		}
	}
	single := []Record{{Offset: 4, Timestamp: 99, Value: []byte("a")}}
	d, _, err = NewRecoder().Old(old(1, 4, logAppendTimeBit, 99, nil, []byte("a")))
	if err != nil || !same(restored(t, d), single) {
		t.Errorf("got %v, %v", d, err)
	}
}

// Some producers left the outer offset 0: the inner offsets count then.
func TestOldOuterOffsetZero(t *testing.T) {
	inner := append(old(1, 0, 0, 1, nil, []byte("a")), old(1, 1, 0, 1, nil, []byte("b"))...)
	d, _, err := NewRecoder().Old(old(1, 0, int8(Gzip), 1, nil, compress(t, inner, Gzip)))
	if err != nil || len(d.Runs) != 1 || d.Runs[0] != (Run{0, 2}) {
		t.Errorf("got %v, %v", d.Runs, err)
	}
}

func TestOldRefuses(t *testing.T) {
	v := []byte("v")
	wrap := func(magic int8, offset int64, codec Codec, plain ...[]byte) []byte {
		var all []byte
		for _, p := range plain {
			all = append(all, p...)
		}
		return old(magic, offset, int8(codec), 1, nil, compress(t, all, codec))
	}
	edited := func(raw []byte, edit func([]byte)) []byte { edit(raw); return sealedOld(raw) }
	flipped := old(1, 8, 0, 1, nil, v)
	flipped[len(flipped)-1]++
	flippedInside := old(1, 0, 0, 1, nil, v)
	flippedInside[len(flippedInside)-1]++
	for name, raw := range map[string][]byte{
		"flipped":              flipped,
		"flipped inside":       wrap(1, 8, Gzip, flippedInside),
		"new format":           small(8, 0).encode(t),
		"codec zstd":           old(1, 8, int8(Zstd), 1, nil, compress(t, old(1, 0, 0, 1, nil, v), Zstd)),
		"no frame":             old(1, 8, int8(Gzip), 1, nil, v),
		"compressed null":      old(1, 8, int8(Gzip), 1, nil, nil),
		"nothing inside":       wrap(1, 8, Gzip),
		"cut off inside":       wrap(1, 8, Gzip, old(1, 0, 0, 1, nil, v)[:30]),
		"a byte inside":        wrap(1, 8, Gzip, []byte{1}),
		"new format inside":    wrap(1, 8, Gzip, small(8, 0).encode(t)),
		"other format inside":  wrap(1, 8, Gzip, old(0, 0, 0, 1, nil, v)),
		"compressed inside":    wrap(1, 8, Gzip, wrap(1, 0, Gzip, old(1, 0, 0, 1, nil, v))),
		"offsets equal":        wrap(1, 8, Gzip, old(1, 0, 0, 1, nil, v), old(1, 0, 0, 1, nil, v)),
		"offsets go back":      wrap(0, 8, Gzip, old(0, 8, 0, 1, nil, v), old(0, 7, 0, 1, nil, v)),
		"last beyond outer":    wrap(1, 8, Gzip, old(1, 9, 0, 1, nil, v)),
		"offset negative":      edited(wrap(1, 8, Gzip, old(1, -1, 0, 1, nil, v)), func([]byte) {}),
		"key beyond end":       edited(old(0, 8, 0, 1, []byte("k"), v), func(raw []byte) { raw[21]++; raw[21] = 99 }),
		"key length -2":        edited(old(0, 8, 0, 1, nil, v), func(raw []byte) { raw[21] = 0xfe }),
		"bytes after value":    sealedOld(append(old(0, 8, 0, 1, nil, v), 0)),
		"own offset negative":  old(1, -8, 0, 1, nil, v),
		"length below minimum": edited(old(1, 8, 0, 1, nil, nil), func([]byte) {})[:33],
	} {
		if name == "length below minimum" {
			binary.BigEndian.PutUint32(raw[8:], 21)
		}
		d, rest, err := NewRecoder().Old(raw)
		if wrong := new(CorruptError); !errors.As(err, &wrong) || wrong.Offset != int64(binary.BigEndian.Uint64(raw)) {
			t.Errorf("%s: got %v, %v", name, d, err)
		}
		if len(rest) != len(raw) {
			t.Errorf("%s: %d bytes of %d are left", name, len(rest), len(raw))
		}
	}
}

func TestReadLeavesOldToOld(t *testing.T) {
	for magic := range int8(2) {
		raw := old(magic, 8, 0, 1, []byte("k"), nil)
		_, rest, err := Read(raw)
		if format := new(OldFormatError); !errors.As(err, &format) || *format != (OldFormatError{8, magic}) || len(rest) != len(raw) {
			t.Errorf("got %v", err)
		}
		for n := range raw {
			if _, _, err := Read(raw[:n]); err != ErrPartial {
				t.Errorf("Read of %d bytes of %d: %v", n, len(raw), err)
			}
			if _, _, err := NewRecoder().Old(raw[:n]); err != ErrPartial {
				t.Errorf("Old of %d bytes of %d: %v", n, len(raw), err)
			}
		}
	}
}
