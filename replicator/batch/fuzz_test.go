package batch

import (
	"bytes"
	"errors"
	"testing"
)

// fuzzed is a Recoder that refuses early what is large, so that fuzzing is fast.
func fuzzed() *Recoder {
	r := NewRecoder()
	r.inflater.limitBytes = 1 << 20
	return r
}

func seeds(f *testing.F) {
	for _, codec := range codecs {
		one, two := small(3, int16(codec)).encode(f), small(9, int16(codec)|logAppendTimeBit).encode(f)
		f.Add(append(one, two...))
	}
	f.Add(old(0, 7, 0, 0, nil, []byte("v")))
	f.Add(old(1, 7, 8, 5, []byte("k"), nil))
	f.Add(written{base: 3, lastDelta: 4}.encode(f))
}

func named(err error) bool {
	var large *TooLargeError
	var control *ControlError
	var format *OldFormatError
	return errors.Is(err, ErrPartial) || errors.As(err, new(*CorruptError)) || errors.As(err, &large) || errors.As(err, &control) || errors.As(err, &format)
}

func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for len(data) > 0 {
			b, rest, err := Read(data)
			if err != nil {
				if !named(err) || len(rest) != len(data) {
					t.Fatalf("%d bytes of %d are left: %v", len(rest), len(data), err)
				}
				return
			}
			if len(b.Raw)+len(rest) != len(data) || len(b.Raw) < HeaderBytes || b.NextOffset() <= b.BaseOffset || b.BaseOffset < 0 {
				t.Fatalf("got %+v of %d bytes", b.Header, len(b.Raw))
			}
			_ = b.Verify() // must not panic
			Stamp(b.Raw, 1, 2, 3)
			again := read(t, b.Raw)
			if again.Count != b.Count || again.ProducerID != 1 || again.ProducerEpoch != 2 || again.BaseSequence != 3 || again.Transactional() || again.DeleteHorizon() {
				t.Fatalf("stamped: %+v", again.Header)
			}
			data = rest
		}
	})
}

func FuzzMerge(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := fuzzed()
		var batches []Batch
		var want []Record
		sound := true
		for len(data) > 0 {
			b, rest, err := Read(data)
			if err != nil {
				break
			}
			records, err := r.Records(b)
			if err != nil && !named(err) {
				t.Fatal(err)
			}
			sound = sound && err == nil
			want = append(want, records...)
			batches, data = append(batches, b), rest
		}
		d, err := r.Merge(batches)
		if err != nil {
			if !named(err) {
				t.Fatal(err)
			}
			return
		}
		if !sound {
			t.Fatal("Merge took what Records refuses")
		}
		if d.Count == 0 {
			if len(want) > 0 {
				t.Fatalf("%d records are lost", len(want))
			}
			return
		}
		checkRecoded(t, r, d, want)
		parts, err := r.Split(read(t, d.Raw), len(d.Raw))
		if err != nil || len(parts) == 0 {
			t.Fatalf("split: %d parts, %v", len(parts), err)
		}
	})
}

// checkRecoded reads with this package, as the client's milliseconds do not
// reach as far as Kafka's.
func checkRecoded(t *testing.T, r *Recoder, d Dense, want []Record) {
	t.Helper()
	got, err := r.Records(read(t, d.Raw))
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, run := range d.Runs {
		for n := range int64(run.Count) {
			got[i].Offset = run.Source + n
			i++
		}
	}
	if i != len(got) || !same(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// resealed puts right CRCs into messages, without which fuzzing would not get
// past them.
func resealed(data []byte) []byte {
	data = bytes.Clone(data)
	for rest := data; len(rest) > atMagic && rest[atMagic] < magicV2; {
		size, err := wholeSize(rest)
		if err != nil {
			break
		}
		sealedOld(rest[:size:size])
		rest = rest[size:]
	}
	return data
}

func FuzzOld(f *testing.F) {
	two := append(old(1, 0, 0, 1, nil, []byte("a")), old(1, 2, 0, 1, []byte("b"), nil)...)
	for codec := range byte(8) {
		f.Add(two, codec, int64(8), byte(1))
		f.Add(old(0, 7, 0, 1, nil, []byte("v")), codec, int64(8), byte(0))
	}
	f.Add(wrapped(f, 1, Gzip, 0, 5, []Record{{Offset: 3, Value: []byte("a")}, {Offset: 5, Key: []byte("b")}}), byte(0), int64(0), byte(1))
	// The data are messages as they are, or those inside a compressed one.
	f.Fuzz(func(t *testing.T, data []byte, attributes byte, offset int64, magic byte) {
		data = resealed(data)
		if codec := Codec(attributes & codecBits); codec > None && codec <= Zstd {
			data = old(int8(magic&1), offset, int8(attributes), 5, nil, compress(t, data, codec))
		}
		r := fuzzed()
		d, rest, err := r.Old(data)
		if err != nil {
			if !named(err) || len(rest) != len(data) {
				t.Fatalf("%d bytes of %d are left: %v", len(rest), len(data), err)
			}
			return
		}
		if d.Count == 0 || len(rest) >= len(data) {
			t.Fatalf("%d records, %d bytes of %d are left", d.Count, len(rest), len(data))
		}
		next := int64(0)
		for _, run := range d.Runs {
			if run.Source < next || run.Count < 1 {
				t.Fatalf("runs %v", d.Runs)
			}
			next = run.Source + int64(run.Count)
		}
		records, err := r.Records(read(t, d.Raw))
		if err != nil || len(records) != int(d.Count) {
			t.Fatalf("%d records of %d, %v", len(records), d.Count, err)
		}
	})
}
