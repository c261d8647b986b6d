package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// bomb is a batch of a codec that holds much more than it seems.
func bomb(t failer, codec Codec, size int) Batch {
	return read(t, written{base: 5, attributes: int16(codec), records: []Record{{Offset: 5, Value: make([]byte, size)}}}.encode(t))
}

func TestBombsAreRefused(t *testing.T) {
	const limit = 1 << 20
	for _, codec := range codecs[1:] {
		r := NewRecoder()
		r.inflater.limitBytes = limit
		if _, err := r.Merge([]Batch{bomb(t, codec, limit/2)}); err != nil {
			t.Errorf("%v: below the limit: %v", codec, err)
		}
		for _, size := range []int{limit, 8 * limit} {
			_, err := r.Merge([]Batch{bomb(t, codec, size)})
			if wrong := new(CorruptError); !errors.As(err, &wrong) || wrong.Offset != 5 || !strings.Contains(wrong.Reason, "more than 1048576 bytes") {
				t.Errorf("%v: got %v", codec, err)
			}
		}
		if _, err := r.Merge([]Batch{bomb(t, codec, limit/2)}); err != nil {
			t.Errorf("%v: after a bomb: %v", codec, err)
		}
	}
}

// Several frames, each within the limit, are a bomb too.
func TestBombsInPieces(t *testing.T) {
	const limit = 1 << 20
	for _, codec := range []Codec{Gzip, LZ4, Zstd} {
		r := NewRecoder()
		r.inflater.limitBytes = limit
		piece := compress(t, make([]byte, limit/2), codec)
		out, err := r.inflater.inflate(nil, bytes.Repeat(piece, 5), codec)
		if err == nil || len(out) > limit+limit/8 {
			t.Errorf("%v: got %d bytes, %v", codec, len(out), err)
		}
	}
	block := compress(t, make([]byte, limit/2), Snappy)
	framed := append([]byte(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1)
	for range 5 {
		framed = append(binary.BigEndian.AppendUint32(framed, uint32(len(block))), block...)
	}
	r := NewRecoder()
	r.inflater.limitBytes = limit
	if out, err := r.inflater.inflate(nil, framed, Snappy); err == nil {
		t.Errorf("snappy: got %d bytes", len(out))
	}
}

// Java producers put snappy into a frame of their own.
func TestXerial(t *testing.T) {
	plain := bytes.Repeat([]byte("evenkeel"), 1000)
	framed := append([]byte(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1)
	for _, part := range [][]byte{plain[:3000], plain[3000:3001], plain[3001:]} {
		block := compress(t, part, Snappy)
		framed = append(binary.BigEndian.AppendUint32(framed, uint32(len(block))), block...)
	}
	d := NewRecoder().inflater
	out, err := d.inflate(nil, framed, Snappy)
	if err != nil || !bytes.Equal(out, plain) {
		t.Fatalf("got %d bytes, %v", len(out), err)
	}
	for n := xerialHeadBytes + 1; n < len(framed); n++ {
		if out, err := d.inflate(nil, framed[:n], Snappy); err == nil && len(out) >= len(plain) {
			t.Fatalf("%d bytes of %d are enough", n, len(framed))
		}
	}
}

// A length that cannot be true is refused before memory is taken for it.
func TestSnappyLengthIsJudged(t *testing.T) {
	const claimed = 200 << 20
	d := NewRecoder().inflater
	block := append(binary.AppendUvarint(nil, claimed), make([]byte, 20)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := d.inflate(nil, block, Snappy)
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; err == nil || taken > claimed/2 {
		t.Errorf("%d bytes were taken, %v", taken, err)
	}
}

func TestLargeBuffersAreNotKept(t *testing.T) {
	for _, codec := range codecs[1:] {
		r := NewRecoder()
		if _, err := r.Merge([]Batch{bomb(t, codec, 2*keptBytesMax)}); err != nil {
			t.Fatal(err)
		}
		if kept := cap(r.plain) + cap(r.framed) + r.packed.Cap(); kept > 3*keptBytesMax {
			t.Errorf("%v: %d bytes are kept", codec, kept)
		}
	}
}

func TestNoFrameIsCorrupt(t *testing.T) {
	for _, codec := range codecs[1:] {
		raw := small(6, int16(codec)).encode(t)
		for i := HeaderBytes; i < len(raw); i++ {
			raw[i] = 0xff
		}
		_, err := NewRecoder().Merge([]Batch{read(t, sealed(raw))})
		if wrong := new(CorruptError); !errors.As(err, &wrong) || wrong.Offset != 6 {
			t.Errorf("%v: got %v", codec, err)
		}
	}
}

// What is given out has no more memory than it needs, and is nobody else's.
func TestInflaterGivesOut(t *testing.T) {
	i := NewInflater(64 << 20)
	var xerial []byte
	for _, size := range []int{100, 300_000, scratchBytesMost + 1_000_000} {
		for _, codec := range append([]Codec{None}, codecs[1:]...) {
			first, second := bytes.Repeat([]byte("first "), size/6), bytes.Repeat([]byte("second"), size/6)
			deflate := func(plain []byte) ([]byte, Codec) {
				if codec != None {
					return compress(t, plain, codec), codec
				}
				xerial = append([]byte(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1) // as Java producers write snappy
				for block := range slices.Chunk(plain, 32<<10) {
					packed := compress(t, block, Snappy)
					xerial = append(binary.BigEndian.AppendUint32(xerial, uint32(len(packed))), packed...)
				}
				return xerial, Snappy
			}
			got, err := i.Inflate(deflate(first))
			if err != nil || cap(got) > len(first)+len(first)/4+64 {
				t.Errorf("%v: %d bytes take %d: %v", codec, len(first), cap(got), err)
			}
			if other, err := i.Inflate(deflate(second)); err != nil || !bytes.Equal(other, second) || !bytes.Equal(got, first) {
				t.Errorf("%v: two batches of %d bytes: %v", codec, len(first), err)
			}
			if cap(i.scratch) > scratchBytesMost {
				t.Errorf("%v: %d bytes are kept", codec, cap(i.scratch))
			}
		}
	}
}
