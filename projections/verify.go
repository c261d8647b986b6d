package projections

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// DriftError says that the slices at rest do not have the digest that the
// applies left behind: corruption, or a bug in the fold.
type DriftError struct {
	Stored, Found events.LogState
}

func (e *DriftError) Error() string {
	return fmt.Sprintf("%s at offset %d: digest %s over %d keys and %d bytes is recorded, %s over %d keys and %d bytes is there",
		e.Stored.Log, e.Stored.Next, e.Stored.Digest, e.Stored.Keys, e.Stored.Bytes, e.Found.Digest, e.Found.Keys, e.Found.Bytes)
}

// Verify recomputes what the database says of each log from the slices at rest
// and reports the logs that differ. It reads one snapshot and disturbs nobody.
func (s *Shard) Verify() ([]events.LogState, error) {
	snapshot := s.db.NewSnapshot()
	states, err := verify(snapshot, s.cfg.Rules, s.cfg.Partition)
	return states, errors.Join(err, snapshot.Close())
}

// verify recomputes digests and counts and compares them with those recorded.
// It returns the recorded states; the error joins a DriftError per log.
func verify(r pebble.Reader, rules map[events.Stream]merge.Rule, partition int32) ([]events.LogState, error) {
	stored, err := readLogs(r)
	if err != nil {
		return nil, err
	}
	found, err := recount(r, rules, partition)
	if err != nil {
		return nil, err
	}
	states := sortedStates(stored)
	var drift []error
	for _, st := range states {
		fs := st
		fs.Digest, fs.Keys, fs.Bytes = events.Digest{}, 0, 0
		if m, ok := found[st.Log]; ok {
			fs.Digest, fs.Keys, fs.Bytes = m.sum.Digest(), m.keys, m.bytes
			delete(found, st.Log)
		}
		if fs != st {
			drift = append(drift, &DriftError{Stored: st, Found: fs})
		}
	}
	for _, m := range found {
		drift = append(drift, &DriftError{Stored: events.LogState{Log: m.log}, Found: m.state()})
	}
	return states, errors.Join(drift...)
}

// recount reads every slice.
func recount(r pebble.Reader, rules map[events.Stream]merge.Rule, partition int32) (found map[events.Log]*logMeta, err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixSlice}, UpperBound: []byte{prefixSlice + 1}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	found = map[events.Log]*logMeta{}
	var hasher digest.Hasher
	for it.First(); it.Valid(); it.Next() {
		stream, key, _, origin, err := splitSliceKey(it.Key())
		if err != nil {
			return nil, err
		}
		rule, ok := rules[stream]
		if !ok {
			return nil, events.Errorf(events.KindRefused, "stream %s is in the state but not in the configuration", stream)
		}
		if !rule.Live(it.Value()) {
			continue
		}
		log := events.Log{Origin: origin, Stream: stream, Partition: partition}
		m, ok := found[log]
		if !ok {
			m = &logMeta{log: log}
			found[log] = m
		}
		m.sum = m.sum.Add(hasher.Slice(stream, key, it.Value()))
		m.keys++
		m.bytes += int64(len(key) + len(it.Value()))
	}
	return found, it.Error()
}
