// Package digest computes the fingerprint of a set of slices that every region
// must agree on at the same vector.
//
// The digest of a set is the 128-bit sum, modulo 2^128, of one hash per live
// slice, each over (stream, key, canonical slice). A sum can be kept up to date
// in constant time, a changed slice's old hash out and its new hash in, and does
// not depend on order. It finds bugs and corruption; it is no defence against
// somebody who forges slices to collide (the hash is XXH3-128, not keyed).
// After Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing:
// Incrementality at Reduced Cost", 1997.
package digest

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/evenkeel/evenkeel/events"
)

// Sum is a digest in the making. The zero Sum is that of no slices.
type Sum struct{ hi, lo uint64 }

// Hasher hashes slices; it reuses one buffer and is not safe for concurrent use.
type Hasher struct{ buf []byte }

// Slice is the hash of one slice.
func (h *Hasher) Slice(stream events.Stream, key string, slice []byte) Sum {
	b := h.buf[:0]
	b = binary.AppendUvarint(b, uint64(len(stream)))
	b = append(b, stream...)
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = append(b, slice...)
	h.buf = b
	u := xxh3.Hash128(b)
	return Sum{hi: u.Hi, lo: u.Lo}
}

// Add is s with t in it.
func (s Sum) Add(t Sum) Sum {
	lo, carry := bits.Add64(s.lo, t.lo, 0)
	hi, _ := bits.Add64(s.hi, t.hi, carry)
	return Sum{hi: hi, lo: lo}
}

// Sub is s with t taken out.
func (s Sum) Sub(t Sum) Sum {
	lo, borrow := bits.Sub64(s.lo, t.lo, 0)
	hi, _ := bits.Sub64(s.hi, t.hi, borrow)
	return Sum{hi: hi, lo: lo}
}

// Digest is the sum in its public form, big-endian.
func (s Sum) Digest() events.Digest {
	var d events.Digest
	binary.BigEndian.PutUint64(d[:8], s.hi)
	binary.BigEndian.PutUint64(d[8:], s.lo)
	return d
}

// FromDigest is the inverse of Digest.
func FromDigest(d events.Digest) Sum {
	return Sum{hi: binary.BigEndian.Uint64(d[:8]), lo: binary.BigEndian.Uint64(d[8:])}
}

// Total is the digest of the union of disjoint sets, e.g. of all logs of a
// region.
func Total(states []events.LogState) events.Digest {
	var s Sum
	for _, st := range states {
		s = s.Add(FromDigest(st.Digest))
	}
	return s.Digest()
}
