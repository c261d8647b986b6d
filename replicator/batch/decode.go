package batch

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

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

// Sum tells a record from others by its timestamp, key, value and headers, wherever
// and in whatever batch it is.
func (r Record) Sum() uint32 {
	text := binary.AppendVarint(nil, r.Timestamp)
	add := func(b []byte) {
		if b == nil {
			text = binary.AppendVarint(text, -1)
			return
		}
		text = append(binary.AppendVarint(text, int64(len(b))), b...)
	}
	add(r.Key)
	add(r.Value)
	for _, h := range r.Headers {
		add([]byte(h.Key))
		add(h.Value)
	}
	return crc32.Checksum(text, castagnoli)
}
