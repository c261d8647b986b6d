package replicator_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
)

// withTwoBrokers runs a test in which the leaders of a running link's partitions can
// move.
func withTwoBrokers(t *testing.T, test func(w *world, source, dest *cluster, l *runningLink)) {
	t.Helper()
	simulate(t, 2, []events.Region{us, eu}, func(w *world) {
		source, dest := w.clusters[us], w.clusters[eu]
		for p := range int32(partitions) {
			source.do(source.MoveTopicPartition(topic, p, 0))
		}
		source.write(10)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		for p := range int32(partitions) {
			dest.do(dest.MoveTopicPartition(mirror(us, topic), p, 0))
		}
		source.write(10)
		awaitMirrored(source, dest)
		test(w, source, dest, l)
	})
}

// A source's partitions move, and nobody tells of it but the brokers that do not
// lead them any more: the link reads on, undisturbed.
func TestSourceMovesByHint(t *testing.T) {
	withTwoBrokers(t, func(w *world, source, dest *cluster, l *runningLink) {
		client := source.dial()
		defer client.Close()
		source.do(client.ProduceSync(context.Background(), record(0, 20), record(1, 20), record(2, 20)).FirstErr()) // it knows the brokers by now
		awaitMirrored(source, dest)

		source.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
			source.KeepControl()
			return nil, errors.New("no metadata"), true
		})
		before := l.states()
		for broker := range int32(2) {
			for p := range int32(partitions) {
				source.do(source.MoveTopicPartition(topic, p, 1-broker))
			}
			for p := range int32(partitions) {
				source.do(client.ProduceSync(context.Background(), record(p, int(21+broker))).FirstErr())
				awaitEnd(source, dest, topic, p)
			}
		}
		if after := l.states(); after != before {
			t.Errorf("states were\n%s, and after leaders have moved\n%s", before, after)
		}
	})
}

// states are those of the link's partitions, and since when.
func (l *runningLink) states() (text string) {
	for _, p := range l.Details().Partitions {
		text += fmt.Sprintf("%s %d %s since %s\n", p.Topic, p.Partition, p.State, p.Since)
	}
	return text
}

// A mirror's partitions move.
func TestDestMovesByHint(t *testing.T) {
	withTwoBrokers(t, func(w *world, source, dest *cluster, l *runningLink) {
		for broker := range int32(2) {
			for p := range int32(partitions) {
				dest.do(dest.MoveTopicPartition(mirror(us, topic), p, 1-broker))
			}
			source.write(10)
			awaitMirrored(source, dest)
		}
		l.awaitRunning()
	})
}

// Brokers that send a link to each other, or to one that nobody knows, do not keep it
// from finding out who leads.
func TestWrongHints(t *testing.T) {
	for name, hint := range map[string]struct{ broker, epoch int32 }{
		"none": {-1, -1}, "an old epoch": {1, 0}, "an unknown broker": {77, 99}, "the other one, of the future": {1, 99},
	} {
		for _, key := range []kmsg.Key{kmsg.Fetch, kmsg.Produce} {
			t.Run(fmt.Sprint(name, ", ", key.Name()), func(t *testing.T) {
				withTwoBrokers(t, func(w *world, source, dest *cluster, l *runningLink) {
					c, of := source, topic
					if key == kmsg.Produce {
						c, of = dest, mirror(us, topic)
					}
					c.lie(key, of, hint.broker, hint.epoch, 3)
					source.write(10)
					awaitMirrored(source, dest)
					l.awaitRunning()
				})
			})
		}
	}
}

// lie answers requests about a topic a few times with a hint.
func (c *cluster) lie(key kmsg.Key, topic string, broker, epoch int32, times int) {
	id := c.TopicInfo(topic).TopicID
	code := kerr.NotLeaderForPartition.Code
	c.ControlKey(int16(key), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if times == 0 {
			return nil, nil, false
		}
		switch req := kreq.(type) {
		case *kmsg.FetchRequest:
			resp := req.ResponseKind().(*kmsg.FetchResponse)
			for _, rt := range req.Topics {
				if rt.TopicID != id {
					continue
				}
				t := kmsg.NewFetchResponseTopic()
				t.TopicID = id
				for _, rp := range rt.Partitions {
					p := kmsg.NewFetchResponseTopicPartition()
					p.Partition, p.ErrorCode = rp.Partition, code
					p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = broker, epoch
					t.Partitions = append(t.Partitions, p)
				}
				resp.Topics = append(resp.Topics, t)
			}
			if len(resp.Topics) == 0 {
				return nil, nil, false
			}
			times--
			return resp, nil, true
		case *kmsg.ProduceRequest:
			resp := req.ResponseKind().(*kmsg.ProduceResponse)
			for _, rt := range req.Topics {
				if rt.TopicID != id {
					return nil, nil, false
				}
				t := kmsg.NewProduceResponseTopic()
				t.TopicID = id
				for _, rp := range rt.Partitions {
					p := kmsg.NewProduceResponseTopicPartition()
					p.Partition, p.ErrorCode = rp.Partition, code
					p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = broker, epoch
					t.Partitions = append(t.Partitions, p)
				}
				resp.Topics = append(resp.Topics, t)
			}
			times--
			return resp, nil, true
		}
		return nil, nil, false
	})
}
