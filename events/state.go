package events

import (
	"encoding/hex"
)

// Digest is a 128-bit fingerprint of a set of slices; package
// projections/digest defines how it is computed. Text: 32 hexadecimal digits.
// The zero Digest is that of no slices.
type Digest [16]byte

// ParseDigest reads what String prints.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return Digest{}, Errorf(KindInvalid, "digest %q: want %d hexadecimal digits", clip(s), 2*len(d))
	}
	copy(d[:], b)
	if d.String() != s {
		return Digest{}, Errorf(KindInvalid, "digest %q: want lower case", clip(s))
	}
	return d, nil
}

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText and UnmarshalText let a Digest stand in JSON as its text.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	parsed, err := ParseDigest(string(text))
	*d = parsed
	return err
}

// MarshalText and UnmarshalText let a Log stand in JSON as its text.
func (l Log) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (l *Log) UnmarshalText(text []byte) error {
	parsed, err := ParseLog(string(text))
	*l = parsed
	return err
}

// MarshalText and UnmarshalText let an HLC stand in JSON as its text.
func (h HLC) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *HLC) UnmarshalText(text []byte) error {
	parsed, err := ParseHLC(string(text))
	*h = parsed
	return err
}

// MarshalText and UnmarshalText let a Position stand in JSON as its text.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Position) UnmarshalText(text []byte) error {
	parsed, err := ParsePosition(string(text))
	*p = parsed
	return err
}

// LogState is what the fold of one log's prefix amounts to. Two regions that
// stand at the same Next of the same log must agree on all of it.
type LogState struct {
	Log    Log    `json:"log"`
	Next   int64  `json:"next"`           // next offset to fold
	Chain  Digest `json:"chain,omitzero"` // of the records; see Mark
	Digest Digest `json:"digest"`         // of the live slices
	Keys   int64  `json:"keys"`           // live slices
	Bytes  int64  `json:"bytes"`          // their keys and encoded contents
	Events int64  `json:"events"`         // events folded
	Parked int64  `json:"parked"`         // records set aside because they are no events
}

// Mark is the state of a log at one place, for comparing regions layer by layer:
// equal chains mean that they have read the same records, equal digests that they
// have made the same slices of them.
type Mark struct {
	Next   int64  `json:"next"`   // the records below this offset, all of them
	Chain  Digest `json:"chain"`  // hash chain over those records (layer L0)
	Digest Digest `json:"digest"` // of the live slices (layer L1)
	Keys   int64  `json:"keys"`   // live slices
	Bytes  int64  `json:"bytes"`  // their keys and encoded contents
}

// VectorOf is the cut at which the given states stand.
func VectorOf(states []LogState) Vector {
	v := make(Vector, len(states))
	for _, s := range states {
		if s.Next > 0 {
			v[s.Log] = s.Next
		}
	}
	return v
}

// ContextOf is what a shard has applied of all origins' logs beside the given one,
// and where that one stands.
func ContextOf(states []LogState, log Log) (c Context, next int64) {
	for _, st := range states { // in order
		if st.Log.Stream != log.Stream || st.Next == 0 {
			continue
		}
		c = append(c, Seen{Origin: st.Log.Origin, Next: st.Next})
		if st.Log == log {
			next = st.Next
		}
	}
	return c, next
}
