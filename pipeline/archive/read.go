package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/replicator/inflate"
)

// batch is what a poll has brought of one log.
type batch struct {
	log     events.Log
	records []*kgo.Record
	end     int64     // of the topic, or before it
	at      time.Time // when it was read
	bytes   int64
	lost    error // the topic does not have what comes next, or it is too large to be read
}

// read polls until the context ends.
func (a *Archiver) read(ctx context.Context) {
	defer a.orders.End()
	for {
		a.orders.Obey()
		a.balance()
		fetches := a.orders.Poll(ctx, func(ctx context.Context) kgo.Fetches { return a.client.PollRecords(ctx, pollRecords) })
		if ctx.Err() != nil {
			return
		}
		now, wrong := time.Now(), false
		fetches.EachError(func(topic string, p int32, err error) { wrong = a.complain(topic, p, err) || wrong })
		fetches.EachPartition(func(ftp kgo.FetchTopicPartition) { a.deliver(ftp, now) })
		if wrong {
			pause.For(ctx, pauseLeast)
		}
	}
}

// deliver hands what was read to the shard that archives it.
func (a *Archiver) deliver(ftp kgo.FetchTopicPartition, now time.Time) {
	topic, known := a.cfg.Topics[ftp.Topic]
	s := a.shard(ftp.Partition)
	if !known || s == nil {
		return
	}
	b := batch{log: topic.Log(ftp.Partition), records: ftp.Records, end: ftp.HighWatermark, at: now}
	for _, r := range ftp.Records {
		b.bytes += recordBytes(r)
	}
	if isLoss(ftp.Err) {
		b.lost = ftp.Err
	}
	if isTooLarge(ftp.Err) {
		b.lost = ftp.Err
		a.client.PauseFetchPartitions(map[string][]int32{ftp.Topic: {ftp.Partition}}) // or each answer said so
	}
	if len(b.records) > 0 || b.lost != nil {
		s.put(b)
	}
}

// recordOverhead is what a record takes in memory besides its bytes, about.
const recordOverhead = 200

func recordBytes(r *kgo.Record) int64 { return int64(len(r.Key)+len(r.Value)) + recordOverhead }

// isLoss tells of records that the topic does not have any more, or not yet.
func isLoss(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange)
}

func isTooLarge(err error) bool {
	var large *inflate.TooLargeError
	return errors.As(err, &large)
}

// complain notes what the client cannot do; it goes on trying.
func (a *Archiver) complain(topic string, p int32, err error) bool {
	if isLoss(err) || isTooLarge(err) || errors.Is(err, context.Canceled) {
		return false
	}
	if topic != "" {
		err = fmt.Errorf("topic %s, partition %d: %w", topic, p, err)
	}
	a.mu.Lock()
	known := a.trouble != nil && time.Since(a.told) < troubleStays
	a.trouble, a.told = fmt.Errorf("kafka of %s: %w", a.cfg.Region, err), time.Now()
	a.mu.Unlock()
	if !known {
		a.log.Warn("logs cannot be read for the archive and are tried again", "error", err)
	}
	return true
}

// balance pauses the reading of shards that hold too much, and resumes that of those
// that do not any more. It belongs to the goroutine that polls.
func (a *Archiver) balance() {
	most, node := heldSegments*a.segmentBytes(), a.Held()
	for _, s := range a.all() {
		held := s.held()
		switch paused := s.paused.Load(); {
		case !paused && (held >= most || node >= nodeBytesMost):
			s.paused.Store(true)
			a.client.PauseFetchPartitions(a.partitions(s.number))
		case paused && held < most/2 && node < nodeBytesMost*3/4:
			s.paused.Store(false)
			a.client.ResumeFetchPartitions(a.partitions(s.number))
		}
	}
}

// partitions are those of all topics that a shard has.
func (a *Archiver) partitions(p int32) map[string][]int32 {
	all := map[string][]int32{}
	for topic := range a.cfg.Topics {
		all[topic] = []int32{p}
	}
	return all
}

// start begins to read the topics of a shard, and stop ends it; what was read and is
// not taken yet is forgotten.
func (a *Archiver) start(s *shard, from map[string]map[int32]kgo.Offset) {
	a.orders.Do(func() {
		s.forget()
		a.client.AddConsumePartitions(from)
	})
}

func (a *Archiver) stop(s *shard) {
	a.orders.Do(func() {
		a.client.RemoveConsumePartitions(a.partitions(s.number))
		a.client.ResumeFetchPartitions(a.partitions(s.number))
		s.paused.Store(false)
		s.forget()
	})
}
