package replicator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// copy appends what was fetched to the mirrors and waits for the acks.
func (s *session) copy(ctx context.Context, fetches kgo.Fetches) error {
	c := copying{failed: map[partition]failure{}, misfits: map[partition]misfit{}, done: map[partition]volume{}}
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		p := partition{ftp.Topic, ftp.Partition}
		for _, r := range ftp.Records {
			if _, copied := s.next[p]; !copied {
				return
			}
			if s.admit(p, r) {
				c.produce(ctx, s.producer, s.cfg.Origin.MirrorTopic(p.topic), p, r)
			}
		}
	})
	if c.sent == 0 {
		return nil
	}
	s.await(ctx, &c)
	for p, done := range c.done {
		s.copied = true
		s.metrics.add(s.cfg.Origin, p.topic, done.records, done.bytes)
	}
	for p, m := range c.misfits {
		s.halt(p, "offset %d of the source was written at offset %d of the mirror: somebody else writes to the mirror", m.source, m.mirror)
	}
	return s.settle(c.failed)
}

// admit decides whether a record is to be appended. A record that does not fit
// stops its partition, before anything is written that is not a copy.
func (s *session) admit(p partition, r *kgo.Record) bool {
	next, tail := s.next[p], s.tails[p]
	if tail != nil {
		next = tail.Offset
	}
	switch {
	case r.Offset != next:
		s.halt(p, "offsets %d to %d are missing at the source: its log is not dense (transactions, compaction), "+
			"and this link mirrors dense logs only", next, r.Offset-1)
		return false
	case tail != nil:
		delete(s.tails, p)
		if !same(r, tail) {
			s.halt(p, "at offset %d the mirror has another record than the source: the source was re-created, or somebody else wrote to the mirror", next)
		}
		return false
	case r.Attrs.IsControl():
		s.halt(p, "offset %d of the source is the mark of a transaction: its log is not dense, and this link mirrors dense logs only", next)
		return false
	case r.Timestamp.UnixNano()%int64(time.Millisecond) != 0:
		// What the client makes of milliseconds that nanoseconds cannot count,
		// but for one in 15,625, which then is copied wrong.
		s.halt(p, "offset %d of the source has a timestamp that this link cannot copy: it is outside the years 1678 to 2262", next)
		return false
	case batchBytes(r) > batchMaxBytes:
		s.halt(p, "offset %d of the source is too large: %d bytes, this link takes batches of %d", next, batchBytes(r), batchMaxBytes)
		return false
	}
	s.next[p]++
	return true
}

// batchBytes is how large a batch of the one record can be at most.
func batchBytes(r *kgo.Record) int {
	const batch, header = 128, 10 // framing at most
	n := batch + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += header + len(h.Key) + len(h.Value)
	}
	return n
}

// await sends what was produced and waits for the answers. If they are long in
// coming it says so; after the context's end it does not wait longer than
// requestTimeout, and gives up on the rest by closing the producer.
func (s *session) await(ctx context.Context, c *copying) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_ = s.producer.Flush(context.WithoutCancel(ctx)) // waits only; each record is told its own error
		c.wg.Wait()
	}()
	late := time.NewTimer(requestTimeout)
	defer late.Stop()
	select {
	case <-answered:
		return
	case <-late.C:
		s.setConnected(fmt.Errorf("writes to %s have not succeeded for %s", s.cfg.Destination, requestTimeout))
		select {
		case <-answered:
			return // the check that is due by now finds that all is well
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	ending := time.NewTimer(requestTimeout)
	defer ending.Stop()
	select {
	case <-answered:
	case <-ending.C:
		s.producer.Close()
		<-answered
	}
}

// settle judges the writes that failed: what the mirror refuses stops its
// partition, everything else ends the session.
func (s *session) settle(failed map[partition]failure) (err error) {
	for p, f := range failed {
		if errors.Is(f.err, kerr.MessageTooLarge) {
			s.halt(p, "offset %d of the source, or a batch that begins with it, is too large for the mirror: "+
				"raise max.message.bytes of %s in %s to that of the source", f.offset, s.cfg.Origin.MirrorTopic(p.topic), s.cfg.Destination)
			continue
		}
		err = fmt.Errorf("write the mirror of topic %s, partition %d, offset %d: %w", p.topic, p.num, f.offset, f.err)
	}
	return err
}

// copying is one round of produced records. The producer answers from its own
// goroutines.
type copying struct {
	sent    int
	wg      sync.WaitGroup
	mu      sync.Mutex
	failed  map[partition]failure // the first of each partition
	misfits map[partition]misfit  // the first of each partition
	done    map[partition]volume
}

type failure struct {
	offset int64 // of the source
	err    error
}

type misfit struct{ source, mirror int64 }

type volume struct{ records, bytes int64 }

func (c *copying) produce(ctx context.Context, producer *kgo.Client, topic string, p partition, r *kgo.Record) {
	size := int64(len(r.Key) + len(r.Value))
	c.sent++
	c.wg.Add(1)
	producer.Produce(ctx, &kgo.Record{
		Topic: topic, Partition: p.num,
		Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp,
	}, func(written *kgo.Record, err error) {
		defer c.wg.Done()
		c.answered(p, misfit{r.Offset, written.Offset}, size, err)
	})
}

func (c *copying) answered(p partition, m misfit, size int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if _, known := c.failed[p]; !known {
			c.failed[p] = failure{m.source, err}
		}
		return
	}
	if _, known := c.misfits[p]; m.mirror != m.source && !known {
		c.misfits[p] = m
	}
	d := c.done[p]
	c.done[p] = volume{d.records + 1, d.bytes + size}
}
