package pipeline

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
)

// parallelPeers bounds how many other nodes one call asks at a time.
const parallelPeers = 8

// share is what one node has of what is asked for.
type share struct {
	node, address string
	shards        []int32
}

// shares says which node to ask for which shards. This node's own share comes
// apart; it is open here. An error names a shard that nobody has.
func (r *Region) shares(partitions []int32) (own []int32, others []share, err error) {
	byNode := map[string]int{}
	for _, p := range partitions {
		if shard := r.shards.get(p); shard != nil && !shard.isClosing() {
			own = append(own, p)
			continue
		}
		c, ok := r.claims.Of(claims.ShardKey(p))
		switch {
		case !ok:
			return nil, nil, events.Errorf(events.KindNotReady, "shard %d of %s has no owner at present; the nodes of the region are starting, or none of them runs", p, r.cfg.Region)
		case c.Node == r.name:
			return nil, nil, events.Errorf(events.KindNotReady, "shard %d of %s is %s on node %s", p, r.cfg.Region, r.keeper.stateOf(p).state, c.Node)
		}
		i, seen := byNode[c.Node]
		if !seen {
			i = len(others)
			byNode[c.Node] = i
			others = append(others, share{node: c.Node, address: c.Address})
		}
		others[i].shards = append(others[i].shards, p)
	}
	return own, others, nil
}

// useOwn takes shards that are open here; the caller calls release. Another node may
// have claimed one of them by now.
func (r *Region) useOwn(partitions []int32) (shards []*openShard, release func(), err error) {
	release = func() {
		for _, s := range shards {
			s.done()
		}
	}
	for _, p := range partitions {
		s := r.shards.get(p)
		if s == nil || !s.use() {
			release()
			return nil, nil, r.notHere(p)
		}
		shards = append(shards, s)
	}
	return shards, release, nil
}

func (r *Region) notHere(p int32) error {
	return events.Errorf(events.KindNotReady, "shard %d of %s is not open on node %s (%s)", p, r.cfg.Region, r.name, r.keeper.stateOf(p).state)
}

// askOthers asks nodes at the same time, a bounded number of them. An error of one
// ends the others.
func (r *Region) askOthers(ctx context.Context, others []share, ask func(ctx context.Context, i int, c *api.Client) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelPeers)
	for i, o := range others {
		g.Go(func() error {
			c, err := r.peers.At(o.node, o.address)
			if err == nil {
				err = ask(ctx, i, c)
			}
			if err != nil {
				return namedShards(o, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// namedShards says of an error of a node what could not be had.
func namedShards(o share, err error) error {
	if len(o.shards) == 0 || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("shard %d, on node %s at %s: %w", o.shards[0], o.node, o.address, err)
}
