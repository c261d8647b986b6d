package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections"
)

// What a call needs of a single shard goes through this file, and if the shard is not
// here, to the node that owns it; what it needs of several, through peers.go and gather.go.

// applied is the cut at which the shard of a partition stands, of the logs of
// one stream. What is read of the shard afterwards is at least as new, if it is asked for
// with the cut: the shard may move to a node that is behind.
func (r *Region) applied(ctx context.Context, stream events.Stream, partition int32) (events.Vector, error) {
	if partition < 0 || partition >= r.cfg.Partitions {
		return nil, events.Errorf(events.KindInvalid, "partition %d: there are %d, from 0", partition, r.cfg.Partitions)
	}
	return r.appliedOf(ctx, api.AppliedParams{Stream: stream, Shards: []int32{partition}})
}

// appliedAll is applied of all partitions.
func (r *Region) appliedAll(ctx context.Context, stream events.Stream) (events.Vector, error) {
	return r.appliedOf(ctx, api.AppliedParams{Stream: stream, Shards: r.cfg.Shards()})
}

// awaitShard waits until the shard of a partition has folded everything before a
// cut.
func (r *Region) awaitShard(ctx context.Context, partition int32, cut events.Vector) error {
	p := api.AppliedParams{Shards: []int32{partition}, AtLeast: cut, TimeoutSeconds: api.MaxWait.Seconds()}
	if deadline, ok := ctx.Deadline(); ok {
		p.TimeoutSeconds = time.Until(deadline).Seconds()
	}
	_, err := r.appliedOf(ctx, p)
	return err
}

// appliedOf asks the owners of shards how far they are, and moves the clock of this node past
// what they have folded: what is written here next comes after it.
func (r *Region) appliedOf(ctx context.Context, p api.AppliedParams) (events.Vector, error) {
	all := events.Vector{}
	err := peers.WhileMoving(ctx, func() error {
		answers, err := fromOwners(ctx, r, p.Shards,
			func(own []int32) (*api.Applied, error) {
				mine := p
				mine.Shards = own
				return r.Applied(ctx, mine)
			},
			func(ctx context.Context, c *api.Client, shards []int32) (*api.Applied, error) {
				theirs := p
				theirs.Shards = shards
				return c.Applied(ctx, theirs)
			})
		if err != nil {
			return err
		}
		for _, a := range answers {
			maps.Copy(all, a.Cut)
			r.clock.Observe(a.Clock)
		}
		return nil
	})
	return all, err
}

// Applied implements api.PeerNode.
func (r *Region) Applied(ctx context.Context, p api.AppliedParams) (*api.Applied, error) {
	shards, release, err := r.useOwn(p.Shards)
	if err != nil {
		return nil, err
	}
	release() // a shard that is closed is woken by its fence, and what it says stays in memory
	if len(p.AtLeast) > 0 {
		// A mirror may be behind for long. Those who wait for it must not keep others out, and
		// least of all the writes of the region's other nodes.
		if err := api.Aside(ctx, func() error { return r.awaitShards(ctx, shards, p) }); err != nil {
			return nil, err
		}
	}
	// What this node has followed it has followed event by event; the state also knows of
	// those before the node had it.
	answer := &api.Applied{Cut: events.Vector{}}
	limit := clockLimit(r.cfg)
	if last := r.clock.Last(); last <= limit { // or it would hide the others: nobody follows it
		answer.Clock = last
	}
	for _, shard := range shards {
		for _, st := range shard.Logs() {
			if st.Log.Stream == p.Stream && st.Next > 0 {
				answer.Cut[st.Log] = st.Next
			}
		}
		answer.Clock = max(answer.Clock, shard.Clock(p.Stream, limit))
	}
	return answer, nil
}

// awaitShards waits until shards have folded everything before a cut.
func (r *Region) awaitShards(ctx context.Context, shards []*openShard, p api.AppliedParams) error {
	if _, forwarded := api.ForwardedFrom(ctx); forwarded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(p.TimeoutSeconds*float64(time.Second)))
		defer cancel()
	}
	for i, shard := range shards {
		if err := shard.Wait(ctx, r.toFold(p.Shards[i], shard, p.AtLeast)); err != nil {
			return err
		}
	}
	return nil
}

