package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

const (
	maxLoadEvents = 100_000 // in one batch of a load

	// writeTimeout bounds how long a caller waits for Kafka.
	writeTimeout = 30 * time.Second
)

// Put implements api.Node: it writes one event to the region's own log.
func (r *Region) Put(ctx context.Context, p api.PutParams) (*api.PutResult, error) {
	records, e, err := r.putRecords(ctx, p)
	if err != nil {
		return nil, err
	}
	results, err := r.write(ctx, func() kgo.ProduceResults { return r.tryProduce(ctx, records...) })
	if err == nil {
		err = results.FirstErr()
	}
	if err != nil {
		return nil, r.notWritten(p.Stream, err)
	}
	written := records[len(records)-1]
	r.metrics.written.Inc()
	log := events.Log{Origin: r.origin, Stream: p.Stream, Partition: written.Partition}
	return &api.PutResult{
		Position: log.At(written.Offset), AtLeast: events.Vector{log: written.Offset + 1}, Clock: e.Clock, ID: e.ID,
	}, nil
}

// putRecords makes the record of an event, the last one, and of what has to stand before it. That a key
// has no room for it is said only at a cut that has the end of the region's own log.
func (r *Region) putRecords(ctx context.Context, p api.PutParams) ([]*kgo.Record, events.Event, error) {
	stamps, err := r.newStamper(p.Stream, p.Context)
	if err != nil {
		return nil, events.Event{}, err
	}
	records, e, err := stamps.put(ctx, p)
	if !errors.Is(err, errNoRoom) {
		return records, e, err
	}
	again, notKnown := stamps.atEnd(ctx, e.Key)
	switch {
	case notKnown != nil:
		return nil, e, notKnown
	case again == nil:
		return nil, e, err
	}
	return again.put(ctx, p)
}

// put makes the records of putRecords at the cut of the stamper.
func (s *stamper) put(ctx context.Context, p api.PutParams) ([]*kgo.Record, events.Event, error) {
	e := s.region.newEvent(p.Key, p.Value, p.Type, p.ContentType)
	if e.Op == events.OpResolve && p.Context == nil {
		return nil, e, events.Errorf(events.KindInvalid, "a resolve needs a context: that of the answer in which the values were read")
	}
	e.ID, e.Source = uuid.NewString(), s.region.source()
	held := s.held(ctx, e.Key)
	var records []*kgo.Record
	reset, err := s.resetFirst(&e, held)
	if err != nil {
		return nil, e, err
	}
	if reset != nil {
		records = append(records, reset)
	}
	record, err := s.record(ctx, &e, nil)
	if err != nil {
		return nil, e, err
	}
	records = append(records, record)
	return records, e, s.fits(e.Key, records, held)
}

// tryProduce writes records of one partition, in order, unless there is no memory for them.
func (r *Region) tryProduce(ctx context.Context, records ...*kgo.Record) (results kgo.ProduceResults) {
	answers := make(chan kgo.ProduceResult, len(records))
	for _, record := range records {
		r.producer.TryProduce(ctx, record, func(record *kgo.Record, err error) {
			answers <- kgo.ProduceResult{Record: record, Err: err}
		})
	}
	for range records {
		results = append(results, <-answers)
	}
	return results
}

// checkRoom turns a load away for which there is no memory, before half of it is
// written. One that is larger than all of it has to itself what there is.
func (r *Region) checkRoom(records []*kgo.Record) error {
	buffered, size := r.producer.BufferedProduceBytes(), int64(0)
	for _, record := range records {
		size += int64(len(record.Key) + len(record.Value))
	}
	if buffered > 0 && buffered+size > config.ProducerBytesMost {
		return kgo.ErrMaxBuffered
	}
	return nil
}

// write does a write and waits for the answer, as long as the context and
// writeTimeout allow: a record that was sent to a cluster that is gone is
// answered when it is back, or by Stop.
func (r *Region) write(ctx context.Context, do func() kgo.ProduceResults) (kgo.ProduceResults, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	answer := make(chan kgo.ProduceResults, 1)
	r.writes.Go(func() { answer <- do() })
	select {
	case results := <-answer:
		return results, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("kafka does not answer: %w", ctx.Err())
	}
}

// source is the CloudEvents source of what is written through the API.
func (r *Region) source() string { return "evenkeel/" + r.origin.String() }

