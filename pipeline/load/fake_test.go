package load_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

const (
	us = events.Region("us-east-1")
	eu = events.Region("eu-central-1")

	partitions = 3
)

// record is an event in a log.
type record struct {
	source string
	api.LoadEvent
}

// region is a region's logs behind a node that keeps the contract of api.Node,
// and a network between it and the load that does its worst.
type region struct {
	name events.Region
	logs [partitions][]record
	turn map[string]string

	// trouble draws what goes wrong with the next call; nil: nothing.
	trouble func() trouble
	mu      sync.Mutex // one draw at a time

	calls int // of Load that were worked on

	limits *api.LoadLimits // nil: it has none and tells of none

	// one is held by whoever works on the logs. It is a channel, not a mutex: a
	// bubble's time goes on while others wait for it.
	one chan struct{}
}

var _ load.Node = (*region)(nil)

// trouble is what goes wrong with one call.
type trouble int

const (
	none     trouble = iota
	refused          // the call does not reach the node
	half             // a part of each log's events is written, then Kafka is gone
	lost             // all is written, the answer is lost
	slow             // the caller hears of a broken connection while the node works on
	late             // the caller hears of a broken connection; the node begins later
	troubles         // how many there are
)

func newRegion(name events.Region) *region {
	return &region{name: name, turn: map[string]string{}, one: make(chan struct{}, 1)}
}

func (r *region) strike() trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trouble == nil {
		return none
	}
	return r.trouble()
}

func unreachable(name events.Region) error {
	return events.Errorf(events.KindNotReady, "node of %s cannot be reached", name)
}

func (r *region) Load(ctx context.Context, p api.LoadParams) (*api.LoadResult, error) {
	switch r.strike() {
	case none:
		return r.take(ctx, p, len(p.Events), 0)
	case half:
		if _, err := r.take(ctx, p, len(p.Events)/2, 0); err != nil {
			return nil, err
		}
		return nil, events.Errorf(events.KindNotReady, "not acknowledged, it may or may not have been written")
	case lost:
		if _, err := r.take(ctx, p, len(p.Events), 0); err != nil {
			return nil, err
		}
	case slow:
		working := make(chan bool)
		go func() {
			r.one <- struct{}{}
			close(working)
			time.Sleep(3 * time.Second)
			r.write(p, len(p.Events))
			<-r.one
		}()
		<-working
	case late:
		go func() {
			_, _ = r.take(context.WithoutCancel(ctx), p, len(p.Events), 3*time.Second) // nobody hears the answer
		}()
	}
	return nil, unreachable(r.name)
}

// take writes the first most events of each log, once it is its turn.
func (r *region) take(ctx context.Context, p api.LoadParams, most int, after time.Duration) (*api.LoadResult, error) {
	time.Sleep(after)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	select {
	case r.one <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-r.one }()
	return r.write(p, most)
}

func (r *region) write(p api.LoadParams, most int) (*api.LoadResult, error) {
	r.calls++
	if p.Turn != r.turn[p.Source] {
		return nil, events.Errorf(events.KindNotReady, "another turn has begun")
	}
	for _, e := range p.Events {
		if r.limits != nil && int64(len(e.Value)) > r.limits.MaxValueBytes {
			return nil, events.Errorf(events.KindInvalid, "event %s: too large", e.ID)
		}
	}
	var taken [partitions]int
	res := &api.LoadResult{Written: len(p.Events), Ends: events.Vector{}}
	for _, e := range p.Events {
		h := fnv.New32a()
		h.Write(e.Key)
		n := int(h.Sum32() % partitions)
		if taken[n]++; taken[n] > most/partitions && most < len(p.Events) {
			continue
		}
		r.logs[n] = append(r.logs[n], record{p.Source, e})
		res.Ends[r.log(n)] = int64(len(r.logs[n]))
	}
	return res, nil
}

func (r *region) log(partition int) events.Log {
	return events.Log{Origin: events.FirstOrigin(r.name), Stream: "session", Partition: int32(partition)}
}

func (r *region) Landed(ctx context.Context, p api.LandedParams) (*api.LandedResult, error) {
	if hit := r.strike(); hit == refused {
		return nil, unreachable(r.name)
	}
	select {
	case r.one <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-r.one }()
	r.turn[p.Source] = strconv.Itoa(len(r.turn[p.Source])+1) + r.turn[p.Source]
	res := &api.LandedResult{IDs: []string{}, Ends: events.Vector{}, Turn: r.turn[p.Source], Limits: r.limits}
	for n, log := range r.logs {
		if len(log) > 0 {
			res.Ends[r.log(n)] = int64(len(log))
		}
		if p.After == nil {
			continue
		}
		for _, rec := range log[min((*p.After)[r.log(n)], int64(len(log))):] {
			if rec.source == p.Source {
				res.IDs = append(res.IDs, rec.ID)
			}
		}
	}
	return res, nil
}

// places lists, for each log, the places of the events in it.
func (r *region) places() (list [partitions][]int) {
	for n, log := range r.logs {
		for _, rec := range log {
			place, _ := strconv.Atoi(rec.ID)
			list[n] = append(list[n], place)
		}
	}
	return list
}

// checkExact: every item of the input is in the region's logs once and in order.
func (r *region) checkExact(items []load.Item) error {
	var errs []error
	want := map[int]load.Item{}
	for _, item := range items {
		if item.Region == r.name {
			want[item.Place] = item
		}
	}
	for n, places := range r.places() {
		last := 0
		for i, place := range places {
			item, ok := want[place]
			delete(want, place)
			switch rec := r.logs[n][i]; {
			case place <= last || !ok:
				errs = append(errs, fmt.Errorf("%s: partition %d: event %d is there twice, out of order, or does not belong there: %v", r.name, n, place, places))
			case string(rec.Key) != string(item.Event.Key) || string(rec.Value) != string(item.Event.Value):
				errs = append(errs, fmt.Errorf("%s: event %d is %q = %q", r.name, place, rec.Key, rec.Value))
			}
			last = place
		}
	}
	if len(want) > 0 {
		errs = append(errs, fmt.Errorf("%s: %d events are not there", r.name, len(want)))
	}
	return errors.Join(errs...)
}

// makeItems makes n items for the regions, and some lines between them that are
// none.
func makeItems(rng *rand.Rand, n int, regions ...events.Region) (items []load.Item) {
	place := 0
	for i := range n {
		place += 1 + rng.IntN(3)
		items = append(items, load.Item{
			Place: place, Region: regions[rng.IntN(len(regions))],
			Event: api.LoadEvent{Key: fmt.Appendf(nil, "key-%d", rng.IntN(10)), Value: fmt.Appendf(nil, "value-%d", i)},
		})
	}
	return items
}

func inputOf(items []load.Item) *load.Input {
	return &load.Input{Name: "test.jsonl", ID: "0123", Items: func() iter.Seq2[load.Item, error] {
		return func(yield func(load.Item, error) bool) {
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
		}
	}}
}

func nodesOf(regions ...*region) map[events.Region]load.Node {
	nodes := map[events.Region]load.Node{}
	for _, r := range regions {
		nodes[r.name] = r
	}
	return nodes
}

func configFor(t *testing.T) load.Config {
	t.Helper()
	return load.Config{Stream: "session", Default: us, Progress: filepath.Join(t.TempDir(), "progress.json"), Patience: time.Minute}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }
