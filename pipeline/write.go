package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// maxLoadEvents bounds one batch of a load.
const maxLoadEvents = 100_000

// Put implements api.Node: it writes one event to the region's own log.
func (r *Region) Put(ctx context.Context, p api.PutParams) (*api.PutResult, error) {
	e := r.newEvent(p.Key, p.Value, p.Type, p.ContentType)
	e.ID, e.Source = uuid.NewString(), r.source()
	e.Clock = r.clock.Now()
	e.Time = e.Clock.Time()
	record, err := r.record(p.Stream, e)
	if err != nil {
		return nil, err
	}
	written, err := r.producer.ProduceSync(ctx, record).First()
	if err != nil {
		return nil, r.notWritten(p.Stream, err)
	}
	r.metrics.written.Inc()
	log := events.Log{Origin: r.origin, Stream: p.Stream, Partition: written.Partition}
	return &api.PutResult{Position: log.At(written.Offset), Clock: e.Clock, ID: e.ID}, nil
}

// source is the CloudEvents source of what is written through the API.
func (r *Region) source() string { return "evenkeel/" + r.origin.String() }

// newEvent is an event without identity and clock. A nil value deletes.
func (r *Region) newEvent(key, value []byte, typ, contentType string) events.Event {
	e := events.Event{Key: string(key), Op: events.OpPut, Value: value, Type: typ, ContentType: contentType}
	if value == nil {
		e.Op = events.OpDelete
	}
	if e.Type == "" {
		e.Type = events.TypePut
		if value == nil {
			e.Type = events.TypeDelete
		}
	}
	return e
}

// record encodes an event for the log of a stream, or says what is wrong with
// it.
func (r *Region) record(stream events.Stream, e events.Event) (*kgo.Record, error) {
	s, ok := r.cfg.Streams[stream]
	if !ok {
		return nil, r.noStream(stream)
	}
	if int64(len(e.Value)) > r.cfg.Limits.MaxValueBytes {
		return nil, events.Errorf(events.KindInvalid, "value of %d bytes: at most %d are accepted (limits.max_value_bytes)", len(e.Value), r.cfg.Limits.MaxValueBytes)
	}
	record, err := events.Encode(e)
	if err != nil {
		return nil, err
	}
	// What is written here must be readable by every region: the same check
	// that folds make.
	if _, err := events.Decode(record); err != nil {
		return nil, events.Errorf(events.KindInvalid, "event: %w", err)
	}
	record.Topic = s.Topic
	return record, nil
}

func (r *Region) noStream(stream events.Stream) error {
	return events.Errorf(events.KindNotFound, "stream %q is not configured; there is %s", stream, joinStreams(r.cfg))
}

func (r *Region) notWritten(stream events.Stream, err error) error {
	return events.Errorf(events.KindNotReady, "stream %s of %s: not acknowledged, it may or may not have been written: %w", stream, r.cfg.Region, err)
}

// Load implements api.Node: it writes a batch of events in order.
func (r *Region) Load(ctx context.Context, p api.LoadParams) (*api.LoadResult, error) {
	if p.Source == "" || len(p.Events) == 0 || len(p.Events) > maxLoadEvents {
		return nil, events.Errorf(events.KindInvalid, "load: want a source and 1 to %d events", maxLoadEvents)
	}
	records := make([]*kgo.Record, len(p.Events))
	for i, le := range p.Events {
		record, err := r.loadRecord(p, le)
		if err != nil {
			return nil, fmt.Errorf("event %q: %w", le.ID, err)
		}
		records[i] = record
	}
	unlock := r.loads.lock(p.Source)
	defer unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The caller may go away; what was begun is finished, so that Landed,
	// which waits for it, tells the truth.
	results := r.producer.ProduceSync(context.WithoutCancel(ctx), records...)
	var errs []error
	ends := events.Vector{}
	for _, res := range results {
		if res.Err != nil {
			errs = append(errs, res.Err)
			continue
		}
		log := events.Log{Origin: r.origin, Stream: p.Stream, Partition: res.Record.Partition}
		ends[log] = max(ends[log], res.Record.Offset+1)
	}
	r.metrics.written.Add(float64(len(records) - len(errs)))
	if len(errs) > 0 {
		return nil, r.notWritten(p.Stream, fmt.Errorf("%d of %d events: %w", len(errs), len(records), errs[0]))
	}
	return &api.LoadResult{Written: len(records), Ends: ends}, nil
}

func (r *Region) loadRecord(p api.LoadParams, le api.LoadEvent) (*kgo.Record, error) {
	e := r.newEvent(le.Key, le.Value, "", le.ContentType)
	e.ID, e.Source = le.ID, p.Source
	if le.Clock == nil {
		e.Clock = r.clock.Now()
	} else if e.Clock = *le.Clock; events.TooFarAhead(e.Clock) {
		return nil, events.Errorf(events.KindRefused, "clock %s is more than %s ahead of this node's", e.Clock, events.MaxClockSkew)
	}
	return r.record(p.Stream, e)
}

// sourceLocks lets one batch of a source be written at a time.
type sourceLocks struct {
	mu    sync.Mutex
	locks map[string]*sourceLock
}

type sourceLock struct {
	sync.Mutex
	users int
}

// lock waits for its turn; the function that it returns ends it.
func (s *sourceLocks) lock(source string) (unlock func()) {
	s.mu.Lock()
	if s.locks == nil {
		s.locks = map[string]*sourceLock{}
	}
	l, ok := s.locks[source]
	if !ok {
		l = &sourceLock{}
		s.locks[source] = l
	}
	l.users++
	s.mu.Unlock()

	l.Lock()
	return func() {
		l.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.locks, source)
		}
	}
}

// landedTimeout bounds the search for what a load has written.
const landedTimeout = 2 * time.Minute

// Landed implements api.Node.
func (r *Region) Landed(ctx context.Context, p api.LandedParams) (*api.LandedResult, error) {
	s, ok := r.cfg.Streams[p.Stream]
	if !ok {
		return nil, r.noStream(p.Stream)
	}
	unlock := r.loads.lock(p.Source)
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, landedTimeout)
	defer cancel()
	ends, err := r.logEnds(ctx, p.Stream, s.Topic)
	if err != nil {
		return nil, err
	}
	result := &api.LandedResult{IDs: []string{}, Ends: ends}
	if p.After == nil {
		return result, nil
	}
	result.IDs, err = r.findSource(ctx, s.Topic, p.Source, *p.After, ends)
	return result, err
}

func (r *Region) logEnds(ctx context.Context, stream events.Stream, topic string) (events.Vector, error) {
	listed, err := r.admin.ListEndOffsets(ctx, topic)
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
	client, err := kgo.NewClient(append(opts,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: start}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for len(left) > 0 {
		fetches := client.PollRecords(ctx, workerPollRecords)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return nil, fmt.Errorf("search topic %s of %s: %w", topic, r.cfg.Region, err)
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
