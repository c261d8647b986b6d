package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
)

const (
	// So many keys, or so many bytes of them, may wait for a watcher before no more
	// are gathered for it. It goes on from there when it has taken them, as long as
	// the shards remember what has changed meanwhile.
	maxPendingKeys  = 10_000
	maxPendingBytes = 1 << 20

	// markInterval is how often a watcher without changes is told where it is.
	markInterval = 10 * time.Second
)

// watchOwn emits the changes of keys in shards of this node until the context ends
// or the watcher is too slow. The fold never waits for it: what has changed is
// gathered on the side, key by key, and emitted as it is by then.
func (r *Region) watchOwn(ctx context.Context, p api.WatchParams, emit func(api.Change) error) error {
	wanted, err := r.wantedKeys(p)
	if err != nil {
		return err
	}
	open, release, err := r.useOwn(p.Partitions)
	if err != nil {
		return err
	}
	release() // what is followed is in memory, and the fence of a shard ends it
	shards := make([]*projections.Shard, len(open))
	for i, s := range open {
		shards[i] = s.Shard
	}
	var from events.Vector
	if p.From != nil {
		from = p.From.Clone()
	}
	feed, err := projections.Follow(shards, p.Stream, wanted, from)
	if err != nil {
		return fmt.Errorf("watch stream %s of %s: %w", p.Stream, r.cfg.Region, err)
	}
	cut := maps.Clone(feed.Cut()) // before anything is gathered: what is comes behind it
	w := &watch{region: r, stream: p.Stream, partitions: p.Partitions, emit: emit, pending: pending{
		keys: map[string]int{}, cut: cut, ready: make(chan struct{}, 1), taken: make(chan struct{}, 1),
	}}
	ctx, cancel := context.WithCancel(ctx)
	var gathering sync.WaitGroup
	defer gathering.Wait()
	defer cancel()
	gathering.Go(func() {
		defer feed.Close()
		w.pending.gather(ctx, feed)
	})
	return w.run(ctx, cut)
}

func (r *Region) wantedKeys(p api.WatchParams) (func(key string) bool, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil {
		return nil, err
	}
	if len(p.Key) > 0 && len(p.Prefix) > 0 {
		return nil, events.Errorf(events.KindInvalid, "watch: want a key or a prefix, not both")
	}
	if len(p.Key) > 0 {
		key := string(p.Key)
		return func(k string) bool { return k == key }, nil
	}
	prefix := string(bytes.Clone(p.Prefix))
	return func(k string) bool { return strings.HasPrefix(k, prefix) }, nil
}

// watch emits what was gathered for one watcher.
type watch struct {
	region     *Region
	stream     events.Stream
	partitions []int32 // that are followed
	emit       func(api.Change) error
	pending    pending
}

// run emits what is gathered behind a cut.
func (w *watch) run(ctx context.Context, cut events.Vector) error {
	if err := w.mark(cut); err != nil {
		return err
	}
	tick := time.NewTicker(markInterval)
	defer tick.Stop()
	for {
		var keys []changedKey
		var end error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.pending.ready:
			keys, cut, end = w.pending.take()
		case <-tick.C:
			if err := w.mark(cut); err != nil {
				return err
			}
		}
		if err := w.changes(ctx, keys, cut); err != nil {
			return err
		}
		if end != nil {
			return fmt.Errorf("the watch ends: %w; go on from the last context", end)
		}
		if len(keys) > 0 {
			tick.Reset(markInterval)
		}
	}
}

// mark says where the watcher is.
func (w *watch) mark(cut events.Vector) error { return w.emit(api.Change{Context: &cut}) }

// changes emits the views of keys. Only the last has a context: from those before
// it one could not go on without missing others. A view has everything before the cut,
// whoever the shard has moved to: what it lacked would not be told any more.
func (w *watch) changes(ctx context.Context, keys []changedKey, cut events.Vector) error {
	followed := events.Vector{}
	for log, next := range cut {
		if slices.Contains(w.partitions, log.Partition) {
			followed[log] = next
		}
	}
	for i, k := range keys {
		e, err := w.region.view(ctx, w.stream, k.key, followed)
		if err != nil {
			return err
		}
		change := api.Change{Key: []byte(k.key), Deleted: !e.Exists}
		switch {
		case e.Exists:
			entry := api.EntryOf(e)
			change.Entry = &entry
		case k.upkeep && i < len(keys)-1:
			continue // it was not there before
		case k.upkeep:
			change = api.Change{}
		}
		if i == len(keys)-1 {
			change.Context = &cut
		}
		if err := w.emit(change); err != nil {
			return err
		}
	}
	return nil
}

// changedKey is a key that has changed: perhaps by upkeep alone, so that it was not seen before.
type changedKey struct {
	key    string
	upkeep bool
}

// pending is what has changed and was not emitted yet.
type pending struct {
	ready chan struct{} // there is something, or the end
	taken chan struct{} // there is room again

	mu    sync.Mutex
	keys  map[string]int // places in order
	order []changedKey
	bytes int
	cut   events.Vector // after all of them
	end   error         // why nothing more comes
}

// gather follows the feed until it ends.
func (p *pending) gather(ctx context.Context, feed *projections.Feed) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-feed.Moved():
		}
		var changed []changedKey
		err := feed.Pull(func(key string, upkeep bool) { changed = append(changed, changedKey{key, upkeep}) })
		for isFull := p.add(changed, feed.Cut(), err); isFull; isFull = p.isFull() {
			select {
			case <-ctx.Done():
				return
			case <-p.taken:
			}
		}
		if err != nil {
			return
		}
	}
}

// add takes in what was pulled.
func (p *pending) add(changed []changedKey, cut events.Vector, end error) (isFull bool) {
	p.mu.Lock()
	for _, k := range changed {
		i, known := p.keys[k.key]
		if known {
			p.order[i].upkeep = p.order[i].upkeep && k.upkeep
			continue
		}
		p.keys[k.key] = len(p.order)
		p.order = append(p.order, k)
		p.bytes += len(k.key)
	}
	p.cut, p.end = maps.Clone(cut), end
	p.mu.Unlock()
	signal(p.ready)
	return end == nil && p.isFull()
}

func (p *pending) isFull() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.order) > maxPendingKeys || p.bytes > maxPendingBytes
}

// take empties it.
func (p *pending) take() (keys []changedKey, cut events.Vector, end error) {
	p.mu.Lock()
	defer signal(p.taken)
	defer p.mu.Unlock()
	keys, cut, end = p.order, p.cut, p.end
	p.keys, p.order, p.bytes = map[string]int{}, nil, 0
	return keys, cut, end
}

// signal tells whoever listens to a channel with room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
