package batch

import "bytes"

// Record is a record, decoded.
type Record struct {
	Offset     int64
	Timestamp  int64  // in ms
	Key, Value []byte // null is nil, empty is not
	Headers    []RecordHeader
}

// RecordHeader is one header of a record. Keys may repeat.
type RecordHeader struct {
	Key   string
	Value []byte // null is nil, empty is not
}

// Records decodes a batch, for comparisons. Keys and values may be part of the
// batch's bytes.
func (r *Recoder) Records(b Batch) ([]Record, error) {
	defer r.trim()
	s, err := r.scan(&b)
	if err != nil {
		return nil, err
	}
	if b.Codec() != None {
		s.data = bytes.Clone(s.data)
	}
	raw, err := s.all()
	if err != nil {
		return nil, err
	}
	records := make([]Record, len(raw))
	for i := range raw {
		records[i] = raw[i].decode()
	}
	return records, nil
}

// decode relies on the body being sound.
func (r *record) decode() Record {
	d := Record{Offset: r.offset, Timestamp: r.timestamp}
	at := 0
	d.Key, at = takeBytes(r.body, at)
	d.Value, at = takeBytes(r.body, at)
	n, at := varint(r.body, at)
	if n > 0 {
		d.Headers = make([]RecordHeader, n)
	}
	for i := range d.Headers {
		var key []byte
		key, at = takeBytes(r.body, at)
		d.Headers[i].Key = string(key)
		d.Headers[i].Value, at = takeBytes(r.body, at)
	}
	return d
}

func takeBytes(b []byte, at int) (taken []byte, next int) {
	n, at := varint(b, at)
	if n < 0 {
		return nil, at
	}
	return b[at : at+n : at+n], at + n
}
