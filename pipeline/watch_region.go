package pipeline

import (
	"context"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/peers"
)

// Watch implements api.Node: it puts together what the owners of the shards emit. A
// shard that moves ends it; the watcher goes on from the last context.
func (r *Region) Watch(ctx context.Context, p api.WatchParams, emit func(api.Change) error) error {
	if _, err := r.wantedKeys(p); err != nil {
		return err
	}
	for _, n := range p.Partitions {
		if n < 0 || n >= r.cfg.Partitions {
			return events.Errorf(events.KindInvalid, "partition %d: there are %d, from 0", n, r.cfg.Partitions)
		}
	}
	if len(p.Partitions) == 0 {
		p.Partitions = r.cfg.Shards()
	}
	var own []int32
	var others []share
	err := peers.WhileMoving(ctx, func() (err error) {
		own, others, err = r.shares(p.Partitions)
		return err
	})
	if err != nil {
		return err
	}
	if len(others) == 0 {
		return r.watchOwn(ctx, p, emit)
	}
	if err := peers.RefuseForward(ctx, "watch"); err != nil {
		return err
	}
	return r.watchAll(ctx, p, own, others, emit)
}

func (r *Region) watchAll(ctx context.Context, p api.WatchParams, own []int32, others []share, emit func(api.Change) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var parts [][]int32
	for _, o := range others {
		parts = append(parts, o.shards)
	}
	if len(own) > 0 {
		parts = append(parts, own)
	}
	m := &mergedWatch{emit: emit, parts: parts, cuts: make([]events.Vector, len(parts)), begun: make(chan struct{})}
	for i, o := range others {
		g.Go(func() error {
			c, err := r.peers.At(o.node, o.address)
			if err != nil {
				return err
			}
			theirs := p
			theirs.Partitions = o.shards
			for change, err := range c.Watch(ctx, theirs) {
				if err == nil {
					err = m.add(ctx, i, change)
				}
				if err != nil {
					return namedShards(o, err)
				}
			}
			return nil
		})
	}
	if len(own) > 0 {
		g.Go(func() error {
			mine := p
			mine.Partitions = own
			return r.watchOwn(ctx, mine, func(change api.Change) error { return m.add(ctx, len(others), change) })
		})
	}
	return g.Wait()
}

// mergedWatch makes one watch of those of several nodes.
type mergedWatch struct {
	emit  func(api.Change) error
	parts [][]int32 // the shards of each node

	mu    sync.Mutex
	cuts  []events.Vector // of each node: up to where it has emitted everything; nil: it has not begun
	begun chan struct{}   // closed when all have
}

// add emits a change of one of the nodes. A context is then that of all of them. The
// first change of each says only where it begins; the others wait until all have.
func (m *mergedWatch) add(ctx context.Context, i int, change api.Change) error {
	m.mu.Lock()
	first := m.cuts[i] == nil
	m.mu.Unlock()
	if !first {
		select {
		case <-m.begun:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if change.Context != nil {
		m.cuts[i] = m.ownLogs(i, *change.Context)
		if first && slices.ContainsFunc(m.cuts, func(cut events.Vector) bool { return cut == nil }) {
			return nil
		}
		all := events.Vector{}
		for _, cut := range m.cuts {
			maps.Copy(all, cut)
		}
		change.Context = &all
	}
	if first {
		defer close(m.begun)
	}
	return m.emit(change)
}

// ownLogs are the logs of a cut that a node can tell of.
func (m *mergedWatch) ownLogs(i int, cut events.Vector) events.Vector {
	own := events.Vector{}
	for log, next := range cut {
		if slices.Contains(m.parts[i], log.Partition) {
			own[log] = next
		}
	}
	return own
}
