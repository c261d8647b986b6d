package pipeline

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// A log may end with what is nothing to fold: the marker that ends a transaction, behind
// records that it may have aborted. The state's vector stands behind the last record, and would seem to
// be behind for ever. So the worker keeps in mind how far it has read.

// stretch is a part of a log that was read and has no records that count.
type stretch struct{ from, to int64 }

// passed are such stretches, each the last that was read of its log. The worker guards it.
type passed map[events.Log]stretch

// begin notes from where a log is read. Where that goes on behind what was read it stays known.
func (p passed) begin(l events.Log, from int64) {
	if s, known := p[l]; !known || s.to != from {
		p[l] = stretch{from, from}
	}
}

// take notes what was fetched next, and returns the records that count.
func (p passed) take(l events.Log, records []*kgo.Record) []*kgo.Record {
	s, known := p[l]
	counting := records[:0]
	for _, r := range records {
		s.to = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		counting = append(counting, r)
		s.from, known = s.to, true
	}
	if known {
		p[l] = s
	}
	return counting
}

// place is where the reading of a log is if the state is at an offset: behind what has
// nothing to fold.
func (p passed) place(l events.Log, next int64) int64 {
	if s, known := p[l]; known && s.from <= next {
		return max(next, s.to)
	}
	return next
}
