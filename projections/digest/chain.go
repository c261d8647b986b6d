package digest

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"

	"github.com/evenkeel/evenkeel/events"
)

// ChainVersion numbers the way in which Chain hashes records, SumVersion that in
// which Slice hashes slices. Digests of different versions are not compared.
const (
	ChainVersion = 1
	SumVersion   = 1
)

// Chain is the hash chain of a log after record r, where prev is that before it;
// the zero Sum begins a chain. All that a fold can see of a record is in it: its
// offset in the origin's log, timestamp, key, headers and value.
func (h *Hasher) Chain(prev Sum, r *kgo.Record) Sum {
	b := h.buf[:0]
	b = binary.BigEndian.AppendUint64(b, prev.hi)
	b = binary.BigEndian.AppendUint64(b, prev.lo)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Timestamp.UnixMilli()))
	b = appendBytes(b, r.Key)
	b = appendBytes(b, r.Value)
	b = binary.AppendUvarint(b, uint64(len(r.Headers)))
	for i := range r.Headers {
		b = binary.AppendUvarint(b, uint64(len(r.Headers[i].Key)))
		b = append(b, r.Headers[i].Key...)
		b = appendBytes(b, r.Headers[i].Value)
	}
	h.buf = b
	u := xxh3.Hash128(b)
	return Sum{hi: u.Hi, lo: u.Lo}
}

// NewChain is Chain for one goroutine that keeps to itself how it is done: it gives the digest
// after a record from that before it.
func NewChain() func(before events.Digest, r *kgo.Record) events.Digest {
	var h Hasher
	return func(before events.Digest, r *kgo.Record) events.Digest {
		return h.Chain(FromDigest(before), r).Digest()
	}
}

// appendBytes tells null, which deletes, from empty.
func appendBytes(b, data []byte) []byte {
	if data == nil {
		return binary.AppendUvarint(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(data))+1)
	return append(b, data...)
}
