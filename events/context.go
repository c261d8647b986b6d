package events

import (
	"slices"
	"strconv"
	"strings"
)

// Epoch numbers the terms of authority over a stream; a write under an epoch
// that has been superseded is refused. Zero means none was given.
type Epoch uint64

// ParseEpoch reads what String prints.
func ParseEpoch(s string) (Epoch, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, Errorf(KindInvalid, "epoch %q: want a whole number", clip(s))
	}
	return Epoch(n), nil
}

func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// Context is the causal context of an event: for its own partition, the next
// offset of each origin's log that its writer had applied. Entries ascend by
// origin, each once. Text: "eu-central-1@7,us-east-1@12". Offset 0 says that nothing
// of that log was known; of another origin's log that is as good as no entry, of its own
// it is not: a writer that does not say counts as having seen all before it.
type Context []Seen

// Seen says that all of an origin's events below Next were known.
type Seen struct {
	Origin Origin
	Next   int64
}

// ParseContext reads what String prints; the empty text is the empty context.
func ParseContext(s string) (Context, error) {
	if s == "" {
		return nil, nil
	}
	var c Context
	for text := range strings.SplitSeq(s, ",") {
		if len(c) == MaxContextOrigins {
			return nil, Errorf(KindInvalid, "context: more than %d origins", MaxContextOrigins)
		}
		originText, nextText, ok := strings.Cut(text, "@")
		if !ok {
			return nil, Errorf(KindInvalid, "context %q: want ORIGIN@OFFSET,…", clip(s))
		}
		origin, err := ParseOrigin(originText)
		if err != nil {
			return nil, Errorf(KindInvalid, "context: %w", err)
		}
		next, err := parseNumber(nextText, 1<<63-1)
		if err != nil {
			return nil, Errorf(KindInvalid, "context: %s: %w", origin, err)
		}
		c = append(c, Seen{Origin: origin, Next: next})
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c Context) String() string {
	var b strings.Builder
	for i, s := range c {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(s.Origin.String())
		b.WriteByte('@')
		b.WriteString(strconv.FormatInt(s.Next, 10))
	}
	return b.String()
}

// Validate reports whether the entries are well formed and in order.
func (c Context) Validate() error {
	if len(c) > MaxContextOrigins {
		return Errorf(KindInvalid, "context: more than %d origins", MaxContextOrigins)
	}
	for i, s := range c {
		if err := s.Origin.Validate(); err != nil {
			return Errorf(KindInvalid, "context: %w", err)
		}
		if s.Next < 0 {
			return Errorf(KindInvalid, "context: %s@%d: want an offset of 0 or more", s.Origin, s.Next)
		}
		if i > 0 && c[i-1].Origin.Compare(s.Origin) >= 0 {
			return Errorf(KindInvalid, "context: %s after %s: want ascending origins, each once", s.Origin, c[i-1].Origin)
		}
	}
	return nil
}

// Join is the least context that has seen all that c and d have seen. It may
// share memory with either of them.
func (c Context) Join(d Context) Context {
	if len(c) == 0 {
		return d
	}
	if len(d) == 0 {
		return c
	}
	joined := make(Context, 0, len(c)+len(d))
	for len(c) > 0 && len(d) > 0 {
		switch order := c[0].Origin.Compare(d[0].Origin); {
		case order < 0:
			joined, c = append(joined, c[0]), c[1:]
		case order > 0:
			joined, d = append(joined, d[0]), d[1:]
		default:
			joined = append(joined, Seen{Origin: c[0].Origin, Next: max(c[0].Next, d[0].Next)})
			c, d = c[1:], d[1:]
		}
	}
	return append(append(joined, c...), d...)
}

// Next is the next offset of the origin's log that the writer had not applied.
func (c Context) Next(o Origin) int64 {
	i, ok := slices.BinarySearchFunc(c, o, func(s Seen, o Origin) int { return s.Origin.Compare(o) })
	if !ok {
		return 0
	}
	return c[i].Next
}
