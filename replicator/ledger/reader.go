package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// errLost says that the topic is not the one that was read before.
var errLost = errors.New("what was read of the link topic is not in it any more: stop the link, see who deleted or truncated the topic, and start anew")

const (
	fetchWait  = 100 * time.Millisecond
	fetchBytes = 8 << 20
	retryPause = 50 * time.Millisecond
)

// reader reads the topic. It asks with requests of its own, because it has to
// know the end of what compaction has left: where no record says so, a consuming
// client does not either.
//
// The position belongs to whoever holds Ledger.reading; the rest may be used at
// any time.
type reader struct {
	client *kgo.Client
	topic  string
	closed <-chan struct{}
	bytes  int32 // of one answer, at most, unless a single batch is larger
	next   int64 // offset to read next
	holes  bool  // offsets were missing since the state was last trusted

	mu    sync.Mutex
	place place
}

// place is where the topic's partition is.
type place struct {
	id     [16]byte // of the topic, from its first metadata
	leader int32
	known  bool // whether leader is
}

// readTo hands on what is in the topic from the position to target. If offsets
// were missing on the way it goes on until it has seen the topic's end after them.
func (r *reader) readTo(ctx context.Context, target int64, apply func([]*kgo.Record)) error {
	for {
		for r.next < target {
			if err := r.step(ctx, target, apply); err != nil {
				return err
			}
		}
		if !r.holes {
			return nil
		}
		end, err := r.end(ctx)
		if err != nil {
			return err
		}
		if end < r.next {
			return r.shorter(end, r.next)
		}
		if end == r.next {
			r.holes = false
			return nil
		}
		target = end
	}
}

func (r *reader) shorter(end, seen int64) error {
	return fmt.Errorf("link topic %s ends at offset %d but was read to %d: %w", r.topic, end, seen, errLost)
}

// step fetches once.
func (r *reader) step(ctx context.Context, target int64, apply func([]*kgo.Record)) error {
	answer, err := r.fetch(ctx)
	if err != nil {
		return err
	}
	if errors.Is(kerr.ErrorForCode(answer.ErrorCode), kerr.OffsetOutOfRange) {
		return r.outOfRange(ctx)
	}
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: r.next, Topic: r.topic}, answer, kgo.DefaultDecompressor(), nil)
	if got.Err != nil {
		return fmt.Errorf("link topic %s: read at offset %d: %w", r.topic, r.next, got.Err)
	}
	if next <= r.next {
		// A leader that is new may not know yet how far the topic is committed.
		if answer.HighWatermark >= target {
			r.next, r.holes = target, true
		}
		return nil
	}
	seen := int64(len(got.Records))
	r.holes = r.holes || seen != next-r.next
	apply(got.Records)
	r.next = next
	return nil
}

// outOfRange goes on at the topic's start where its head has been removed.
func (r *reader) outOfRange(ctx context.Context) error {
	start, err := r.list(ctx, -2)
	if err != nil {
		return err
	}
	if start <= r.next {
		return fmt.Errorf("link topic %s begins at offset %d and ends before %d: %w", r.topic, start, r.next, errLost)
	}
	r.next, r.holes = start, true
	return nil
}

// fetch asks for what is at the position.
func (r *reader) fetch(ctx context.Context) (*kmsg.FetchResponseTopicPartition, error) {
	var answer *kmsg.FetchResponseTopicPartition
	err := r.ask(ctx, func(b *kgo.Broker, id [16]byte) error {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchWait.Milliseconds()), 1, r.bytes
		p := kmsg.NewFetchRequestTopicPartition()
		p.FetchOffset, p.PartitionMaxBytes = r.next, r.bytes
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID, t.Partitions = r.topic, id, []kmsg.FetchRequestTopicPartition{p}
		req.Topics = []kmsg.FetchRequestTopic{t}
		got, err := b.Request(ctx, req)
		if err != nil {
			return err
		}
		resp := got.(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return kerr.ThrottlingQuotaExceeded // a throttled answer has no partitions
		}
		answer = &resp.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(answer.ErrorCode); !errors.Is(err, kerr.OffsetOutOfRange) {
			return err
		}
		return nil
	})
	return answer, err
}

// end is the offset after the last record that is committed.
func (r *reader) end(ctx context.Context) (int64, error) { return r.list(ctx, -1) }

func (r *reader) list(ctx context.Context, timestamp int64) (offset int64, err error) {
	err = r.ask(ctx, func(b *kgo.Broker, _ [16]byte) error {
		req := kmsg.NewPtrListOffsetsRequest()
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Timestamp = timestamp
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic, t.Partitions = r.topic, []kmsg.ListOffsetsRequestTopicPartition{p}
		req.Topics = []kmsg.ListOffsetsRequestTopic{t}
		got, err := b.Request(ctx, req)
		if err != nil {
			return err
		}
		resp := got.(*kmsg.ListOffsetsResponse)
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return fmt.Errorf("answer to ListOffsets has no partition")
		}
		offset = resp.Topics[0].Partitions[0].Offset
		return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	})
	return offset, err
}

// ask asks the leader until it answers, the context ends, or the ledger is closed.
func (r *reader) ask(ctx context.Context, request func(*kgo.Broker, [16]byte) error) error {
	for {
		at, err := r.locate(ctx)
		if err == nil {
			err = request(r.client.Broker(int(at.leader)), at.id)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() == nil && final(err):
			return fmt.Errorf("link topic %s: %w", r.topic, err)
		}
		r.forgetLeader()
		select {
		case <-ctx.Done():
			return fmt.Errorf("link topic %s: %w; at last: %w", r.topic, context.Cause(ctx), err)
		case <-r.closed:
			return fmt.Errorf("link topic %s: %w", r.topic, ErrClosed)
		case <-time.After(retryPause):
		}
	}
}

// final tells errors that asking again does not help.
func final(err error) bool {
	var code *kerr.Error
	switch {
	case errors.Is(err, errLost):
		return true
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		return false // the next metadata tell whether it is another topic
	case errors.As(err, &code):
		return !code.Retriable
	}
	return false
}

func (r *reader) forgetLeader() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.place.known = false
}

// locate is the leader of the topic's partition, which has to be of the same topic
// for ever.
func (r *reader) locate(ctx context.Context) (place, error) {
	r.mu.Lock()
	was := r.place
	r.mu.Unlock()
	if was.known {
		return was, nil
	}
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(r.topic)
	req.Topics = []kmsg.MetadataRequestTopic{t}
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return place{}, err
	}
	if len(resp.Topics) != 1 {
		return place{}, kerr.UnknownTopicOrPartition
	}
	topic := resp.Topics[0]
	if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
		return place{}, err
	}
	if len(topic.Partitions) != 1 || topic.Partitions[0].Leader < 0 {
		return place{}, kerr.LeaderNotAvailable
	}
	is := place{id: topic.TopicID, leader: topic.Partitions[0].Leader, known: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	if none := ([16]byte{}); r.place.id != none && r.place.id != is.id {
		return place{}, fmt.Errorf("the topic was deleted and created again: %w", errLost)
	}
	r.place = is
	return is, nil
}
