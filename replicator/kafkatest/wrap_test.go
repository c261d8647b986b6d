//go:build kafka

package kafkatest

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/wire"
)

// sequence is a link's numbering: the mirror's offset, mod 2³¹.
func sequence(offset int64) int32 { return int32(offset & (1<<31 - 1)) }

// rawProducer writes batches of a link's making to one partition of the
// destination.
type rawProducer struct {
	w    *world
	conn *wire.Conn
	id   int64
	raw  []byte // a batch of 5 records, as the source has it
}

const wrapRecords = 5

func newRawProducer(w *world) *rawProducer {
	w.Helper()
	r := &rawProducer{w: w}
	var err error
	r.conn, err = wire.NewDialer(w.dest.client).Connect(w.dest.ctx(), w.dest.address)
	w.dest.do(err)
	w.Cleanup(r.conn.Close)
	id := call[*kmsg.InitProducerIDResponse](w, r.conn, kmsg.NewPtrInitProducerIDRequest())
	w.dest.do(kerr.ErrorForCode(id.ErrorCode))
	r.id = id.ProducerID

	w.source.write(w.topic, 0, wrapRecords)
	from, err := wire.NewDialer(w.source.client).Connect(w.source.ctx(), w.source.address)
	w.source.do(err)
	defer from.Close()
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.SessionEpoch, req.MinBytes, req.MaxBytes, req.MaxWaitMillis = -1, -1, 1, 1<<20, 1000
	p := kmsg.NewFetchRequestTopicPartition()
	p.CurrentLeaderEpoch, p.LastFetchedEpoch, p.LogStartOffset, p.PartitionMaxBytes = -1, -1, -1, 1<<20
	req.Topics = []kmsg.FetchRequestTopic{{Topic: w.topic, TopicID: w.source.id(w.topic), Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	got := call[*kmsg.FetchResponse](w, from, req)
	b, _, err := batch.Read(got.Topics[0].Partitions[0].RecordBatches)
	w.source.do(err)
	if b.Count != wrapRecords {
		w.Fatalf("the source has a batch of %d records, want %d", b.Count, wrapRecords)
	}
	r.raw = b.Raw
	return r
}

func (c *cluster) id(topic string) kadm.TopicID {
	c.t.Helper()
	topics, err := c.admin.ListTopics(c.ctx(), topic)
	c.do(err)
	return topics[topic].ID
}

func call[R kmsg.Response](w *world, conn *wire.Conn, req kmsg.Request) R {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := conn.Call(ctx, req)
	if err != nil {
		w.Fatal(err)
	}
	return resp.(R)
}

// append sends the batch as the link would for an offset, and tells where it is
// and whether it was there before: then the broker tells when it came.
func (r *rawProducer) append(at int64) (base int64, before bool, err error) {
	r.w.Helper()
	batch.Stamp(r.raw, r.id, 0, sequence(at))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = r.raw
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: r.w.mirror(), TopicID: r.w.dest.id(r.w.mirror()), Partitions: []kmsg.ProduceRequestTopicPartition{p}}}
	got := call[*kmsg.ProduceResponse](r.w, r.conn, req).Topics[0].Partitions[0]
	return got.BaseOffset, got.LogAppendTime != -1, kerr.ErrorForCode(got.ErrorCode)
}

// The numbering of a link goes on through 2³¹-1 → 0, within a batch and between
// two, on a real broker: batches are taken in order, taken once, and nothing else is
// taken. The first sequence stands for a mirror that is that long already.
func TestSequenceWrap(t *testing.T) {
	t.Parallel()
	const wrap = int64(1) << 31
	for name, first := range map[string]int64{
		"within a batch":  wrap - 2*wrapRecords - 2,
		"between batches": wrap - 2*wrapRecords,
		"after one":       wrap - 2*wrapRecords - 1, // the batch ends with sequence 0
		"before the last": wrap - 3*wrapRecords + 1, // the batch begins with sequence 2³¹-1
		"a second time":   2*wrap - 2*wrapRecords - 2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := plainWorld(t)
			w.dest.create(w.mirror(), partitions)
			r := newRawProducer(w)
			const batches = 5
			for i := range int64(batches) {
				if base, before, err := r.append(first + i*wrapRecords); err != nil || base != i*wrapRecords || before {
					t.Fatalf("batch %d, sequence %d: offset %d, %v", i, sequence(first+i*wrapRecords), base, err)
				}
			}
			for i := range int64(batches) { // the last five: absorbed
				if base, before, err := r.append(first + i*wrapRecords); err != nil || base != i*wrapRecords || !before {
					t.Errorf("batch %d again: offset %d, there before: %v, %v", i, base, before, err)
				}
			}
			end := first + batches*wrapRecords
			for _, wrong := range []int64{end + 1, end - 2, end + wrap/2, first - wrapRecords} {
				if base, _, err := r.append(wrong); err != kerr.OutOfOrderSequenceNumber {
					t.Errorf("sequence %d instead of %d: offset %d, %v", sequence(wrong), sequence(end), base, err)
				}
			}
			if at := w.dest.ends(w.mirror())[0]; at != batches*wrapRecords {
				t.Errorf("the log ends at offset %d", at)
			}
			r.remembered(sequence(end - 1))
			if base, _, err := r.append(end); err != nil || base != batches*wrapRecords {
				t.Errorf("after refusals: offset %d, %v", base, err)
			}
		})
	}
}

// remembered checks which sequence the broker says was the producer's last: by it
// a link sees whether somebody else has written.
func (r *rawProducer) remembered(want int32) {
	r.w.Helper()
	set := kadm.TopicsSet{}
	set.Add(r.w.mirror(), 0)
	got, err := r.w.dest.admin.DescribeProducers(r.w.dest.ctx(), set)
	r.w.dest.do(err)
	if p := got[r.w.mirror()].Partitions[0].ActiveProducers[r.id]; p.LastSequence != want {
		r.w.Errorf("the broker remembers %+v, want sequence %d", p, want)
	}
}
