package pipeline

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
)

// RestoreShards implements api.Node: it has shards begin anew with what the bucket has, on
// the nodes that own them, and returns once all of these have noted it.
func (r *Region) RestoreShards(ctx context.Context, p api.RestoreShardsParams) (*api.RestoringShards, error) {
	if err := r.needBucket(); err != nil {
		return nil, err
	}
	if err := p.Request.Validate(); err != nil {
		return nil, err
	}
	if len(p.Request.Streams) > 0 {
		return nil, events.Errorf(events.KindInvalid, "restore shards: a shard has all streams, and cannot lack some of them")
	}
	shards := r.cfg.Shards()
	if len(p.Request.Shards) > 0 {
		shards = slices.Compact(slices.Sorted(slices.Values(p.Request.Shards)))
	}
	for _, s := range shards {
		if s < 0 || s >= r.cfg.Partitions {
			return nil, events.Errorf(events.KindInvalid, "restore shards: there is no shard %d; %s has %d", s, r.cfg.Region, r.cfg.Partitions)
		}
	}
	done := &api.RestoringShards{Shards: []api.RestoringShard{}}
	own, others, err := r.assigned(ctx, shards)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	err = r.askOthers(ctx, others, func(ctx context.Context, i int, c *api.Client) error {
		theirs := p
		theirs.Request.Shards = others[i].shards
		answer, err := c.RestoreShards(ctx, theirs)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		done.Shards = append(done.Shards, answer.Shards...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, shard := range own {
		req := p.Request
		req.Shards = []int32{shard}
		if err := r.renewals.begin(shard, req, p.AcceptDiverged); err != nil {
			return nil, err
		}
		if at := r.renewals.status(shard, nil); at != nil {
			done.Shards = append(done.Shards, api.RestoringShard{Partition: shard, Node: r.name, ShardRestore: *at})
		}
	}
	r.keeper.nudge()
	slices.SortFunc(done.Shards, func(a, b api.RestoringShard) int { return cmp.Compare(a.Partition, b.Partition) })
	return done, nil
}

// assigned says on which nodes shards are to be, whether or not they are open there. This
// node's own come apart.
func (r *Region) assigned(ctx context.Context, partitions []int32) (own []int32, others []share, err error) {
	_, forwarded := api.ForwardedFrom(ctx)
	byNode := map[string]int{}
	for _, p := range partitions {
		if r.member.Has(p) {
			own = append(own, p)
			continue
		}
		c, ok := r.claims.Of(claims.ShardKey(p))
		if !ok || forwarded || c.Node == r.name {
			return nil, nil, events.Errorf(events.KindNotReady, "shard %d of %s has no owner at present, or is moving; try again", p, r.cfg.Region)
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
