package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// DriftError says that what is at rest of a log is not what the applies left
// behind: corruption, or a bug in the fold.
type DriftError struct {
	Stored, Found events.LogState
	Aside         bool  // tombstones or parked records differ; the digest leaves them out
	Buckets       []int // the digest buckets that differ
}

func (e *DriftError) Error() string {
	text := fmt.Sprintf("%s at offset %d: digest %s over %d keys and %d bytes, and %d parked records, are recorded; %s over %d keys and %d bytes, and %d, are there",
		e.Stored.Log, e.Stored.Next, e.Stored.Digest, e.Stored.Keys, e.Stored.Bytes, e.Stored.Parked,
		e.Found.Digest, e.Found.Keys, e.Found.Bytes, e.Found.Parked)
	if e.Aside {
		text += "; tombstones or parked records differ"
	}
	if n := len(e.Buckets); n > 0 {
		text += fmt.Sprintf("; %d of %d digest buckets differ", n, digest.BucketCount)
	}
	return text
}

// Verify recomputes what the database says of each log from what is at rest
// and reports the logs that differ. It reads one snapshot and disturbs nobody.
func (s *Shard) Verify() ([]events.LogState, error) { return s.verifyWhile(context.Background()) }

// verifyWhile is Verify, until the context ends.
func (s *Shard) verifyWhile(ctx context.Context) ([]events.LogState, error) {
	snapshot := s.db.NewSnapshot()
	states, err := verify(ctx, snapshot, s.cfg.Rules, s.cfg.Partition)
	return states, errors.Join(err, snapshot.Close())
}

// verify recomputes digests and counts and compares them with those recorded.
// It returns the recorded states; the error joins a DriftError per log.
func verify(ctx context.Context, r pebble.Reader, rules map[events.Stream]merge.Rule, partition int32) ([]events.LogState, error) {
	stored, err := readLogs(r, partition)
	if err != nil {
		return nil, err
	}
	found, err := recount(ctx, r, rules, partition)
	if err != nil {
		return nil, err
	}
	states := sortedStates(stored)
	var drift []error
	for _, st := range states {
		want, have := stored[st.Log], found.of(st.Log)
		have.meta.next, have.meta.events, have.meta.chain = want.meta.next, want.meta.events, want.meta.chain // these leave no trace
		have.buckets.Apply(&have.changes)
		aside, buckets := have.meta.aside != want.meta.aside, have.buckets.Differing(&want.buckets)
		if found := have.meta.state(); aside || len(buckets) > 0 || found != st {
			drift = append(drift, &DriftError{Stored: st, Found: found, Aside: aside, Buckets: buckets})
		}
		delete(found.logs, st.Log)
	}
	for _, l := range slices.SortedFunc(maps.Keys(found.logs), events.Log.Compare) {
		drift = append(drift, &DriftError{Stored: events.LogState{Log: l}, Found: found.logs[l].meta.state()})
	}
	return states, errors.Join(drift...)
}

// recounter adds up slices and parked records by log.
type recounter struct {
	rules     map[events.Stream]merge.Rule
	partition int32
	logs      map[events.Log]*recounted
	hasher    digest.Hasher
}

// recounted is what is at rest of one log.
type recounted struct {
	meta    logMeta
	changes digest.Changes
	buckets digest.Buckets
}

// recount reads everything.
func recount(ctx context.Context, r pebble.Reader, rules map[events.Stream]merge.Rule, partition int32) (found *recounter, err error) {
	it, err := r.NewIter(nil)
	if err != nil {
		return nil, err
	}
	defer closeIter(it, &err)
	found = &recounter{rules: rules, partition: partition, logs: map[events.Log]*recounted{}}
	for it.First(); atState(it) && ctx.Err() == nil; it.Next() {
		if err := found.take(it.Key(), it.Value()); err != nil {
			return nil, err
		}
	}
	return found, errors.Join(ctx.Err(), it.Error())
}

func (c *recounter) of(l events.Log) *recounted {
	r, ok := c.logs[l]
	if !ok {
		r = &recounted{meta: logMeta{log: l}}
		c.logs[l] = r
	}
	return r
}

// take adds one entry of the database.
func (c *recounter) take(dbKey, value []byte) error {
	switch dbKey[0] {
	case prefixFact, prefixLog, prefixBuckets, prefixMark:
		return nil
	case prefixParked:
		p, err := parseParkedKey(dbKey)
		if err != nil {
			return err
		}
		c.of(p.Log).meta.addParked(&c.hasher, dbKey, value)
		return nil
	case prefixSlice:
		return c.slice(dbKey, value)
	}
	return fmt.Errorf("key %q is of no known kind", dbKey)
}

func (c *recounter) slice(dbKey, value []byte) error {
	stream, key, _, origin, err := splitSliceKey(dbKey)
	if err != nil {
		return err
	}
	rule, ok := c.rules[stream]
	if !ok {
		return events.Errorf(events.KindRefused, "stream %s is in the state but not in the configuration", stream)
	}
	log := events.Log{Origin: origin, Stream: stream, Partition: c.partition}
	r := c.of(log)
	r.meta.add(&r.changes, &touched{
		key: key, now: value, live: rule.Live(value), hash: c.hasher.Slice(stream, key, value), bucket: digest.BucketOf(key),
	})
	return nil
}
