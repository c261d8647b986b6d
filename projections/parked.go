package projections

import (
	"encoding/json"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// Parked is a record that was set aside because it is no event. It is kept
// whole, so that nothing is lost when its log expires.
type Parked struct {
	Position events.Position `json:"position"`
	Reason   string          `json:"reason"`
	Record   ParkedRecord    `json:"record"`
}

// ParkedRecord is the record as it was found. It may hold secrets: status and
// logs show position and reason only.
type ParkedRecord struct {
	TimestampMillis int64          `json:"timestamp_ms"` // since 1970; any number
	Key             []byte         `json:"key"`
	Value           []byte         `json:"value"`
	Headers         []ParkedHeader `json:"headers,omitempty"`
}

// ParkedHeader is one header of a parked record. Its key is bytes, because JSON
// would not keep a text that is not UTF-8.
type ParkedHeader struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// park sets a record of a log aside.
func (a *applier) park(batch *pebble.Batch, m *logMeta, r *kgo.Record, reason error) error {
	parked := Parked{
		Position: m.log.At(r.Offset),
		Reason:   reason.Error(),
		Record:   ParkedRecord{TimestampMillis: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value},
	}
	for _, h := range r.Headers {
		parked.Record.Headers = append(parked.Record.Headers, ParkedHeader{Key: []byte(h.Key), Value: h.Value})
	}
	text, err := json.Marshal(parked)
	if err != nil {
		return fmt.Errorf("park %s: %w", parked.Position, err)
	}
	key := parkedKey(parked.Position)
	m.addParked(&a.hasher, key, text)
	return batch.Set(key, text, nil)
}

// Parked lists parked records, most at the most: log by log, in the order of
// their offsets.
func (s *Shard) Parked(most int) (list []Parked, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixParked}, UpperBound: []byte{prefixParked + 1}})
	if err != nil {
		return nil, err
	}
	defer closeIter(it, &err)
	for it.First(); it.Valid() && len(list) < most; it.Next() {
		var p Parked
		if err := json.Unmarshal(it.Value(), &p); err != nil {
			return nil, fmt.Errorf("parked record %q: %w", it.Key(), err)
		}
		list = append(list, p)
	}
	return list, it.Error()
}

// ParkedAt tells why the record at a position was set aside; empty if it was not.
func (s *Shard) ParkedAt(p events.Position) (reason string, err error) {
	text, err := get(s.db, parkedKey(p))
	if err != nil || text == nil {
		return "", err
	}
	var parked Parked
	if err := json.Unmarshal(text, &parked); err != nil {
		return "", fmt.Errorf("parked record at %s: %w", p, err)
	}
	return parked.Reason, nil
}
