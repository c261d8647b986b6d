package refill

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// refilledLog is a log that is written back.
type refilledLog struct {
	log     events.Log
	topic   string
	to      int64 // offset of the log below which records are written
	had     int64 // records that were in the topic already
	count   int64 // records so far, and so the next offset in the topic
	next    int64 // offset of the log
	chain   events.Digest
	runs    []api.RefillRun
	peers   []api.RefillPeer // what other regions have of it; of those that were asked
	chainOf func(events.Digest, *kgo.Record) events.Digest
}

// same says whether all records have the offsets that they had.
func (l *refilledLog) same() bool {
	return len(l.runs) == 0 || len(l.runs) == 1 && l.runs[0].Log == l.runs[0].Topic
}

// begins takes up the log at a part. If that is not where the part before ended, a run
// begins with the chain that is known there.
func (l *refilledLog) begins(object string, p *format.SegmentPart) error {
	switch {
	case l.count == 0 && l.next == 0 || p.From > l.next:
		l.runs = append(l.runs, api.RefillRun{Log: p.From, Topic: l.count, Before: &p.Before})
		l.chain = p.Before
	case p.From < l.next || p.Before != l.chain:
		return events.Errorf(events.KindInconsistent, "object %s: %s goes on at offset %d with the chain %s, the one before ends at %d with %s", object, l.log, p.From, p.Before, l.next, l.chain)
	}
	l.next = p.From
	return nil
}

// take counts a record, and says at which offset of the topic it is to be.
func (l *refilledLog) take(r *kgo.Record) (offset int64) {
	run := &l.runs[len(l.runs)-1]
	if r.Offset-l.count != run.Log-run.Topic {
		if run.Records > 0 {
			l.runs = append(l.runs, api.RefillRun{})
			run = &l.runs[len(l.runs)-1]
		}
		run.Log, run.Topic = r.Offset, l.count
	}
	run.Records++
	l.chain = l.chainOf(l.chain, r)
	l.next = r.Offset + 1
	l.count++
	return l.count - 1
}

// segment writes what is wanted of a segment, and is not in the topics yet.
func (r *refilling) segment(ctx context.Context, s *segment.Segment) error {
	object := format.SegmentName(s.Region, s.Shard, s.Number)
	var batch refillBatch
	for i := range s.Parts {
		p := &s.Parts[i]
		l := r.logs[p.Log]
		if l == nil || p.From >= l.to {
			continue
		}
		if err := l.begins(object, p); err != nil {
			return err
		}
		whole := true
		for record, err := range s.Records(p.Log, p.From) {
			if err != nil {
				return err
			}
			if whole = record.Offset < l.to; !whole {
				break
			}
			if offset := l.take(record); offset >= l.had {
				batch.add(l, record, offset)
			}
			if l.count == l.had {
				if err := r.isOurs(ctx, l); err != nil {
					return err
				}
			}
			if len(batch.records) == refillRecords {
				if err := batch.write(ctx, r.client); err != nil {
					return err
				}
			}
		}
		if end, _ := s.End(p.Log); whole && l.chain != end.Chain {
			return events.Errorf(events.KindInconsistent, "object %s says that %s has the chain %s at offset %d, its records have %s", object, l.log, end.Chain, p.To, l.chain)
		}
	}
	return batch.write(ctx, r.client)
}

// refillRecords is how many records are written before their acknowledgements are
// waited for.
const refillRecords = 10_000

// refillBatch are records on their way into topics, and the offsets that they must get.
type refillBatch struct {
	records []*kgo.Record
	offsets []int64
}

func (b *refillBatch) add(l *refilledLog, r *kgo.Record, offset int64) {
	b.records = append(b.records, &kgo.Record{Topic: l.topic, Partition: l.log.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp})
	b.offsets = append(b.offsets, offset)
}

// write writes the records and checks where each has come to lie.
func (b *refillBatch) write(ctx context.Context, client *kgo.Client) error {
	if len(b.records) == 0 {
		return nil
	}
	for _, res := range client.ProduceSync(ctx, b.records...) {
		if res.Err != nil {
			return fmt.Errorf("write to topic %s, partition %d: %w", res.Record.Topic, res.Record.Partition, res.Err)
		}
	}
	for i, r := range b.records {
		if r.Offset != b.offsets[i] {
			return events.Errorf(events.KindInconsistent, "topic %s, partition %d: a record came to lie at offset %d, not %d: somebody else writes there; stop that, delete the topic and begin again",
				r.Topic, r.Partition, r.Offset, b.offsets[i])
		}
	}
	*b = refillBatch{}
	return nil
}

// isOurs makes sure that what was in a topic is what an earlier run has written.
func (r *refilling) isOurs(ctx context.Context, l *refilledLog) error {
	chain, err := r.readBack(ctx, l, l.had)
	if err == nil && chain != l.chain {
		err = events.Errorf(events.KindRefused, "topic %s, partition %d: its %d records have the chain %s, the first so many of %s in the archive %s: they are others", l.topic, l.log.Partition, l.had, chain, l.log, l.chain)
	}
	return err
}

// readBackRoomBytes is what has been fetched of a topic and not been read.
const readBackRoomBytes = 32 << 20

// readBack reads the first records of a topic and computes their hash chain, under the
// offsets that they had in the log.
func (r *refilling) readBack(ctx context.Context, l *refilledLog, records int64) (chain events.Digest, err error) {
	if records == 0 {
		return l.chain, nil
	}
	client, err := kgo.NewClient(append(append(slices.Clone(r.opts), r.job.Config.RoomOpts(readBackRoomBytes)...),
		kgo.MaxConcurrentFetches(1),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: {l.log.Partition: kgo.NewOffset().At(0)}}))...)
	if err != nil {
		return chain, err
	}
	defer client.Close()
	run, left := -1, int64(0)
	for at := int64(0); at < records; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return chain, fmt.Errorf("read topic %s, partition %d at offset %d: %w", l.topic, l.log.Partition, at, err)
		}
		for _, record := range fetches.Records() {
			if at == records {
				break
			}
			if record.Offset != at {
				return chain, events.Errorf(events.KindInconsistent, "topic %s, partition %d: offset %d is missing", l.topic, l.log.Partition, at)
			}
			for left == 0 {
				run++
				if left = l.runs[run].Records; l.runs[run].Before != nil {
					chain = *l.runs[run].Before
				}
			}
			record.Offset += l.runs[run].Log - l.runs[run].Topic
			chain = l.chainOf(chain, record)
			at, left = at+1, left-1
		}
	}
	return chain, nil
}
