package pipeline

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
)

// What a call needs of single shards goes through this file, and if a shard is not
// here, to the node that owns it.

// hashKeys is Kafka's own way from a key to its partition: murmur2 of the key.
// For records with keys it holds no state.
var hashKeys = kgo.StickyKeyPartitioner(nil).ForTopic("")

// partitionOf is the partition of a key that is written through the API, and by
// most other producers.
func (r *Region) partitionOf(key []byte) int32 {
	if key == nil {
		key = []byte{} // no key would be any partition
	}
	return int32(hashKeys.Partition(&kgo.Record{Key: key}, int(r.cfg.Partitions)))
}

// applied is the cut at which the shard of a partition stands, of the logs of
// one stream. What is read of the shard afterwards is at least as new.
func (r *Region) applied(ctx context.Context, stream events.Stream, partition int32) (events.Vector, error) {
	if partition < 0 || partition >= r.cfg.Partitions {
		return nil, events.Errorf(events.KindInvalid, "partition %d: there are %d, from 0", partition, r.cfg.Partitions)
	}
	return r.appliedOf(ctx, api.AppliedParams{Stream: stream, Shards: []int32{partition}})
}

// appliedAll is applied of all partitions.
func (r *Region) appliedAll(ctx context.Context, stream events.Stream) (events.Vector, error) {
	return r.appliedOf(ctx, api.AppliedParams{Stream: stream, Shards: r.allShards()})
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

// appliedOf asks the owners of shards how far they are.
func (r *Region) appliedOf(ctx context.Context, p api.AppliedParams) (events.Vector, error) {
	all := events.Vector{}
	err := whileMoving(ctx, func() error {
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
	if _, forwarded := api.ForwardedFrom(ctx); forwarded && len(p.AtLeast) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(p.TimeoutSeconds*float64(time.Second)))
		defer cancel()
	}
	cut := events.Vector{}
	for _, shard := range shards {
		if len(p.AtLeast) > 0 {
			if err := shard.Wait(ctx, p.AtLeast); err != nil {
				return nil, err
			}
		}
		for _, st := range shard.Logs() {
			if st.Log.Stream == p.Stream && st.Next > 0 {
				cut[st.Log] = st.Next
			}
		}
	}
	return &api.Applied{Cut: cut}, nil
}

// partitionsWith are the partitions whose logs may have events of a key: the one
// where it is written to, and those that have folded some.
func (r *Region) partitionsWith(ctx context.Context, stream events.Stream, key []byte) ([]int32, error) {
	partitions := []int32{r.partitionOf(key)}
	e, err := r.entity(ctx, stream, string(key))
	for _, s := range e.Slices {
		if p := s.Log.Partition; !slices.Contains(partitions, p) {
			partitions = append(partitions, p)
		}
	}
	return partitions, err
}

// parkedAt tells why a record was set aside by the shard that folds its log; empty
// if it was not, or was not come to yet.
func (r *Region) parkedAt(ctx context.Context, p events.Position) (reason string, err error) {
	err = whileMoving(ctx, func() error {
		_, others, err := r.shares([]int32{p.Partition})
		if err != nil {
			return err
		}
		var answer *api.Parked
		if len(others) == 0 {
			answer, err = r.ParkedReason(ctx, api.ParkedParams{Position: p})
		} else {
			err = r.askOthers(ctx, others, func(ctx context.Context, _ int, c *api.Client) (err error) {
				answer, err = c.ParkedReason(ctx, api.ParkedParams{Position: p})
				return err
			})
		}
		if err == nil {
			reason = answer.Reason
		}
		return err
	})
	return reason, err
}

// ParkedReason implements api.PeerNode.
func (r *Region) ParkedReason(_ context.Context, p api.ParkedParams) (*api.Parked, error) {
	shards, release, err := r.useOwn([]int32{p.Position.Partition})
	if err != nil {
		return nil, err
	}
	defer release()
	reason, err := shards[0].ParkedAt(p.Position)
	return &api.Parked{Reason: reason}, err
}

// load says what holds a shard up.
func (r *Region) load(partition int32, shard *projections.Shard) api.ShardLoad {
	return r.worker.pace.load(partition, shard)
}
