package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

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
// and reports the logs that differ. It reads one snapshot and disturbs nobody, but that
// it takes all processors.
func (s *Shard) Verify() ([]events.LogState, error) {
	return s.verifyWhile(context.Background(), runtime.GOMAXPROCS(0))
}

// verifyWhile is Verify, until the context ends, in so many parts at a time.
func (s *Shard) verifyWhile(ctx context.Context, parts int) ([]events.LogState, error) {
	bounds, err := s.bounds(parts)
	if err != nil {
		return nil, err
	}
	snapshot := s.db.NewSnapshot()
	states, err := verify(ctx, snapshot, bounds, s.cfg.Rules, s.cfg.Partition)
	return states, errors.Join(err, snapshot.Close())
}

// bounds are keys that divide what is in the database's tables into so many parts of
// about the same size, or into fewer.
func (s *Shard) bounds(parts int) (bounds [][]byte, err error) {
	levels, err := s.db.SSTables()
	if err != nil {
		return nil, err
	}
	tables := slices.Concat(levels...)
	slices.SortFunc(tables, func(a, b pebble.SSTableInfo) int { return bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey) })
	var all, before uint64
	for _, t := range tables {
		all += t.Size
	}
	for _, t := range tables {
		if before*uint64(parts) >= all*uint64(len(bounds)+1) {
			bounds = append(bounds, bytes.Clone(t.Smallest.UserKey))
		}
		before += t.Size
	}
	return bounds, nil
}

// verify recomputes digests and counts and compares them with those recorded.
// It returns the recorded states; the error joins a DriftError per log.
func verify(ctx context.Context, r pebble.Reader, bounds [][]byte, rules map[events.Stream]merge.Rule, partition int32) ([]events.LogState, error) {
	stored, err := readLogs(r, partition)
	if err != nil {
		return nil, err
	}
	if rules, err = foldedBy(stored, rules); err != nil {
		return nil, err
	}
	found, err := recount(ctx, r, bounds, rules, partition)
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

// foldedBy are the rules of all streams that there are logs of. Of a stream that is not
// configured any more each log says by which rule it was folded.
func foldedBy(logs map[events.Log]*logEntry, rules map[events.Stream]merge.Rule) (map[events.Stream]merge.Rule, error) {
	all := map[events.Stream]merge.Rule{}
	maps.Copy(all, rules)
	for l, e := range logs {
		if _, known := all[l.Stream]; known {
			continue
		}
		rule, err := LookupRule(e.meta.rule)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l, err)
		}
		all[l.Stream] = rule
	}
	return all, nil
}

// recounter adds up slices and parked records by log.
type recounter struct {
	partition int32
	streams   map[events.Stream]*recountedStream
	logs      map[events.Log]*recounted
	hasher    digest.Hasher
}

// recountedStream is a stream that there are slices of.
type recountedStream struct {
	name events.Stream
	rule merge.Rule
	logs map[string]*recounted // by the text of the origin
}

// recounted is what is at rest of one log.
type recounted struct {
	meta    logMeta
	changes digest.Changes
	buckets digest.Buckets
}

// recount reads everything, the parts between the bounds at the same time.
func recount(ctx context.Context, r pebble.Reader, bounds [][]byte, rules map[events.Stream]merge.Rule, partition int32) (*recounter, error) {
	parts := make([]*recounter, len(bounds)+1)
	g, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		var span pebble.IterOptions
		if i > 0 {
			span.LowerBound = bounds[i-1]
		}
		if i < len(bounds) {
			span.UpperBound = bounds[i]
		}
		parts[i] = newRecounter(rules, partition)
		g.Go(func() error { return parts[i].span(ctx, r, &span) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, part := range parts[1:] {
		parts[0].merge(part)
	}
	return parts[0], nil
}

func newRecounter(rules map[events.Stream]merge.Rule, partition int32) *recounter {
	c := &recounter{partition: partition, streams: map[events.Stream]*recountedStream{}, logs: map[events.Log]*recounted{}}
	for name, rule := range rules {
		c.streams[name] = &recountedStream{name: name, rule: rule, logs: map[string]*recounted{}}
	}
	return c
}

// span adds all entries between two keys.
func (c *recounter) span(ctx context.Context, r pebble.Reader, span *pebble.IterOptions) (err error) {
	it, err := r.NewIter(span)
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	for it.First(); atState(it) && ctx.Err() == nil; it.Next() {
		if err := c.take(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return errors.Join(ctx.Err(), it.Error())
}

// merge adds what another has added up.
func (c *recounter) merge(other *recounter) {
	for l, found := range other.logs {
		r := c.of(l)
		r.meta.merge(&found.meta)
		r.changes.Merge(&found.changes)
	}
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
	name, key, origin, ok := cutSliceKey(dbKey)
	if !ok {
		return notSliceKey(dbKey)
	}
	stream, ok := c.streams[events.Stream(name)]
	if !ok {
		return events.Errorf(events.KindRefused, "stream %s is in the state, without a log and not in the configuration", name)
	}
	r, ok := stream.logs[string(origin)]
	if !ok {
		parsed, err := events.ParseOrigin(string(origin))
		if err != nil {
			return err
		}
		r = c.of(events.Log{Origin: parsed, Stream: stream.name, Partition: c.partition})
		stream.logs[string(origin)] = r
	}
	r.meta.add(&r.changes, &touched{
		key: key, now: value, live: stream.rule.Live(value), hash: c.hasher.Slice(stream.name, key, value), bucket: digest.BucketOf(key),
	})
	return nil
}
