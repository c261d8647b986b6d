package builtin

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/projections/derived"
)

// EventCounts counts the events of every log by minute, of the event's own clock,
// and type. Keys are "2026-11-26T10:43Z TYPE".
//
// What bounds it: a log has 10,080 places, one for each minute of a week, and a
// minute takes the place of an older one. So counts are kept for at least a week
// and until something newer needs their place, and a wrong clock in one event costs
// one minute. Within a minute the first 64 types have counts of their own, the others
// share one. All of this depends on the events of one log alone, in its order.
func EventCounts() derived.Model {
	return derived.Model{Name: "event-counts", Version: 1, Fold: countEvent}
}

const (
	minutesKept    = 7 * 24 * 60
	typesOfMinute  = 64
	millisOfMinute = 60_000

	bareType   = "(bare)"   // of records without a type
	otherTypes = "(others)" // those that have no count of their own
)

func countEvent(e derived.Event, entries *derived.Entries) error {
	typ := e.Type
	if typ == "" {
		typ = bareType
	}
	now := place{minute: uint64(e.Clock.Millis() / millisOfMinute)}
	slot := string(binary.BigEndian.AppendUint16([]byte{0x00}, uint16(now.minute%minutesKept)))
	was, taken := parsePlace(entries.Get(slot))
	switch {
	case taken && was.minute > now.minute:
		return nil // too old: its place is a newer minute's
	case taken && was.minute < now.minute:
		for _, old := range was.types {
			entries.Delete(countKey(was.minute, old))
		}
	case taken:
		now = was
	}
	if !slices.Contains(now.types, typ) {
		if len(now.types) >= typesOfMinute {
			typ = otherTypes
		}
		if !slices.Contains(now.types, typ) {
			now.types = append(now.types, typ)
			entries.Put(slot, now.encode())
		}
	}
	entries.Add(countKey(now.minute, typ), 1)
	return nil
}

func countKey(minute uint64, typ string) string {
	b := make([]byte, 0, 64)
	b = time.UnixMilli(int64(minute)*millisOfMinute).UTC().AppendFormat(b, "2006-01-02T15:04Z")
	return string(append(append(b, ' '), typ...))
}

// place is what a log keeps of one minute besides its counts: which it is, and the
// types that were counted.
type place struct {
	minute uint64
	types  []string
}

// encode writes the minute (uvarint) and each type (uvarint length, bytes).
func (p *place) encode() []byte {
	b := binary.AppendUvarint(nil, p.minute)
	for _, t := range p.types {
		b = append(binary.AppendUvarint(b, uint64(len(t))), t...)
	}
	return b
}

// parsePlace reads what encode wrote; it is not ok for nil.
func parsePlace(b []byte) (p place, ok bool) {
	minute, n := binary.Uvarint(b)
	if n <= 0 {
		return place{}, false
	}
	p.minute = minute
	for b = b[n:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return place{}, false
		}
		p.types = append(p.types, string(b[n:n+int(size)]))
		b = b[n+int(size):]
	}
	return p, true
}
