package events

import (
	"maps"
	"slices"
	"strings"
)

// Vector is an exact cut through all logs: for every log the next offset, that
// is one more than the last offset it covers. A log that is missing counts as
// next offset 0, so a nil Vector is the cut before everything.
type Vector map[Log]int64

// Order is how two vectors relate. They are only partially ordered.
type Order int

// How two vectors relate.
const (
	Equal      Order = iota
	Before           // the first is a proper prefix of the second
	After            // the second is a proper prefix of the first
	Concurrent       // each has something the other lacks
)

func (o Order) String() string {
	return [...]string{"equal", "before", "after", "concurrent"}[o]
}

// ParseVector reads what String prints: positions separated by commas, in
// order, none twice. The empty text is the empty vector.
func ParseVector(s string) (Vector, error) {
	v := Vector{}
	if s == "" {
		return v, nil
	}
	var last Log
	for text := range strings.SplitSeq(s, ",") {
		if len(v) == MaxVectorLogs {
			return nil, Errorf(KindInvalid, "vector: more than %d logs", MaxVectorLogs)
		}
		p, err := ParsePosition(text)
		if err != nil {
			return nil, Errorf(KindInvalid, "vector: %w", err)
		}
		if len(v) > 0 && last.Compare(p.Log) >= 0 {
			return nil, Errorf(KindInvalid, "vector: %s after %s: want ascending logs, each once", p.Log, last)
		}
		if p.Offset == 0 {
			return nil, Errorf(KindInvalid, "vector: %s: leave out logs at offset 0", p)
		}
		last = p.Log
		v[p.Log] = p.Offset
	}
	return v, nil
}

func (v Vector) String() string {
	var b strings.Builder
	for _, p := range v.Positions() {
		if p.Offset == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// MarshalText and UnmarshalText let a Vector stand in JSON as its text.
func (v Vector) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (v *Vector) UnmarshalText(text []byte) error {
	parsed, err := ParseVector(string(text))
	if err != nil {
		return err
	}
	*v = parsed
	return nil
}

// Positions lists the next position of every log, in order.
func (v Vector) Positions() []Position {
	ps := make([]Position, 0, len(v))
	for log, next := range v {
		ps = append(ps, log.At(next))
	}
	slices.SortFunc(ps, Position.Compare)
	return ps
}

// Validate reports whether every log and offset is well formed.
func (v Vector) Validate() error {
	for _, p := range v.Positions() {
		if err := p.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// Clone is an independent copy, never nil.
func (v Vector) Clone() Vector {
	c := make(Vector, len(v))
	maps.Copy(c, v)
	return c
}

// Covers reports whether the event at p lies before the cut.
func (v Vector) Covers(p Position) bool { return p.Offset < v[p.Log] }

// Compare relates two vectors.
func (v Vector) Compare(w Vector) Order {
	less, more := false, false
	for log, next := range v {
		less = less || next < w[log]
		more = more || next > w[log]
	}
	for log, next := range w {
		less = less || v[log] < next
	}
	switch {
	case less && more:
		return Concurrent
	case less:
		return Before
	case more:
		return After
	}
	return Equal
}

// Join is the smallest vector that covers both: the larger offset of each log.
func (v Vector) Join(w Vector) Vector {
	j := v.Clone()
	for log, next := range w {
		j[log] = max(j[log], next)
	}
	return j
}
