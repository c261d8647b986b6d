package backupbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/touched"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

const (
	deltaShards = 4
	deltaRounds = 7
	deltaTimes  = 10 // how much larger the larger state is
)

// deltas measures what a delta costs, by how much has changed and by how large the state
// is. Both states take turns, so that what disturbs one disturbs the other.
func deltas(ctx context.Context, e *env) (err error) {
	keys, changes := 200_000, []int{1_000, 20_000}
	if e.Short {
		keys, changes = 30_000, []int{1_000, 10_000}
	}
	s, err := e.newStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var sizes [2]*deltaState
	for i, n := range []int{keys, deltaTimes * keys} {
		e.logf("%d keys of %d bytes are folded", n, valueBytes)
		if sizes[i], err = e.newDeltaState(ctx, s, fmt.Sprintf("%d times", n/keys), n); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sizes[i].close()) }()
	}
	for _, changed := range changes {
		var measured [2][]deltaCost
		for range deltaRounds {
			for i, st := range sizes {
				cost, err := st.delta(ctx, changed)
				if err != nil {
					return err
				}
				measured[i] = append(measured[i], cost)
			}
		}
		small, large := median(measured[0]), median(measured[1])
		for i, cost := range []deltaCost{small, large} {
			name := fmt.Sprintf("%d changed keys, state %s", changed, sizes[i].name)
			e.add(name, "delta", cost.seconds, "s")
			e.add(name, "uploaded", cost.uploaded/megabyte, "MB")
			e.report.deltaRequests = cost.requests
			e.add(name, "requests", cost.requests, "a delta")
			e.add(name, "amplification", cost.uploaded/cost.changed, "bytes uploaded / bytes changed")
		}
		timeRatio, bytesRatio := large.seconds/small.seconds, large.uploaded/small.uploaded
		e.add(fmt.Sprintf("%d changed keys", changed), "time at ten times the state", timeRatio, "of that at one time")
		e.add(fmt.Sprintf("%d changed keys", changed), "bytes at ten times the state", bytesRatio, "of those at one time")
		e.report.Summary.DeltaTimeRatio10x, e.report.Summary.DeltaBytesRatio10x = &timeRatio, &bytesRatio
	}
	return nil
}

// deltaCost is what one delta took.
type deltaCost struct {
	seconds  float64
	uploaded float64 // bytes, with the manifest
	changed  float64 // bytes of keys and values that were written
	requests float64 // to the bucket
}

// median is the cost whose time is in the middle.
func median(costs []deltaCost) deltaCost {
	slices.SortFunc(costs, func(a, b deltaCost) int { return int((a.seconds - b.seconds) * 1e9) })
	return costs[len(costs)/2]
}

// deltaState is a state of which deltas are made, each upon the one before.
type deltaState struct {
	*state
	name   string
	keys   int
	store  *store
	noted  []*touched.Set // by shard
	newest *format.Manifest
	at     int // of the keys that are changed in turn
}

func (e *env) newDeltaState(ctx context.Context, s *store, name string, keys int) (*deltaState, error) {
	st, err := e.newState(name, deltaShards)
	if err != nil {
		return nil, err
	}
	d := &deltaState{state: st, name: name, keys: keys, store: s}
	if err := st.put(ctx, keys, func(i int) int { return i }, valueBytes); err != nil {
		return nil, errors.Join(err, d.close())
	}
	for range deltaShards {
		d.noted = append(d.noted, touched.New(256<<20))
	}
	st.note = func(l events.Log) *touched.Set { return d.noted[l.Partition] }
	for l, next := range st.next {
		d.noted[l.Partition].Begin(l, next)
	}
	if err := d.full(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// full makes the backup that the first delta builds on.
func (d *deltaState) full(ctx context.Context) error {
	cuts, err := d.cuts()
	if err == nil {
		d.newest, err = snapshotter.Full(ctx, d.store.bucket, cuts, backupConfig(d.store))
	}
	return errors.Join(err, closeCuts(cuts))
}

// deltaCut is a cut of which what has changed is written.
type deltaCut struct {
	cut
	since events.Vector
	keys  map[events.Log][]string
}

// WriteTables implements snapshotter.Cut.
func (c deltaCut) WriteTables(ctx context.Context, tableBytes int64, create func(first []byte) (io.WriteCloser, error)) error {
	return c.WriteDelta(ctx, c.since, c.keys, tableBytes, create)
}

// stride is how far apart the keys are that are changed: it has no factor in common
// with their number.
const stride = 7_919

// delta changes so many keys, all over the state, and measures the delta of that.
func (d *deltaState) delta(ctx context.Context, changed int) (cost deltaCost, err error) {
	err = d.put(ctx, changed, func(int) int {
		d.at += stride
		return d.at % d.keys
	}, valueBytes)
	if err != nil {
		return cost, err
	}
	counted := &countingBucket{Bucket: d.store.bucket}
	took, _, err := timed(func() error {
		m, err := d.make(ctx, counted)
		if err == nil {
			cost.uploaded, d.newest = float64(m.StoredBytes()), m
		}
		return err
	})
	if err != nil {
		return cost, err
	}
	text, err := d.newest.Encode()
	const keyBytes = 14
	cost.requests = float64(counted.requests.Load())
	cost.seconds, cost.changed = took.Seconds(), float64(changed*(keyBytes+valueBytes))
	cost.uploaded += float64(len(text))
	return cost, err
}

// make makes a delta upon the newest backup.
func (d *deltaState) make(ctx context.Context, bucket objstore.Bucket) (m *format.Manifest, err error) {
	cuts, err := d.cuts()
	defer func() { err = errors.Join(err, closeCuts(cuts)) }()
	if err != nil {
		return nil, err
	}
	for i, c := range cuts {
		since := events.VectorOf(d.newest.Shards[i].States)
		keys, err := d.noted[i].Since(since, c.(cut).Vector())
		if err != nil {
			return nil, err
		}
		cuts[i] = deltaCut{c.(cut), since, keys}
	}
	id, now := snapshotter.NewID()
	shards, err := snapshotter.Shards(ctx, bucket, id, cuts, backupConfig(d.store))
	if err != nil {
		return nil, err
	}
	return snapshotter.PublishDelta(ctx, bucket, id, now, d.newest, shards, backupConfig(d.store))
}
