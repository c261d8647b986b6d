package batch

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestMergeKeepsRecords(t *testing.T) {
	r := NewRecoder() // one for all, as a link has it
	rapid.Check(t, func(t *rapid.T) {
		source := genBatches().Draw(t, "source")
		var batches []Batch
		var raw []byte
		for _, w := range source {
			batches = append(batches, read(t, w.encode(t)))
			raw = append(raw, batches[len(batches)-1].Raw...)
		}
		want := seen(source)
		if got := consumed(t, raw); !same(got, want) {
			t.Fatalf("the test's own batches are wrong: %v, want %v", got, want)
		}
		before := bytes.Clone(raw)
		d, err := r.Merge(batches)
		if err != nil {
			t.Fatal(err)
		}
		var after []byte
		for _, b := range batches {
			after = append(after, b.Raw...)
		}
		if !bytes.Equal(before, after) {
			t.Fatal("Merge changed what it read")
		}
		if len(want) == 0 {
			if d.Raw != nil || d.Count != 0 || d.Runs != nil {
				t.Fatalf("no records make %+v", d)
			}
			return
		}
		checkDense(t, d, batches[0].Codec())
		if got := restored(t, d); !same(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestRecordsAreThoseOfTheClient(t *testing.T) {
	r := NewRecoder()
	rapid.Check(t, func(t *rapid.T) {
		var raw []byte
		var got [][]Record
		source := genBatches().Draw(t, "source")
		for _, w := range source {
			one := w.encode(t)
			raw = append(raw, one...)
			records, err := r.Records(read(t, one))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, records) // compared at the end: later calls must not change them
		}
		var all []Record
		for _, records := range got {
			all = append(all, records...)
		}
		if want := consumed(t, raw); !same(all, want) {
			t.Fatalf("got %v, want %v", all, want)
		}
	})
}

// A merged batch stays as it is while the Recoder goes on.
func TestMergedBelongsToTheCaller(t *testing.T) {
	for _, codec := range codecs {
		r := NewRecoder()
		first, err := r.Merge([]Batch{read(t, small(5, int16(codec)).encode(t))})
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(first.Raw)
		other := small(5, int16(codec))
		other.records[0].Value = []byte("something else")
		if _, err := r.Merge([]Batch{read(t, other.encode(t))}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Raw, before) {
			t.Errorf("%v: a later call changed the batch", codec)
		}
	}
}

// Nobody uses a record's own attributes yet; they are copied all the same.
func TestMergeKeepsAttributesOfRecords(t *testing.T) {
	raw := small(3, 0).encode(t)
	const at = HeaderBytes + 1 // after a length of one byte
	raw[at] = 0x5a
	d, err := NewRecoder().Merge([]Batch{read(t, sealed(raw))})
	if err != nil || d.Raw[at] != 0x5a || !bytes.Equal(d.Raw[HeaderBytes:], raw[HeaderBytes:]) {
		t.Errorf("got %x, %v, want the records of %x", d.Raw, err, raw)
	}
}

func TestMergeExtremeTimestamps(t *testing.T) {
	w := small(0, 0)
	w.records[0].Timestamp, w.records[1].Timestamp = math.MinInt64, math.MaxInt64
	b := read(t, w.encode(t))
	d, err := NewRecoder().Merge([]Batch{b})
	if err != nil {
		t.Fatal(err)
	}
	got, err := NewRecoder().Records(read(t, d.Raw))
	if err != nil || !same(got, w.records) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestMergeRefuses(t *testing.T) {
	plain := func(w written) Batch { return read(t, w.encode(t)) }
	// edited is a batch of two records, of which the bytes after the header are edited.
	edited := func(edit func(records []byte) []byte) Batch {
		raw := small(70, 0).encode(t)
		records := edit(bytes.Clone(raw[HeaderBytes:]))
		b := plain(small(70, 0))
		b.Raw = append(bytes.Clone(raw[:HeaderBytes]), records...)
		return b
	}
	for name, c := range map[string]struct {
		batches []Batch
		offset  int64
	}{
		"offsets that go back": {[]Batch{plain(small(70, 0)), plain(small(70, 0))}, 70},
		"bytes at the end":     {[]Batch{edited(func(r []byte) []byte { return append(r, 0) })}, 70},
		"a record cut off":     {[]Batch{edited(func(r []byte) []byte { return r[:len(r)-1] })}, 70},
		"no records":           {[]Batch{edited(func(r []byte) []byte { return nil })}, 70},
		"length 0":             {[]Batch{edited(func(r []byte) []byte { r[0] = 0; return r })}, 70},
		"length negative":      {[]Batch{edited(func(r []byte) []byte { r[0] = 1; return r })}, 70},
		"length too large":     {[]Batch{edited(func(r []byte) []byte { r[0] = 0x7e; return r })}, 70},
		"length without end": {[]Batch{edited(func(r []byte) []byte {
			return append(bytes.Repeat([]byte{0x80}, 10), r...)
		})}, 70},
		"length with six bytes": {[]Batch{edited(func(r []byte) []byte {
			return append([]byte{r[0] | 0x80, 0x80, 0x80, 0x80, 0x80, 0}, r[1:]...)
		})}, 70},
		"offset twice":          {[]Batch{edited(func(r []byte) []byte { r[3] = 2; return r })}, 70},
		"offset negative":       {[]Batch{edited(func(r []byte) []byte { r[3] = 1; return r })}, 70},
		"offset after the last": {[]Batch{edited(func(r []byte) []byte { r[1+int(r[0]/2)+1+3] = 4; return r })}, 70},
		"key length wrong":      {[]Batch{edited(func(r []byte) []byte { r[4] = 0x7e; return r })}, 70},
		"key length below -1":   {[]Batch{edited(func(r []byte) []byte { r[4] = 3; return r })}, 70},
		"value length wrong":    {[]Batch{edited(func(r []byte) []byte { r[6] = 0; return r })}, 70},
		"headers negative":      {[]Batch{edited(func(r []byte) []byte { r[8] = 1; return r })}, 70},
		"headers too many":      {[]Batch{edited(func(r []byte) []byte { r[8] = 2; return r })}, 70},
		"header key null":       {[]Batch{edited(func(r []byte) []byte { return append(r[:len(r)-3], 1, 2, 'x') })}, 70},
		"raw cut off":           {[]Batch{{Header: Header{BaseOffset: 70}, Raw: []byte{1}}}, 70},
	} {
		d, err := NewRecoder().Merge(c.batches)
		if wrong := new(CorruptError); !errors.As(err, &wrong) || wrong.Offset != c.offset || wrong.Reason == "" {
			t.Errorf("%s: got %v, %v", name, d, err)
		}
	}
	if _, err := NewRecoder().Merge([]Batch{edited(func(r []byte) []byte { return r })}); err != nil {
		t.Errorf("the batch that was edited above is itself refused: %v", err)
	}
}

func TestControlBatchesAreRefused(t *testing.T) {
	b := read(t, small(8, transactionalBit|controlBit).encode(t))
	var control *ControlError
	if _, err := NewRecoder().Merge([]Batch{b}); !errors.As(err, &control) || control.Offset != 8 {
		t.Errorf("Merge: %v", err)
	}
	if _, err := NewRecoder().Split(b, 1000); !errors.As(err, &control) || control.Offset != 8 {
		t.Errorf("Split: %v", err)
	}
}

func TestMergeOfNothing(t *testing.T) {
	for _, codec := range codecs {
		empty := append(written{base: 9, lastDelta: 3}.encode(t), 1, 2, 3)
		empty[atLength+3] += 3
		empty[atAttributes+1] |= byte(codec) // what follows the header is no frame
		if d, err := NewRecoder().Merge([]Batch{read(t, sealed(empty))}); err != nil || d.Raw != nil || d.Count != 0 {
			t.Errorf("%v, a batch without records: got %+v, %v", codec, d, err)
		}
	}
	if d, err := NewRecoder().Merge(nil); err != nil || d.Raw != nil || d.Count != 0 {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestMergeIsLimited(t *testing.T) {
	r := NewRecoder()
	r.inflater.limitBytes = 100
	var large *TooLargeError
	_, err := r.Merge([]Batch{read(t, small(0, 0).encode(t)), read(t, small(2, 0).encode(t)), read(t, written{base: 4, records: []Record{
		{Offset: 4, Value: make([]byte, 90)}}}.encode(t))})
	if !errors.As(err, &large) || large.Offset != 4 || large.Limit != 100 || large.Bytes <= 100 {
		t.Errorf("got %v", err)
	}
}
