package replicator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/batch"
)

// spot is a place in a cluster to read from.
type spot struct {
	topic  topicID
	name   string
	num    int32
	leader leader
	offset int64
}

// data is what was read there: whole batches, from the one that holds the offset
// on, if there was anything.
type data struct {
	batches       []byte
	err           error
	start, stable int64
	end           int64
	aborted       []kmsg.FetchResponseTopicPartitionAbortedTransaction
}

const readOnceBytes = 4 << 20

// readAt reads once at each of the spots, without waiting for more. A broker that
// does not answer is told of its own spots alone, and holds up no other.
func (c *cluster) readAt(ctx context.Context, spots []spot, partitionBytes int32) []data {
	got := make([]data, len(spots))
	byBroker := map[int32][]int{}
	for i, s := range spots {
		byBroker[s.leader.broker] = append(byBroker[s.leader.broker], i)
	}
	var wg sync.WaitGroup
	for broker, todo := range byBroker {
		wg.Go(func() { c.readBroker(ctx, broker, spots, got, todo, partitionBytes) })
	}
	wg.Wait()
	return got
}

// readBroker reads at those of the spots that are a broker's.
func (c *cluster) readBroker(ctx context.Context, broker int32, spots []spot, got []data, todo []int, partitionBytes int32) {
	for len(todo) > 0 {
		// A broker fills an answer in the order of the request, so every
		// round settles at least the first.
		left, err := c.readRound(ctx, broker, spots, got, todo, partitionBytes)
		if err != nil {
			for _, i := range todo {
				got[i].err = err
			}
			return
		}
		todo = left
	}
}

func (c *cluster) readRound(ctx context.Context, broker int32, spots []spot, got []data, todo []int, partitionBytes int32) (left []int, err error) {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.SessionEpoch, req.IsolationLevel = -1, -1, readCommitted
	req.MaxBytes = readOnceBytes
	topics := map[topicID]int{}
	for _, i := range todo {
		s := spots[i]
		at, ok := topics[s.topic]
		if !ok {
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = s.name, s.topic
			at = len(req.Topics)
			topics[s.topic] = at
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.CurrentLeaderEpoch, rp.FetchOffset = s.num, s.leader.epoch, s.offset
		rp.LastFetchedEpoch, rp.LogStartOffset, rp.PartitionMaxBytes = -1, -1, partitionBytes
		req.Topics[at].Partitions = append(req.Topics[at].Partitions, rp)
	}
	kresp, err := c.client.Broker(int(broker)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("%s, broker %d: fetch: %w", c.name, broker, err)
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("%s, broker %d: fetch: %w", c.name, broker, err)
	}
	answers := map[topicID]map[int32]*kmsg.FetchResponseTopicPartition{}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		answers[t.TopicID] = map[int32]*kmsg.FetchResponseTopicPartition{}
		for j := range t.Partitions {
			answers[t.TopicID][t.Partitions[j].Partition] = &t.Partitions[j]
		}
	}
	settled := false
	for _, i := range todo {
		s := spots[i]
		rp := answers[s.topic][s.num]
		if rp == nil {
			got[i].err = fmt.Errorf("%s did not answer for topic %s, partition %d", c.name, s.name, s.num)
			continue
		}
		got[i] = data{batches: rp.RecordBatches, err: kerr.ErrorForCode(rp.ErrorCode), start: rp.LogStartOffset, stable: rp.LastStableOffset, end: rp.HighWatermark,
			aborted: rp.AbortedTransactions}
		if len(rp.RecordBatches) == 0 && got[i].err == nil && s.offset < rp.HighWatermark {
			left = append(left, i) // there was no room for it
			continue
		}
		settled = true
	}
	if !settled && len(left) == len(todo) {
		// Nothing from there up to the end is a record any more.
		return nil, nil
	}
	return left, nil
}

var errNoRecord = errors.New("no such record")

// recordOrError is a record read, or why there is none.
type recordOrError struct {
	record batch.Record
	err    error
}

// recordsAt reads the records at spots.
func (c *cluster) recordsAt(ctx context.Context, spots []spot) []recordOrError {
	recoder := batch.NewRecoder()
	found := make([]recordOrError, len(spots))
	for i, d := range c.readAt(ctx, spots, oneBatchBytes) {
		found[i].record, found[i].err = d.record(recoder, spots[i].offset)
		if found[i].err != nil && !errors.Is(found[i].err, errNoRecord) {
			found[i].err = fmt.Errorf("read %s, topic %s, partition %d, offset %d: %w", c.name, spots[i].name, spots[i].num, spots[i].offset, found[i].err)
		}
	}
	return found
}

const oneBatchBytes = 64 << 10 // a larger batch comes alone in its answer

// all are the whole batches that were read. An error, also that of reading, is the last.
func (d data) all() iter.Seq2[batch.Batch, error] {
	return func(yield func(batch.Batch, error) bool) {
		if d.err != nil {
			yield(batch.Batch{}, d.err)
			return
		}
		for rest := d.batches; len(rest) > 0; {
			b, after, err := batch.Read(rest)
			if errors.Is(err, batch.ErrPartial) || !yield(b, err) || err != nil {
				return
			}
			rest = after
		}
	}
}

// record finds the record at an offset in what was read.
func (d data) record(recoder *batch.Recoder, offset int64) (batch.Record, error) {
	for b, err := range d.all() {
		if err != nil {
			return batch.Record{}, err
		}
		if b.LastOffset() < offset || b.Control() {
			continue
		}
		records, err := recoder.Records(b)
		if err != nil {
			return batch.Record{}, err
		}
		for _, r := range records {
			if r.Offset == offset {
				return r, nil
			}
		}
		break
	}
	return batch.Record{}, errNoRecord
}
