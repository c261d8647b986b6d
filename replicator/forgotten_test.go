package replicator_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// forget lets the destination forget the link's producer of partition 0, as it does
// when the last record is a day old. It refuses the next batch with an error, and
// takes the one after that, whatever its sequence.
func (c *cluster) forget(err *kerr.Error) {
	id, end := c.TopicInfo(mirror(us, topic)).TopicID, c.end(mirror(us, topic), 0)
	refused, forgotten, shift := false, true, int64(0)
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := r.(*kmsg.ProduceRequest)
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				if t.TopicID != id || p.Partition != 0 {
					continue
				}
				if !refused {
					refused = true
					return refusal(req, err), nil, true
				}
				b, _, err := batch.Read(p.Records)
				if err != nil {
					return nil, err, true
				}
				if forgotten {
					forgotten, shift = false, int64(b.BaseSequence)-end
				}
				batch.Stamp(p.Records, b.ProducerID, b.ProducerEpoch, b.BaseSequence-int32(shift))
			}
		}
		return nil, nil, false
	})
}

// refusal answers a request with an error for all that it has.
func refusal(req *kmsg.ProduceRequest, err *kerr.Error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, err.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// writeLarge appends batches of one record to partition 0, too large to be merged.
func (c *cluster) writeLarge(at time.Time, sizes ...int) {
	c.w.Helper()
	for _, size := range sizes {
		r := record(0, int(c.end(topic, 0)))
		r.Value, r.Timestamp = make([]byte, size), at
		_, _ = rand.NewChaCha8([32]byte{}).Read(r.Value) // never fails, by its contract; and is not to be compressed
		c.produce(r)
	}
}

const (
	aBatch = 10_000
	larger = 20_000
	slow   = 200 * time.Millisecond // until an answer of the destination is heard of, and less than a second
)

// A destination that has forgotten the link's producer refuses a batch. What is read
// behind it does not take its place: after an hour without records, and while old
// records are mirrored, of which the broker forgets at any time who has written them.
func TestForgottenAndRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		idle time.Duration
		age  time.Duration // of the records
		err  *kerr.Error
	}{
		{"idle, too large", time.Hour, 0, kerr.MessageTooLarge},
		{"idle, too few replicas", time.Hour, 0, kerr.NotEnoughReplicas},
		{"idle for a minute, old records", time.Minute, 48 * time.Hour, kerr.NotEnoughReplicas},
		{"old records, too large", 2 * slow, 48 * time.Hour, kerr.MessageTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				at := time.Now().Add(-test.age)
				source.writeLarge(at, aBatch, aBatch)
				l := w.link(us, eu)
				awaitMirrored(source, dest)
				l.awaitRunning()
				source.writeLarge(at, aBatch)
				dest.gate.Slow(slow)
				awaitMirrored(source, dest)
				time.Sleep(test.idle)
				dest.forget(test.err)
				source.writeLarge(at, larger, aBatch, aBatch)
				awaitMirrored(source, dest)
				time.Sleep(time.Minute)
				if s := l.Status(); !s.Running || len(s.Stopped) > 0 {
					t.Errorf("status: %+v", s)
				}
			})
		})
	}
}

// slowLink is a link to a destination that has become slow, and that has taken a batch since.
func slowLink(w *world, source, dest *cluster) *runningLink {
	source.writeLarge(time.Now(), aBatch, aBatch)
	l := w.link(us, eu)
	awaitMirrored(source, dest)
	l.awaitRunning()
	dest.gate.Slow(slow)
	source.writeLarge(time.Now(), aBatch)
	awaitMirrored(source, dest)
	time.Sleep(2 * slow)
	return l
}

// Where a batch has taken the place of another one all the same, the link says so,
// whatever it has said of the other one, and which records are missing: from there it
// goes on if the operator wants it.
func TestMisplaced(t *testing.T) {
	for _, err := range []*kerr.Error{kerr.InvalidRecord, kerr.NotEnoughReplicas} {
		t.Run(err.Message, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				l := slowLink(w, source, dest)
				dest.forget(err)
				source.writeLarge(time.Now(), aBatch, aBatch, aBatch)
				w.await("the mirror is wrong, and the link says so", func() error {
					if stop := l.awaitStop(topic, 0); stop.State != replicator.Diverged || stop.From != 3 || stop.To != 4 {
						return stop
					}
					return nil
				})
				stop := l.awaitStop(topic, 0)
				for _, words := range []string{"offset 4 of the source was written at offset 3", "had forgotten", err.Message, "offsets 3 of the source are missing"} {
					if !strings.Contains(stop.Reason, words) {
						t.Errorf("reason %q, want %q in it", stop.Reason, words)
					}
				}
				if strings.Contains(stop.Reason, "somebody else") {
					t.Errorf("reason %q: nobody else has written", stop.Reason)
				}
				if n := l.metric("evenkeel_link_partitions_stopped"); n != 1 {
					t.Errorf("%v partitions stopped, says the metric", n)
				}
				end := dest.end(mirror(us, topic), 0)
				l.resume(topic, 0, "next")
				l.awaitView(topic)
				if at, ok := mapOf(source, dest, topic, 0).Source(end); !ok || at != 3 {
					t.Errorf("the mirror goes on with source offset %d, want 3", at)
				}
			})
		})
	}
}

