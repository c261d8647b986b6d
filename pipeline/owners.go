package pipeline

import (
	"context"
	"maps"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
)

// What a call needs of a shard goes through this file: the one place to ask
// another node if the shard is not here.

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
func (r *Region) applied(_ context.Context, stream events.Stream, partition int32) (events.Vector, error) {
	if partition < 0 || partition >= r.cfg.Partitions {
		return nil, events.Errorf(events.KindInvalid, "partition %d: there are %d, from 0", partition, r.cfg.Partitions)
	}
	cut := events.Vector{}
	for _, st := range r.shards.all[partition].Logs() {
		if st.Log.Stream == stream && st.Next > 0 {
			cut[st.Log] = st.Next
		}
	}
	return cut, nil
}

// appliedAll is applied of all partitions.
func (r *Region) appliedAll(ctx context.Context, stream events.Stream) (events.Vector, error) {
	all := events.Vector{}
	for p := range r.cfg.Partitions {
		cut, err := r.applied(ctx, stream, p)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, cut)
	}
	return all, nil
}

// awaitShard waits until the shard of a partition has folded everything before a
// cut.
func (r *Region) awaitShard(ctx context.Context, partition int32, cut events.Vector) error {
	return r.shards.all[partition].Wait(ctx, cut)
}

// lookup reads the view of a key from the shards of all partitions: producers with
// other partitioners can put a key into several.
func (r *Region) lookup(stream events.Stream, key string) (projections.Entry, error) {
	return projections.Get(r.shards.all, stream, key)
}

// followed are the shards of some partitions; of all if there are none.
func (r *Region) followed(partitions []int32) ([]*projections.Shard, error) {
	if len(partitions) == 0 {
		return r.shards.all, nil
	}
	var shards []*projections.Shard
	for _, p := range partitions {
		if p < 0 || p >= r.cfg.Partitions {
			return nil, events.Errorf(events.KindInvalid, "partition %d: there are %d, from 0", p, r.cfg.Partitions)
		}
		shards = append(shards, r.shards.all[p])
	}
	return shards, nil
}

// partitionsWith are the partitions whose logs may have events of a key: the one
// where it is written to, and those that have folded some.
func (r *Region) partitionsWith(stream events.Stream, key []byte) ([]int32, error) {
	partitions := []int32{r.partitionOf(key)}
	for p, shard := range r.shards.all {
		e, err := projections.Get([]*projections.Shard{shard}, stream, string(key))
		if err != nil {
			return nil, err
		}
		if found := !e.Position.Origin.IsZero(); found && int32(p) != partitions[0] {
			partitions = append(partitions, int32(p))
		}
	}
	return partitions, nil
}

// parkedAt tells why a record was set aside by the shard that folds its log; empty
// if it was not, or was not come to yet.
func (r *Region) parkedAt(p events.Position) (string, error) {
	return r.shards.all[p.Partition].ParkedAt(p)
}

// load says what holds a shard up.
func (r *Region) load(partition int32) api.ShardLoad {
	return r.worker.pace.load(partition, r.shards.all[partition])
}
