package batch

import "slices"

// Split makes of one batch several, in order, none of them larger than maxBytes
// as it is produced, compressed as the batch was. A batch that fits comes back
// as one, framed anew. Errors are *CorruptError, *ControlError, and
// *TooLargeError for a record that does not fit even alone: then the batches
// before it are returned too.
func (r *Recoder) Split(b Batch, maxBytes int) ([]Dense, error) {
	defer r.trim()
	s, err := r.scan(&b)
	if err != nil {
		return nil, err
	}
	records, err := s.all()
	if err != nil {
		return nil, err
	}
	// Bytes before compression that are likely to fit, if all parts of the
	// batch compress alike.
	target := max(maxBytes-HeaderBytes, 1)
	if packed := len(b.Raw) - HeaderBytes; packed > 0 && b.Codec() != None {
		target = max(int(float64(target)*float64(len(s.data))/float64(packed)), 1)
	}
	var parts []Dense
	for len(records) > 0 {
		d, err := r.largest(records, b.Codec(), target, maxBytes)
		if err != nil {
			return parts, err
		}
		parts = append(parts, d)
		records = records[d.Count:]
	}
	return parts, nil
}

// all reads what is left.
func (s *scanner) all() ([]record, error) {
	records := make([]record, 0, s.left)
	for {
		var r record
		ok, err := s.next(&r)
		if !ok {
			return records, err
		}
		records = append(records, r)
	}
}

// largest makes a batch of the first records, as many as fit as far as one can
// tell without trying all.
func (r *Recoder) largest(records []record, codec Codec, target, maxBytes int) (Dense, error) {
	n := len(records)
	for {
		f := newFrame(r.framed)
		for i := 0; i < n && (i == 0 || len(f.buf)-HeaderBytes+recordHeadBytesMax+len(records[i].body) <= target); i++ {
			f.add(&records[i])
		}
		r.framed = f.buf
		if codec == None {
			f.buf = append([]byte(nil), f.buf...)
		}
		d, err := r.finish(&f, codec)
		switch {
		case err != nil:
			return Dense{}, err
		case len(d.Raw) <= maxBytes:
			return d, nil
		case d.Count == 1:
			return Dense{}, &TooLargeError{records[0].offset, len(d.Raw), maxBytes}
		}
		n = int(d.Count) - 1
		const margin = 0.95
		target = int(float64(len(r.framed)-HeaderBytes) * float64(maxBytes) / float64(len(d.Raw)) * margin)
	}
}

// SplitEvery makes of a batch that was framed anew several, in order, of so many
// records each at most.
func (r *Recoder) SplitEvery(d Dense, count int) ([]Dense, error) {
	defer r.trim()
	b, _, err := Read(d.Raw)
	if err != nil {
		return nil, err
	}
	s, err := r.scan(&b)
	if err != nil {
		return nil, err
	}
	records, err := s.all()
	if err != nil {
		return nil, err
	}
	offsets := d.offsets()
	var parts []Dense
	for some := range slices.Chunk(records, count) {
		f := newFrame(nil)
		for i := range some {
			f.add(&some[i])
		}
		part, err := r.finish(&f, b.Codec())
		if err != nil {
			return parts, err
		}
		part.Runs = runsOf(offsets[:part.Count])
		offsets = offsets[part.Count:]
		parts = append(parts, part)
	}
	return parts, nil
}