// What shows in no answer any more, since the link ended before, shows in what the
// destination remembers of the producer: the partition stops, and an operator can let it
// go on.
func TestMisplacedBeforeARestart(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := slowLink(w, source, dest)
		dest.forget(kerr.NotEnoughReplicas)
		source.writeLarge(time.Now(), aBatch, aBatch, aBatch)
		l.awaitStop(topic, 0)
		end := dest.end(mirror(us, topic), 0)
		dest.remember(source, int32(end)) // as of the sequence that the batches really had
		l.remake()
		stop := l.awaitStop(topic, 0)
		if stop.State != replicator.Diverged || !strings.Contains(stop.Reason, "was due behind it") {
			t.Errorf("stopped: %v", stop)
		}
		l.resume(topic, 0, "retry")
		if stop := l.awaitStop(topic, 0); stop.State != replicator.Diverged {
			t.Errorf("tried again and stopped: %v", stop)
		}
		if err := l.tryResume(topic, 0, "next"); err == nil || !strings.Contains(err.Error(), "say an offset") {
			t.Errorf("what comes next is known: %v", err)
		}
		l.resume(topic, 0, "3")
		l.awaitView(topic)
		if at, ok := mapOf(source, dest, topic, 0).Source(end); !ok || at != 3 {
			t.Errorf("the mirror goes on with source offset %d, want 3", at)
		}
	})
}

// A leader that has not replicated yet what the link has written is waited for.
func TestNotReplicatedYet(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		source.writeTo(0, 10)
		awaitPartition(source, dest, topic, 0)
		l.stop()
		dest.remember(source, 14)
		dest.ControlKey(int16(kmsg.ListOffsets), func(r kmsg.Request) (kmsg.Response, error, bool) {
			dest.KeepControl()
			req := r.(*kmsg.ListOffsetsRequest)
			if req.ReplicaID != -2 {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
			rt, rp := kmsg.NewListOffsetsResponseTopic(), kmsg.NewListOffsetsResponseTopicPartition()
			rt.Topic, rp.Offset = req.Topics[0].Topic, 15
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		})
		l.start()
		time.Sleep(10 * time.Minute)
		s, err := l.partition(topic, 0)
		if err != nil || s.State != replicator.Waiting || !strings.Contains(s.Reason, "not replicated yet") {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// remember lets the destination say that the link's producer of partition 0 has written
// up to a sequence.
func (c *cluster) remember(source *cluster, sequence int32) {
	c.w.Helper()
	book := bookOf(source, c)
	defer book.Close()
	producer, ok := book.Producer(ledger.Partition{Topic: topic})
	if !ok {
		c.w.Fatal("the link has no producer")
	}
	c.ControlKey(int16(kmsg.DescribeProducers), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		resp := r.ResponseKind().(*kmsg.DescribeProducersResponse)
		for _, t := range r.(*kmsg.DescribeProducersRequest).Topics {
			rt := kmsg.NewDescribeProducersResponseTopic()
			rt.Topic = t.Topic
			for _, num := range t.Partitions {
				rp := kmsg.NewDescribeProducersResponseTopicPartition()
				rp.Partition = num
				if num == 0 {
					active := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
					active.ProducerID, active.ProducerEpoch, active.LastSequence = producer.ID, int32(producer.Epoch), sequence
					rp.ActiveProducers = append(rp.ActiveProducers, active)
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
}

// A batch that is not acknowledged may have been written before somebody else wrote.
// The link does not know, says so, and leaves nothing out.
func TestForeignWriterBehindAFailure(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := slowLink(w, source, dest)
		dest.produce(foreign())
		dest.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: mirror(us, topic), Err: kerr.NotEnoughReplicasAfterAppend})
		source.writeLarge(time.Now(), aBatch, aBatch)
		stop := l.awaitStop(topic, 0)
		if stop.State != replicator.ForeignWriter || !strings.Contains(stop.Reason, "whether offsets 3 of the source are there is not known") {
			t.Errorf("stopped: %v", stop)
		}
		end := dest.end(mirror(us, topic), 0)
		l.resume(topic, 0, "next")
		l.awaitView(topic)
		if at, ok := mapOf(source, dest, topic, 0).Source(end); !ok || at != 3 {
			t.Errorf("the mirror goes on with source offset %d, want 3", at)
		}
	})
}
