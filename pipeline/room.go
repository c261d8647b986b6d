package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/listed"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// roomPatience bounds how long a write waits for what its key holds, and again for the end of the
// region's own log: longer than a shard takes to move, and short of what callers wait for Kafka.
const roomPatience = 5 * time.Second

// errNoRoom says that a key's slice, as it was read, has no room for an event.
var errNoRoom = errors.New("nothing was written, every region would park it")

// held gives the slices that a key has in the shard of its partition, at least as new as the
// context that is stamped on the key's events. They are read once, if anybody asks.
func (s *stamper) held(ctx context.Context, key string) func() ([]merge.Slice, error) {
	return sync.OnceValues(func() ([]merge.Slice, error) {
		log := s.log(key)
		// First: an event's context must know of nothing that is not in the slices.
		if _, err := s.context(ctx, log.Partition); err != nil {
			return nil, err
		}
		// What the shard has in the bucket may be out of reach for long.
		reading, cancel := context.WithTimeout(ctx, roomPatience)
		defer cancel()
		all, err := s.region.slicesIn(reading, log, key, s.cuts[log.Partition])
		if err != nil && ctx.Err() == nil && reading.Err() != nil {
			return nil, events.Errorf(events.KindNotReady, "stream %s, key %q: nothing was written, what the key holds could not be read within %s: %w", s.stream, key, roomPatience, err)
		}
		return all, err
	})
}

// log is the region's own log that has a key.
func (s *stamper) log(key string) events.Log {
	return events.Log{Origin: s.region.origin, Stream: s.stream, Partition: s.region.cfg.PartitionOf([]byte(key))}
}

// fits refuses, with errNoRoom, what would be parked everywhere, because the key's slice has no room for
// it: records of one key that are written one behind the other. It goes by what the region has folded; who
// writes at the same time may fill the slice first.
func (s *stamper) fits(key string, records []*kgo.Record, held func() ([]merge.Slice, error)) error {
	rule, ok := s.rule.(merge.Bounded)
	if !ok {
		return nil
	}
	log := s.log(key)
	next := s.cuts[log.Partition][log]
	all, err := decodeAll(records)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(e events.Event) bool { return rule.NeedsSlice(&e, log.At(next)) }) {
		return nil
	}
	slice, behind, err := s.ownSlice(key, rule, held)
	if err != nil {
		return err
	}
	next = max(next, behind)
	for i := range all {
		slice, err = rule.Fold(nil, slice, &all[i], log.At(next+int64(i)))
		var full *merge.NoMeaningError
		if errors.As(err, &full) {
			return events.Errorf(events.KindRefused, "stream %s, key %q: %w: %w (%s)", s.stream, key, errNoRoom, err, rule.Bounds())
		}
		if err != nil {
			return fmt.Errorf("stream %s, key %q: slice of %s: %w", s.stream, key, log, err)
		}
	}
	return nil
}

func decodeAll(records []*kgo.Record) ([]events.Event, error) {
	all := make([]events.Event, len(records))
	for i, record := range records {
		var err error
		if all[i], err = events.Decode(record); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ownSlice is the slice that a key has of the region's own log, nil if none, and the offset behind
// the last event in it.
func (s *stamper) ownSlice(key string, rule merge.Bounded, held func() ([]merge.Slice, error)) (slice []byte, behind int64, err error) {
	all, err := held()
	if err != nil {
		return nil, 0, err
	}
	log := s.log(key)
	i := slices.IndexFunc(all, func(is merge.Slice) bool { return is.Log == log })
	if i < 0 {
		return nil, 0, nil
	}
	last, _, err := rule.Last(all[i])
	if err != nil {
		return nil, 0, fmt.Errorf("stream %s, key %q: %w", s.stream, key, err)
	}
	return all[i].Data, last.Offset + 1, nil
}

// atEnd is a stamper of the same call whose cut has what the region's own log of a key has by now; nil if
// the cut of this one has it. What makes room may have been acknowledged, and not be folded yet.
func (s *stamper) atEnd(ctx context.Context, key string) (*stamper, error) {
	waiting, cancel := context.WithTimeout(ctx, roomPatience)
	defer cancel()
	log := s.log(key)
	end, err := s.region.ownEnd(waiting, s.topic, log.Partition)
	if err == nil && end <= s.cuts[log.Partition][log] {
		return nil, nil
	}
	var cut events.Vector
	if err == nil {
		cut, err = s.region.foldedTo(waiting, log.At(end))
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, events.Errorf(events.KindNotReady, "stream %s, key %q: nothing was written, and whether there is room for it is not known before all that %s has is folded: %w", s.stream, key, log, err)
	}
	again, err := s.region.newStamper(s.stream, s.given)
	if err == nil {
		again.cuts[log.Partition] = cut
	}
	return again, err
}

// ownEnd asks the region's cluster where a partition of a topic ends.
func (r *Region) ownEnd(ctx context.Context, topic string, partition int32) (int64, error) {
	ends, err := r.claims.Admin().ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	return listed.Offset(ends, topic, partition)
}

// foldedTo is the cut of a log's shard once that has folded everything before a position.
func (r *Region) foldedTo(ctx context.Context, end events.Position) (cut events.Vector, err error) {
	err = api.Aside(ctx, func() error {
		p := api.AppliedParams{Stream: end.Stream, Shards: []int32{end.Partition}, AtLeast: events.Vector{end.Log: end.Offset}, TimeoutSeconds: api.MaxWait.Seconds()}
		if deadline, ok := ctx.Deadline(); ok {
			p.TimeoutSeconds = time.Until(deadline).Seconds()
		}
		cut, err = r.appliedOf(ctx, p)
		return err
	})
	return cut, err
}
