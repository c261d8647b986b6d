package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

func TestReadHeader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		source := genBatches().Draw(t, "source")
		var raw []byte
		for _, w := range source {
			raw = append(raw, w.encode(t)...)
		}
		rest := raw
		for _, w := range source {
			var k kmsg.RecordBatch
			if err := k.ReadFrom(w.encode(t)); err != nil {
				t.Fatal(err)
			}
			b, after, err := Read(rest)
			if err != nil {
				t.Fatal(err)
			}
			want := Header{
				k.FirstOffset, k.Length, k.PartitionLeaderEpoch, uint32(k.CRC), k.Attributes, k.LastOffsetDelta,
				k.FirstTimestamp, k.MaxTimestamp, k.ProducerID, k.ProducerEpoch, k.FirstSequence, k.NumRecords,
			}
			if b.Header != want || &b.Raw[0] != &rest[0] || len(b.Raw) != afterLength+int(k.Length) || len(b.Raw)+len(after) != len(rest) {
				t.Fatalf("got %+v of %d bytes, want %+v", b.Header, len(b.Raw), want)
			}
			if b.LastOffset() != w.base+int64(k.LastOffsetDelta) || b.NextOffset() != b.LastOffset()+1 {
				t.Fatalf("last offset %d, next %d", b.LastOffset(), b.NextOffset())
			}
			if b.Dense() != (k.NumRecords > 0 && k.LastOffsetDelta+1 == k.NumRecords) {
				t.Fatalf("Dense is %v of %+v", b.Dense(), want)
			}
			if cap(b.Raw) != len(b.Raw) {
				t.Fatal("appending to a batch would reach into the next")
			}
			rest = after
		}
		if len(rest) > 0 {
			t.Fatalf("%d bytes are left", len(rest))
		}
	})
}

func TestAttributes(t *testing.T) {
	for bit, is := range map[int16]func(Header) bool{
		0x08: Header.LogAppendTime, 0x10: Header.Transactional, 0x20: Header.Control, 0x40: Header.DeleteHorizon,
	} {
		for _, codec := range codecs {
			if h := (Header{Attributes: bit | int16(codec)}); !is(h) || h.Codec() != codec {
				t.Errorf("bit %#x with %v is not seen", bit, codec)
			}
			if is(Header{Attributes: ^bit}) {
				t.Errorf("bit %#x is seen where it is not", bit)
			}
		}
	}
	for codec, want := range map[Codec]string{0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd", 5: "unknown(5)"} {
		if codec.String() != want {
			t.Errorf("codec %d is %s, want %s", int8(codec), codec, want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	put := func(at int, value any) func([]byte) {
		return func(raw []byte) {
			if _, err := binary.Encode(raw[at:], binary.BigEndian, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, edit := range map[string]func([]byte){
		"length negative":       put(atLength, int32(-1)),
		"length least":          put(atLength, int32(math.MinInt32)),
		"length too small":      put(atLength, int32(48)),
		"length overflows":      put(atLength, int32(math.MaxInt32-11)),
		"magic 3":               put(atMagic, int8(3)),
		"magic negative":        put(atMagic, int8(-1)),
		"count negative":        put(atCount, int32(-1)),
		"count beyond offsets":  put(atCount, int32(3)),
		"count beyond bytes":    func(raw []byte) { put(atCount, int32(1e9))(raw); put(atLastOffsetDelta, int32(2e9))(raw) },
		"last offset negative":  put(atLastOffsetDelta, int32(-1)),
		"last offset overflows": put(0, int64(math.MaxInt64-1)),
		"offset negative":       put(0, int64(-1)),
		"codec 5":               put(atAttributes, int16(5)),
		"codec 7":               put(atAttributes, int16(7)),
	} {
		raw := small(3, 0).encode(t)
		edit(raw)
		_, rest, err := Read(raw)
		if wrong := new(CorruptError); !errors.As(err, &wrong) || wrong.Offset != int64(binary.BigEndian.Uint64(raw)) || wrong.Reason == "" {
			t.Errorf("%s: got %v", name, err)
		}
		if len(rest) != len(raw) {
			t.Errorf("%s: %d bytes of %d are left", name, len(rest), len(raw))
		}
	}
	raw := written{base: 3}.encode(t)
	put(atCount, int32(1))(raw)
	put(atAttributes, int16(Zstd))(raw)
	if _, _, err := Read(raw); !errors.As(err, new(*CorruptError)) {
		t.Errorf("a compressed record without bytes: %v", err)
	}
}

func TestReadPartial(t *testing.T) {
	raw := small(3, 0).encode(t)
	for n := range len(raw) {
		if _, rest, err := Read(raw[:n]); err != ErrPartial || len(rest) != n {
			t.Errorf("%d bytes of %d: %v, %d are left", n, len(raw), err, len(rest))
		}
	}
}

func TestVerifySeesEveryBit(t *testing.T) {
	raw := small(3, 0).encode(t)
	for i := atCRC * 8; i < len(raw)*8; i++ {
		b := Batch{readHeader(raw), bytes.Clone(raw)}
		b.Raw[i/8] ^= 1 << (i % 8)
		b.Header = readHeader(b.Raw)
		if wrong := new(CorruptError); !errors.As(b.Verify(), &wrong) || wrong.Offset != 3 {
			t.Fatalf("bit %d was flipped, Verify says %v", i, b.Verify())
		}
	}
}

func TestStampChangesNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genBatches().Draw(t, "source")[0]
		pid, epoch := rapid.Int64Min(0).Draw(t, "producer id"), rapid.Int16Min(0).Draw(t, "epoch")
		sequence := rapid.Int32Min(0).Draw(t, "sequence")
		before := w.encode(t)
		raw := bytes.Clone(before)
		Stamp(raw, pid, epoch, sequence)

		var was, is kmsg.RecordBatch
		if was.ReadFrom(before) != nil || is.ReadFrom(raw) != nil {
			t.Fatal("kmsg cannot read it")
		}
		want := was
		want.FirstOffset, want.PartitionLeaderEpoch, want.Attributes = 0, -1, was.Attributes&^(0x10|0x40)
		want.ProducerID, want.ProducerEpoch, want.FirstSequence = pid, epoch, sequence
		want.CRC = is.CRC // read verifies it
		if !bytes.Equal(want.AppendTo(nil), raw) {
			t.Fatalf("got %+v, want %+v", is, want)
		}
		got, err := NewRecoder().Records(read(t, raw))
		if err != nil {
			t.Fatal(err)
		}
		all := seen([]written{w})
		for i := range all {
			all[i].Offset -= w.base
		}
		if !same(got, all) {
			t.Fatalf("got %v, want %v", got, all)
		}
	})
}
