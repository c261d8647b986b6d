package pipeline_test

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

func (r *region) epochs() (list []events.Epoch) {
	for _, s := range r.status().Shards {
		list = append(list, s.Epoch)
	}
	return list
}

// Epochs grow with every start, and go on growing if the topic with the claims is lost:
// then the state knows the last one.
func TestEpochsGrow(t *testing.T) {
	one(t, func(r *region) {
		last := make([]events.Epoch, partitions)
		for round := range 6 {
			if round == 3 {
				if err := r.kafka.DeleteTopic("evenkeel.shards"); err != nil {
					t.Fatal(err)
				}
			}
			r.start()
			for p, epoch := range r.epochs() {
				if epoch <= last[p] {
					t.Errorf("round %d: shard %d has epoch %s after %s", round, p, epoch, last[p])
				}
				last[p] = epoch
			}
			r.put("k", "v")
			r.has("k", "v")
			r.stop()
		}
	})
}

// What is no claim is passed over, whoever wrote it.
func TestForeignRecordsAmongClaims(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.produce(
			logRecordAt("evenkeel.shards", 1, "1", "no claim"), logRecordAt("evenkeel.shards", 1, "1", `{}`),
			logRecordAt("evenkeel.shards", 1, "", `{"node":"x"}`), logRecordAt("evenkeel.shards", 1, "99999999999999999999", `{"node":"x"}`),
			logRecordAt("evenkeel.shards", 1, "7", `{"node":"x"}`), logRecordAt("evenkeel.shards", 1, "link/nowhere", `{"node":"x"}`),
		)
		r.put("k", "v")
		r.has("k", "v")
		before := r.epochs()
		// And what is one, from a node that there is not, is answered by another.
		r.produce(logRecordAt("evenkeel.shards", 1, "1", `{"node":"x"}`))
		r.await("claimed again", func() error {
			if epochs := r.epochs(); epochs[1] < before[1]+2 {
				return errNotYet
			}
			return r.Ready(r.w.Context())
		})
		r.put("k", "w")
		r.has("k", "w")
		r.eventsFolded(2)
	})
}

var errNotYet = errors.New("not yet")

func logRecordAt(topic string, partition int32, key, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: []byte(value)}
}
