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
	batchBytes     = 2 << 20 // in JSON; less if a node takes no such bodies
	restBytes      = 256     // of a request, besides events, stream and source
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
	asked, total, err := l.check()
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
	if err := l.send(ctx, asked); err != nil {
		return result, err
	}
	l.state.Done = true
	return result, l.state.save(cfg.Progress)
}

// check reads the whole input once, tells all that is wrong with it whatever node it goes to,
// and names the source. asked is what it asks of the nodes.
func (l *loader) check() (asked map[events.Region]*needs, total int, err error) {
	asked = map[events.Region]*needs{}
	var faults faults
	useDefault := false
	for item, err := range l.input.Items() {
		var fault *ItemError
		if err != nil && !errors.As(err, &fault) {
			faults.add(err)
			return nil, 0, faults.error(events.KindOf(err), nothingLoaded)
		}
		if err == nil {
			err = l.checkItem(item)
		}
		if err != nil {
			faults.add(err)
			continue
		}
		useDefault = useDefault || item.Region == ""
		region := l.regionOf(item)
		if asked[region] == nil {
			asked[region] = &needs{}
		}
		asked[region].add(item)
		total++
	}
	l.source = sourcePrefix + l.cfg.Stream.String() + "/" + l.input.ID
	if useDefault {
		l.source += "/" + l.cfg.Default.String() // by another default it is another load
	}
	return asked, total, faults.error(events.KindInvalid, nothingLoaded)
}

const nothingLoaded = "nothing was loaded"

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

// error is what has become of the load, and why; nil: there are no faults.
func (f *faults) error(kind events.Kind, outcome string) error {
	if f.count == 0 {
		return nil
	}
	if more := f.count - len(f.shown); more > 0 {
		f.shown = append(f.shown, fmt.Errorf("and %d more", more))
	}
	return events.Errorf(kind, "%s; faults of the input: %d\n%w", outcome, f.count, errors.Join(f.shown...))
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
	if e.Clock != nil && events.TooFarAhead(*e.Clock, events.MaxFoldSkew) { // no node is told to take more
		return fault("clock %s is more than %s ahead", e.Clock, events.MaxFoldSkew)
	}
	return nil
}

func (l *loader) regionOf(item Item) events.Region {
	if item.Region == "" {
		return l.cfg.Default
	}
	return item.Region
}

// send reads the input again and hands its batches to one sender per region. Before the
// first of them all nodes have said what they take.
func (l *loader) send(ctx context.Context, asked map[events.Region]*needs) error {
	senders, err := l.begin(ctx, asked)
	if err != nil {
		return err
	}
	if err := l.checkLimits(senders, asked); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	queues := map[events.Region]chan *batch{}
	for region, s := range senders {
		queue := make(chan *batch, queuedBatches)
		queues[region] = queue
		g.Go(func() error { return s.run(ctx, queue) })
	}
	g.Go(func() error {
		defer func() {
			for _, q := range queues {
				close(q)
			}
		}()
		return l.feed(ctx, senders, queues)
	})
	return g.Wait()
}

// begin finds out of each region where the load begins there, and what its node takes.
func (l *loader) begin(ctx context.Context, asked map[events.Region]*needs) (map[events.Region]*sender, error) {
	senders := map[events.Region]*sender{}
	g, ctx := errgroup.WithContext(ctx)
	for region := range asked {
		s := &sender{loader: l, region: region, node: l.nodes[region]}
		senders[region] = s
		g.Go(func() error { return s.begin(ctx) })
	}
	return senders, g.Wait()
}

// feed makes batches of the input for each sender's queue.
func (l *loader) feed(ctx context.Context, senders map[events.Region]*sender, queues map[events.Region]chan *batch) error {
	batches := map[events.Region]*batch{}
	for region := range senders {
		batches[region] = &batch{}
	}
	for item, err := range l.input.Items() {
		if err != nil {
			return l.changed(err)
		}
		region := l.regionOf(item)
		b := batches[region]
		if b == nil {
			return errChanged(l.input.Name)
		}
		if b.isFull(item, l.cfg.batchEvents, senders[region].limits.batch) {
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
}

// changed is an error of an input that was found good before: a fault of an item is one that
// was not there then.
func (l *loader) changed(err error) error {
	if fault := (*ItemError)(nil); errors.As(err, &fault) {
		return fmt.Errorf("%w: %w", errChanged(l.input.Name), err)
	}
	return err
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
func (b *batch) isFull(item Item, mostEvents, mostBytes int) bool {
	return len(b.events) >= mostEvents || len(b.events) > 0 && b.bytes+jsonSize(item) > mostBytes
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
