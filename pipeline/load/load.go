package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Node is the part of a node's API that a load needs.
type Node interface {
	Load(ctx context.Context, p api.LoadParams) (*api.LoadResult, error)
	Landed(ctx context.Context, p api.LandedParams) (*api.LandedResult, error)
}

// Config is how an input is loaded.
type Config struct {
	Stream   events.Stream
	Default  events.Region // of items that name none
	Progress string        // path of the file that notes the progress
	Again    bool          // load once more what was loaded before, as new events

	// Patience is how long a region that does not answer is tried again before
	// the load gives up; it can be resumed later. 0: not at all.
	Patience time.Duration

	// Written, if not nil, is told of every batch. It may be called from several
	// goroutines.
	Written func(region events.Region, events int)

	// Checked, if not nil, is told how many events the input has, and how many
	// of them an earlier run has written.
	Checked func(total, before int)
}

// Result says what a load did.
type Result struct {
	Events  int                   `json:"events"` // of the input
	Written map[events.Region]int `json:"written"`
	Before  int                   `json:"before"` // written by an earlier run
}

const (
	batchEvents   = 2_000
	batchBytes    = 2 << 20 // well below what a node accepts as a body
	shownFaults   = 20
	retryLeast    = 100 * time.Millisecond
	retryMost     = 2 * time.Second
	sourcePrefix  = "evenkeel-load/"
	queuedBatches = 2
)

// loader is one run of a load.
type loader struct {
	cfg    Config
	input  *Input
	nodes  map[events.Region]Node
	source string

	mu      sync.Mutex // guards what follows
	state   *state
	written map[events.Region]int
}

// Run loads an input into the regions whose nodes are given.
func Run(ctx context.Context, input *Input, nodes map[events.Region]Node, cfg Config) (*Result, error) {
	l := &loader{cfg: cfg, input: input, nodes: nodes, source: sourcePrefix + cfg.Stream.String() + "/" + input.ID, written: map[events.Region]int{}}
	perRegion, total, err := l.check()
	if err != nil {
		return nil, err
	}
	if l.state, err = loadState(cfg.Progress, l.source, input.Name); err != nil {
		return nil, err
	}
	if l.state.Done && !cfg.Again {
		return nil, events.Errorf(events.KindRefused, "%s has been loaded into stream %s before; --again writes it once more", input.Name, cfg.Stream)
	}
	if l.state.Done {
		l.state.Done, l.state.Regions = false, map[events.Region]*regionsState{}
	}
	result := &Result{Events: total, Written: l.written}
	for _, rs := range l.state.Regions {
		result.Before += rs.Written
	}
	if cfg.Checked != nil {
		cfg.Checked(total, result.Before)
	}
	if err := l.send(ctx, perRegion); err != nil {
		return result, err
	}
	l.state.Done = true
	return result, l.state.save(cfg.Progress)
}

// check reads the whole input once and tells all that is wrong with it.
func (l *loader) check() (perRegion map[events.Region]int, total int, err error) {
	perRegion = map[events.Region]int{}
	var faults []error
	count := 0
	for item, err := range l.input.Items() {
		var fault *ItemError
		if err != nil && !errors.As(err, &fault) {
			return nil, 0, err
		}
		if err == nil {
			err = l.checkItem(item)
		}
		if err != nil {
			if count++; count <= shownFaults {
				faults = append(faults, err)
			}
			continue
		}
		perRegion[l.regionOf(item)]++
		total++
	}
	if count > shownFaults {
		faults = append(faults, fmt.Errorf("and %d more", count-shownFaults))
	}
	if count > 0 {
		return nil, 0, events.Errorf(events.KindInvalid, "nothing was loaded, the input has %d faults:\n%w", count, errors.Join(faults...))
	}
	return perRegion, total, nil
}

func (l *loader) checkItem(item Item) error {
	region := l.regionOf(item)
	if _, ok := l.nodes[region]; !ok {
		known := slices.Sorted(maps.Keys(l.nodes))
		return &ItemError{Input: l.input.Name, Place: item.Place, Reason: fmt.Sprintf("region %q is unknown; there are %v", region, known)}
	}
	if len(item.Event.Key) > events.MaxKeyBytes || len(item.Event.Value) > events.MaxValueBytes {
		return &ItemError{Input: l.input.Name, Place: item.Place, Reason: "key or value is too large"}
	}
	return nil
}

func (l *loader) regionOf(item Item) events.Region {
	if item.Region == "" {
		return l.cfg.Default
	}
	return item.Region
}

// send reads the input again and hands its batches to one sender per region.
func (l *loader) send(ctx context.Context, perRegion map[events.Region]int) error {
	g, ctx := errgroup.WithContext(ctx)
	batches := map[events.Region]*batch{}
	queues := map[events.Region]chan *batch{}
	for region := range perRegion {
		batches[region], queues[region] = &batch{}, make(chan *batch, queuedBatches)
		s := &sender{loader: l, region: region, node: l.nodes[region]}
		g.Go(func() error { return s.run(ctx, queues[region]) })
	}
	g.Go(func() error {
		defer func() {
			for _, q := range queues {
				close(q)
			}
		}()
		for item, err := range l.input.Items() {
			if err != nil {
				return fmt.Errorf("the input has changed since it was checked: %w", err)
			}
			region := l.regionOf(item)
			b := batches[region]
			if b == nil {
				return fmt.Errorf("the input has changed since it was checked: %s:%d is for region %s", l.input.Name, item.Place, region)
			}
			b.add(item)
			if b.full() {
				batches[region] = &batch{}
				if err := enqueue(ctx, queues[region], b); err != nil {
					return err
				}
			}
		}
		for region, b := range batches {
			if err := enqueue(ctx, queues[region], b); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func enqueue(ctx context.Context, queue chan<- *batch, b *batch) error {
	select {
	case queue <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// batch is a run of one region's items.
type batch struct {
	events []api.LoadEvent
	places []int
	bytes  int
}

func (b *batch) add(item Item) {
	item.Event.ID = strconv.Itoa(item.Place)
	b.events = append(b.events, item.Event)
	b.places = append(b.places, item.Place)
	b.bytes += len(item.Event.Key) + len(item.Event.Value)
}

func (b *batch) full() bool { return len(b.events) >= batchEvents || b.bytes >= batchBytes }
