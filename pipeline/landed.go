package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/pace"
)

const (
	// landedTimeout bounds the search for what a load has written.
	landedTimeout = 2 * time.Minute

	// searchRoomBytes is what one search of logs has of memory for what it fetches.
	searchRoomBytes = 32 << 20
)

// Landed implements api.Node.
func (r *Region) Landed(ctx context.Context, p api.LandedParams) (*api.LandedResult, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil {
		return nil, err
	}
	s := r.cfg.Streams[p.Stream]
	if p.Source == "" || len(p.Source) > events.MaxAttributeBytes {
		return nil, events.Errorf(events.KindInvalid, "landed: want a source of 1 to %d bytes", events.MaxAttributeBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, landedTimeout)
	defer cancel()
	src, unlock, err := r.sources.lock(ctx, p.Source)
	if err != nil {
		return nil, events.Errorf(events.KindNotReady, "landed: a batch is still being written: %w", err)
	}
	defer unlock()
	ends, err := r.logEnds(ctx, p.Stream, s.Topic)
	if err != nil {
		return nil, err
	}
	result := &api.LandedResult{IDs: []string{}, Ends: ends, Turn: src.newTurn(), Limits: r.loadLimits()}
	if p.After == nil {
		return result, nil
	}
	result.IDs, err = r.findSource(ctx, s.Topic, p.Source, *p.After, ends)
	return result, err
}

func (r *Region) loadLimits() *api.LoadLimits {
	limits := r.cfg.Limits
	return &api.LoadLimits{MaxValueBytes: limits.MaxValueBytes, MaxClockSkewSeconds: limits.MaxClockSkew.Seconds(), MaxBodyBytes: r.cfg.API.MaxBodyBytes}
}

func (r *Region) logEnds(ctx context.Context, stream events.Stream, topic string) (events.Vector, error) {
	admin, err := r.adminOf(ctx, r.cfg.Region)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	listed, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, events.Errorf(events.KindNotReady, "ends of topic %s of %s: %w", topic, r.cfg.Region, err)
	}
	ends := events.Vector{}
	for p, o := range listed[topic] {
		if o.Offset > 0 {
			ends[events.Log{Origin: r.origin, Stream: stream, Partition: p}] = o.Offset
		}
	}
	return ends, nil
}

// findSource reads a topic between two cuts for events of a source.
func (r *Region) findSource(ctx context.Context, topic, source string, from, to events.Vector) ([]string, error) {
	for log, next := range from {
		if end := to[log]; next > end {
			return nil, events.Errorf(events.KindRefused, "%s ends at offset %d, it was at %d before: topic %s of %s was truncated or re-created", log, end, next, topic, r.cfg.Region)
		}
	}
	start, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for log, end := range to {
		if from[log] < end {
			start[log.Partition] = kgo.NewOffset().At(from[log])
			left[log.Partition] = end
		}
	}
	ids := []string{}
	if len(left) == 0 {
		return ids, nil
	}
	opts, err := r.kafkaOpts(r.cfg.Region)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(append(opts, r.cfg.RoomOpts(searchRoomBytes)...),
		kgo.WithContext(ctx),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: start}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(8<<20),
		kgo.MaxConcurrentFetches(2),
		kgo.KeepControlRecords())...) // a log may end with one
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollRecords(ctx, pace.PollRecords)
		for _, fe := range fetches.Errors() {
			if errors.Is(fe.Err, kerr.OffsetOutOfRange) {
				return nil, events.Errorf(events.KindRefused, "topic %s of %s, partition %d: what was written from offset %d on has expired in part, so what has landed cannot be known",
					topic, r.cfg.Region, fe.Partition, start[fe.Partition].EpochOffset().Offset)
			}
		}
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return nil, events.Errorf(events.KindNotReady, "search topic %s of %s: %w", topic, r.cfg.Region, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			if e, err := events.Decode(record); err == nil && e.Source == source {
				ids = append(ids, e.ID)
			}
			if record.Offset+1 >= left[record.Partition] {
				delete(left, record.Partition)
			}
		})
	}
	return ids, nil
}
