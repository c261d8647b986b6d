package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// stamper makes records of the events of one call, with what lets all regions
// compare them with those of others: a clock and a causal context.
type stamper struct {
	region *Region
	stream events.Stream
	topic  string
	rule   merge.Rule
	given  *events.Vector           // what the caller had read; nil if it did not say
	deps   map[int32]events.Context // by partition
	cuts   map[int32]events.Vector  // at which the shards of these partitions stood
}

func (r *Region) newStamper(stream events.Stream, given *events.Vector) (*stamper, error) {
	s, ok := r.cfg.Streams[stream]
	if !ok {
		return nil, r.cfg.CheckStream(stream)
	}
	rule, err := projections.LookupRule(s.Merge)
	if err != nil {
		return nil, err
	}
	return &stamper{region: r, stream: stream, topic: s.Topic, rule: rule, given: given, deps: map[int32]events.Context{}, cuts: map[int32]events.Vector{}}, nil
}

// record stamps an event and encodes it, or says what is wrong with it. A clock
// that the caller gave, if not nil, is kept.
func (s *stamper) record(ctx context.Context, e *events.Event, given *events.HLC) (*kgo.Record, error) {
	limits := s.region.cfg.Limits
	if int64(len(e.Value)) > limits.MaxValueBytes {
		return nil, events.Errorf(events.KindInvalid, "value of %d bytes: at most %d are accepted (limits.max_value_bytes)", len(e.Value), limits.MaxValueBytes)
	}
	partition := s.region.cfg.PartitionOf([]byte(e.Key))
	var err error
	if e.Deps, err = s.context(ctx, partition); err != nil {
		return nil, err
	}
	return s.encode(e, partition, given)
}

// encode gives an event a clock and makes a record of it.
func (s *stamper) encode(e *events.Event, partition int32, given *events.HLC) (*kgo.Record, error) {
	now, err := s.clock(e, given)
	if err != nil {
		return nil, err
	}
	record, err := events.Encode(*e)
	if err != nil {
		return nil, err
	}
	// The timestamp is of the moment at which the clock was found good: folds
	// compare the two.
	record.Topic, record.Partition, record.Timestamp = s.topic, partition, now
	// What is written here must be readable by every region: the same checks
	// that folds make.
	if err := s.check(record); err != nil {
		return nil, events.Errorf(events.KindInvalid, "event: %w", err)
	}
	return record, nil
}

// check does with a record what folds do, up to where they need what is there
// already.
func (s *stamper) check(record *kgo.Record) error {
	e, err := events.Decode(record)
	if err != nil {
		return err
	}
	if err := events.CheckClock(&e, record); err != nil {
		return err
	}
	log := events.Log{Origin: s.region.origin, Stream: s.stream, Partition: record.Partition}
	_, err = s.rule.Fold(nil, nil, &e, log.At(0))
	return err
}

// clock gives the event a clock and returns the physical time of it.
func (s *stamper) clock(e *events.Event, given *events.HLC) (now time.Time, err error) {
	if given == nil {
		e.Clock, now, err = s.region.clock.now()
		e.Time = e.Clock.Time()
		return now, err
	}
	e.Clock, now = *given, time.Now()
	if skew := s.region.cfg.Limits.MaxClockSkew; e.Clock.IsAheadOf(now, skew) {
		return now, events.Errorf(events.KindRefused, "clock %s is more than %s ahead of this node's (limits.max_clock_skew)", e.Clock, skew)
	}
	return now, nil
}

// context is the causal context of events of a partition. Without a given one a
// writer is taken to know all that this region has: of other origins' logs what
// has been folded, and of its own, which is left out then, all that stands before
// the event.
func (s *stamper) context(ctx context.Context, partition int32) (events.Context, error) {
	if deps, known := s.deps[partition]; known {
		return deps, nil
	}
	applied, known := s.cuts[partition]
	var err error
	if !known {
		if applied, err = s.region.applied(ctx, s.stream, partition); err != nil {
			return nil, err
		}
	}
	seen := applied
	if s.given != nil {
		if seen, err = s.checkGiven(partition, applied); err != nil {
			return nil, err
		}
	}
	var deps events.Context
	for log, next := range seen {
		if next > 0 && log.Origin != s.region.origin {
			deps = append(deps, events.Seen{Origin: log.Origin, Next: next})
		}
	}
	if s.given != nil {
		// Also if it is nothing: without an entry the event would be taken to know all
		// that stands before it.
		own := seen[events.Log{Origin: s.region.origin, Stream: s.stream, Partition: partition}]
		deps = append(deps, events.Seen{Origin: s.region.origin, Next: own})
	}
	slices.SortFunc(deps, func(a, b events.Seen) int { return a.Origin.Compare(b.Origin) })
	s.deps[partition], s.cuts[partition] = deps, applied
	return deps, nil
}

// checkGiven picks out of the caller's context what it says of a partition. It
// may not claim what is not here: it would be taken on trust for ever.
func (s *stamper) checkGiven(partition int32, applied events.Vector) (events.Vector, error) {
	seen := events.Vector{}
	for _, p := range s.given.Positions() {
		if p.Stream != s.stream || p.Partition != partition {
			continue
		}
		if has := applied[p.Log]; p.Offset > has {
			return nil, events.Errorf(events.KindInvalid, "context: it claims %s, but %s stands at offset %d of that log; "+
				"read the key here and give the context of that answer", p, s.region.cfg.Region, has)
		}
		seen[p.Log] = p.Offset
	}
	if len(seen) == 0 && len(*s.given) > 0 {
		return nil, events.Errorf(events.KindInvalid, "context: it says nothing of stream %s, partition %d, where the key is; give the one of the answer in which the key was read", s.stream, partition)
	}
	return seen, nil
}