// toFold is what a shard has to fold to come to a cut. A log may end with marks of Kafka's own, and its
// state then never comes to its end.
func (r *Region) toFold(p int32, shard *openShard, cut events.Vector) events.Vector {
	left := maps.Clone(cut)
	for log, to := range r.worker.readFurther(p, shard.Shard) {
		if to >= left[log] {
			delete(left, log)
		}
	}
	return left
}

// partitionsWith are the partitions whose logs may have events of a key: the one
// where it is written to, and those that have folded some.
func (r *Region) partitionsWith(ctx context.Context, stream events.Stream, key []byte) ([]int32, error) {
	partitions := []int32{r.cfg.PartitionOf(key)}
	e, err := r.entity(ctx, stream, string(key), nil)
	for _, s := range e.Slices {
		if p := s.Log.Partition; !slices.Contains(partitions, p) {
			partitions = append(partitions, p)
		}
	}
	return partitions, err
}

// parkedAt tells of records why they were set aside by the shards that fold their logs;
// empty if one was not, or was not come to yet. Each owner is asked once. The shards have
// folded a cut; nodes of an earlier version are asked without, as in gather.
func (r *Region) parkedAt(ctx context.Context, positions []events.Position, atLeast events.Vector) (reasons []string, err error) {
	byShard := map[int32][]int{}
	for i, p := range positions {
		byShard[p.Partition] = append(byShard[p.Partition], i)
	}
	err = peers.WhileMoving(ctx, func() error {
		reasons = make([]string, len(positions))
		own, others, err := r.shares(slices.Sorted(maps.Keys(byShard)))
		if err != nil {
			return err
		}
		ask := func(shards []int32, ask func(api.ParkedParams) (*api.Parked, error)) error {
			var places []int
			for _, p := range shards {
				places = append(places, byShard[p]...)
			}
			if len(places) == 0 {
				return nil
			}
			p := api.ParkedParams{AtLeast: atLeast}
			for _, i := range places {
				p.Positions = append(p.Positions, positions[i])
			}
			answer, err := ask(p)
			if err == nil && len(answer.Reasons) != len(places) {
				err = fmt.Errorf("%d answers to %d questions", len(answer.Reasons), len(places))
			}
			if err != nil {
				return err
			}
			for n, i := range places {
				reasons[i] = answer.Reasons[n]
			}
			return nil
		}
		err = r.askOthers(ctx, others, func(ctx context.Context, i int, c *api.Client) error {
			return ask(others[i].shards, func(p api.ParkedParams) (*api.Parked, error) {
				answer, err := c.ParkedReasons(ctx, p)
				if events.KindOf(err) == events.KindInvalid && len(p.AtLeast) > 0 {
					p.AtLeast = nil
					answer, err = c.ParkedReasons(ctx, p)
				}
				return answer, err
			})
		})
		if err != nil {
			return err
		}
		return ask(own, func(p api.ParkedParams) (*api.Parked, error) { return r.ParkedReasons(ctx, p) })
	})
	return reasons, err
}

// ParkedReasons implements api.PeerNode.
func (r *Region) ParkedReasons(_ context.Context, p api.ParkedParams) (*api.Parked, error) {
	if n := len(p.Positions); n > api.MaxParkedAsked {
		return nil, events.Errorf(events.KindInvalid, "parked: %d positions, at most %d are answered for", n, api.MaxParkedAsked)
	}
	byShard := map[int32]*openShard{}
	answer := &api.Parked{Reasons: make([]string, len(p.Positions))}
	for i, position := range p.Positions {
		shard := byShard[position.Partition]
		if shard == nil {
			shards, release, err := r.useOwn([]int32{position.Partition})
			if err != nil {
				return nil, err
			}
			defer release()
			shard = shards[0]
			if err := shard.Reached(p.AtLeast); err != nil {
				return nil, events.Errorf(events.KindNotReady, "shard %d of %s has moved, and has less than was told of it before: %w", position.Partition, r.cfg.Region, err)
			}
			byShard[position.Partition] = shard
		}
		var err error
		if answer.Reasons[i], err = shard.ParkedAt(position); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// load says what holds a shard up.
func (r *Region) load(partition int32, shard *projections.Shard) api.ShardLoad {
	return r.worker.pace.Load(partition, shard)
}