// newEvent is an event without identity and clock. A nil value deletes, and only
// that: a value would be lost.
func (r *Region) newEvent(key, value []byte, typ, contentType string) events.Event {
	e := events.Event{Key: string(key), Op: events.OpPut, Value: value, Type: typ, ContentType: contentType}
	if e.Type == "" {
		e.Type = events.TypePut
		if value == nil {
			e.Type = events.TypeDelete
		}
	}
	if value == nil || e.Type != events.TypeDelete {
		e.Op = events.OpOf(e.Type, value)
	}
	return e
}

// refusals are the errors of brokers after which nothing is written, whoever
// asks how often.
var refusals = []error{
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed,
}

func (r *Region) notWritten(stream events.Stream, err error) error {
	if errors.Is(err, kgo.ErrMaxBuffered) {
		return events.Errorf(events.KindNotReady, "stream %s of %s: nothing was written, so much waits for kafka already (%d MiB): %w", stream, r.cfg.Region, config.ProducerBytesMost>>20, api.ErrBusy)
	}
	if slices.ContainsFunc(refusals, func(refusal error) bool { return errors.Is(err, refusal) }) {
		return events.Errorf(events.KindRefused, "stream %s of %s: kafka refuses it: %w", stream, r.cfg.Region, err)
	}
	return events.Errorf(events.KindNotReady, "stream %s of %s: not acknowledged, it may or may not have been written: %w", stream, r.cfg.Region, err)
}

// Load implements api.Node: it writes a batch of events in order.
func (r *Region) Load(ctx context.Context, p api.LoadParams) (*api.LoadResult, error) {
	records, err := r.loadRecords(ctx, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	src, unlock, err := r.sources.lock(ctx, p.Source)
	if err != nil {
		return nil, events.Errorf(events.KindNotReady, "load: a batch before this one is still being written: %w", err)
	}
	if p.Turn != "" && p.Turn != src.turn {
		unlock()
		return nil, events.Errorf(events.KindNotReady, "load: the turn is over; ask first what has landed")
	}
	if err := r.checkRoom(records); err != nil {
		unlock()
		return nil, r.notWritten(p.Stream, err)
	}
	// The caller may go away; what was begun is finished, so that Landed,
	// which waits for it, tells the truth.
	results, err := r.write(ctx, func() kgo.ProduceResults {
		defer unlock()
		return r.producer.ProduceSync(context.WithoutCancel(ctx), records...)
	})
	if err != nil {
		return nil, r.notWritten(p.Stream, err)
	}
	return r.loaded(p.Stream, results)
}

// loaded sums up what was written of a load's batch.
func (r *Region) loaded(stream events.Stream, results kgo.ProduceResults) (*api.LoadResult, error) {
	var errs []error
	ends := events.Vector{}
	for _, res := range results {
		if res.Err != nil {
			errs = append(errs, res.Err)
			continue
		}
		log := events.Log{Origin: r.origin, Stream: stream, Partition: res.Record.Partition}
		ends[log] = max(ends[log], res.Record.Offset+1)
	}
	r.metrics.written.Add(float64(len(results) - len(errs)))
	if len(errs) > 0 {
		return nil, r.notWritten(stream, fmt.Errorf("%d of %d events: %w", len(errs), len(results), errs[0]))
	}
	return &api.LoadResult{Written: len(results), Ends: ends}, nil
}

func (r *Region) loadRecords(ctx context.Context, p api.LoadParams) ([]*kgo.Record, error) {
	if p.Source == "" || len(p.Events) == 0 || len(p.Events) > maxLoadEvents {
		return nil, events.Errorf(events.KindInvalid, "load: want a source and 1 to %d events", maxLoadEvents)
	}
	stamps, err := r.newStamper(p.Stream, nil)
	if err != nil {
		return nil, err
	}
	records := make([]*kgo.Record, len(p.Events))
	for i, le := range p.Events {
		e := r.newEvent(le.Key, le.Value, "", le.ContentType)
		e.ID, e.Source = le.ID, p.Source
		if records[i], err = stamps.record(ctx, &e, le.Clock); err != nil {
			return nil, fmt.Errorf("event %q: %w", le.ID, err)
		}
	}
	return records, nil
}
