package batch

import (
	"bytes"
	"errors"
	"slices"
)

// Trim frames the records of a batch anew that are at offset from or after it,
// compressed as the batch was. Errors are those of Merge.
func (r *Recoder) Trim(b Batch, from int64) (Dense, error) {
	defer r.trim()
	s, err := r.scan(&b)
	if err != nil {
		return Dense{}, err
	}
	f := newFrame(r.room(b.Codec(), []Batch{b}))
	if err := r.fillFrom(&f, &s, from); err != nil {
		return Dense{}, err
	}
	return r.finish(&f, b.Codec())
}

// TrimDense is Trim for what was framed anew already.
func (r *Recoder) TrimDense(d Dense, from int64) (Dense, error) {
	b, _, err := Read(d.Raw)
	if err != nil {
		return Dense{}, err
	}
	offsets := d.offsets()
	drop, _ := slices.BinarySearch(offsets, from)
	out, err := r.Trim(b, int64(drop)) // within d, offsets count from 0
	if err != nil {
		return Dense{}, err
	}
	out.Runs = runsOf(offsets[drop:])
	return out, nil
}

// SplitDense is Split for what was framed anew already.
func (r *Recoder) SplitDense(d Dense, maxBytes int) ([]Dense, error) {
	b, _, err := Read(d.Raw)
	if err != nil {
		return nil, err
	}
	offsets := d.offsets()
	parts, err := r.Split(b, maxBytes)
	var large *TooLargeError
	if errors.As(err, &large) {
		err = &TooLargeError{offsets[large.Offset], large.Bytes, large.Limit}
	}
	for i := range parts {
		parts[i].Runs = runsOf(offsets[:parts[i].Count])
		offsets = offsets[parts[i].Count:]
	}
	return parts, err
}

// offsets are the source's, record by record.
func (d Dense) offsets() []int64 {
	offsets := make([]int64, 0, d.Count)
	for _, run := range d.Runs {
		for i := range int64(run.Count) {
			offsets = append(offsets, run.Source+i)
		}
	}
	return offsets
}

func runsOf(offsets []int64) (runs []Run) {
	for i, offset := range offsets {
		if i == 0 || offset != offsets[i-1]+1 {
			runs = append(runs, Run{Source: offset})
		}
		runs[len(runs)-1].Count++
	}
	return runs
}

func (r *Recoder) fillFrom(f *frame, s *scanner, from int64) error {
	var rec record
	for {
		ok, err := s.next(&rec)
		if !ok {
			return err
		}
		if rec.offset >= from {
			f.add(&rec)
		}
	}
}

// MaxTimestamp is the largest timestamp of its records, in ms.
func (d Dense) MaxTimestamp() int64 { return readHeader(d.Raw).MaxTimestamp }

// SameAs reports whether two records are copies of each other: key, value,
// headers and timestamp are the same, wherever they are. Null is not empty.
func (r Record) SameAs(q Record) bool {
	return r.Timestamp == q.Timestamp && sameBytes(r.Key, q.Key) && sameBytes(r.Value, q.Value) &&
		slices.EqualFunc(r.Headers, q.Headers, func(g, h RecordHeader) bool {
			return g.Key == h.Key && sameBytes(g.Value, h.Value)
		})
}

func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
