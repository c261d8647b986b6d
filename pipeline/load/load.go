package load

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

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

	batchEvents int // at most so many in one request; 0: maxBatchEvents
}

// Result says what a load did.
type Result struct {
	Events  int                   `json:"events"` // of the input
	Written map[events.Region]int `json:"written"`
	Before  int                   `json:"before"` // written by an earlier run
}

const (
	maxBatchEvents = 2_000
	batchBytes     = 2 << 20 // in JSON; well below what a node accepts as a body
	shownFaults    = 20
	retryLeast     = 100 * time.Millisecond
	retryMost      = 2 * time.Second
	sourcePrefix   = "evenkeel-load/"
	queuedBatches  = 2
)

// loader is one run of a load.
type loader struct {
	cfg    Config
	input  *Input
	nodes  map[events.Region]Node
	source string // CloudEvents source of the events: what is loaded to where

	mu      sync.Mutex // guards what follows
	state   *state
	written map[events.Region]int
}

// Run loads an input into the regions whose nodes are given.
func Run(ctx context.Context, input *Input, nodes map[events.Region]Node, cfg Config) (*Result, error) {
	if cfg.batchEvents == 0 {
		cfg.batchEvents = maxBatchEvents
	}
	l := &loader{cfg: cfg, input: input, nodes: nodes, written: map[events.Region]int{}}
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

// check reads the whole input once, tells all that is wrong with it, and names
// the source.
func (l *loader) check() (perRegion map[events.Region]int, total int, err error) {
	perRegion = map[events.Region]int{}
	var faults faults
	useDefault := false
	for item, err := range l.input.Items() {
		var fault *ItemError
		if err != nil && !errors.As(err, &fault) {
			faults.add(err)
			return nil, 0, faults.error(events.KindOf(err))
		}
		if err == nil {
			err = l.checkItem(item)
		}
		if err != nil {
			faults.add(err)
			continue
		}
		useDefault = useDefault || item.Region == ""
		perRegion[l.regionOf(item)]++
		total++
	}
	l.source = sourcePrefix + l.cfg.Stream.String() + "/" + l.input.ID
	if useDefault {
		l.source += "/" + l.cfg.Default.String() // by another default it is another load
	}
	return perRegion, total, faults.error(events.KindInvalid)
}

// faults collects what is wrong with an input.
type faults struct {
	shown []error
	count int
}

func (f *faults) add(err error) {
	if f.count++; f.count <= shownFaults {
		f.shown = append(f.shown, err)
	}
}

func (f *faults) error(kind events.Kind) error {
	if f.count == 0 {
		return nil
	}
	if more := f.count - len(f.shown); more > 0 {
		f.shown = append(f.shown, fmt.Errorf("and %d more", more))
	}
	return events.Errorf(kind, "nothing was loaded; faults of the input: %d\n%w", f.count, errors.Join(f.shown...))
}

func (l *loader) checkItem(item Item) error {
	region, e := l.regionOf(item), item.Event
	fault := func(format string, args ...any) error {
		return &ItemError{Input: l.input.Name, Place: item.Place, Reason: fmt.Sprintf(format, args...)}
	}
	if _, ok := l.nodes[region]; !ok {
		return fault("region %q is unknown; there are %v", region, slices.Sorted(maps.Keys(l.nodes)))
	}
	if len(e.Key) > events.MaxKeyBytes || len(e.Value) > events.MaxValueBytes {
		return fault("key of %d and value of %d bytes: at most %d and %d are possible", len(e.Key), len(e.Value), events.MaxKeyBytes, events.MaxValueBytes)
	}
	if e.Clock != nil && events.TooFarAhead(*e.Clock, events.MaxClockSkew) {
		return fault("clock %s is more than %s ahead", e.Clock, events.MaxClockSkew)
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
		queue := make(chan *batch, queuedBatches)
		batches[region], queues[region] = &batch{}, queue
		s := &sender{loader: l, region: region, node: l.nodes[region]}
		g.Go(func() error { return s.run(ctx, queue) })
	}
	g.Go(func() error {
		defer func() {
			for _, q := range queues {
				close(q)
			}
		}()
		for item, err := range l.input.Items() {
			var fault *ItemError
			if errors.As(err, &fault) {
				return fmt.Errorf("%w: %w", errChanged(l.input.Name), err)
			}
			if err != nil {
				return err
			}
			region := l.regionOf(item)
			b := batches[region]
			if b == nil {
				return errChanged(l.input.Name)
			}
			if b.isFull(item, l.cfg.batchEvents) {
				if err := enqueue(ctx, queues[region], b); err != nil {
					return err
				}
				b = &batch{}
				batches[region] = b
			}
			b.add(item)
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
	bytes  int // in JSON
}

func (b *batch) add(item Item) {
	item.Event.ID = strconv.Itoa(item.Place)
	b.events = append(b.events, item.Event)
	b.bytes += jsonSize(item)
}

// isFull reports whether the batch has no room for the item.
func (b *batch) isFull(item Item, mostEvents int) bool {
	return len(b.events) >= mostEvents || len(b.events) > 0 && b.bytes+jsonSize(item) > batchBytes
}

// jsonSize is an upper bound of what an item takes in a request.
func jsonSize(item Item) int {
	const rest = 128 // id, clock, content type and the names of members
	return rest + textSize(item.Event.Key) + textSize(item.Event.Value)
}

func textSize(b []byte) int {
	if !utf8.Valid(b) {
		return base64.StdEncoding.EncodedLen(len(b))
	}
	n := len(b)
	for _, c := range b {
		switch {
		case c < ' ':
			n += len(`\u0000`) - 1
		case c == '"' || c == '\\':
			n++
		case c == 0xe2: // begins U+2028 and U+2029, which are escaped, and others
			n += len(`\u2028`) - 3
		}
	}
	return n
}
