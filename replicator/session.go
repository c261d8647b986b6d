package replicator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// session copies until something fails. Nothing of it outlives it: the next one
// reads anew where the mirrors end.
type session struct {
	*Link
	producer *kgo.Client // to the destination
	consumer *kgo.Client // of the source

	starts map[partition]int64       // where the logs began when they were looked at last
	next   map[partition]int64       // the offset to copy next, of every partition that is copied
	tails  map[partition]*kgo.Record // last records of mirrors that the source has yet to show
	copied bool
}

// session runs one session. worked tells whether it copied anything.
func (l *Link) session(ctx context.Context) (worked bool, err error) {
	s := &session{Link: l}
	if s.producer, err = l.newProducer(); err != nil {
		return false, err
	}
	defer s.producer.Close()
	if s.consumer, err = l.newConsumer(); err != nil {
		return false, err
	}
	defer s.consumer.Close()
	waiting, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	l.setConnected(waiting)
	err = s.loop(ctx)
	return s.copied, err
}

// newProducer makes the client that writes the mirrors.
//
// It sends nothing before it is told to flush, and then has a whole round of
// records: so when a record is refused, all that follow it in its partition are
// given up with it, and none can slip in at the wrong offset. It also never
// resolves by itself a doubt about what the broker has written; the next session
// sees it by the mirror's end.
func (l *Link) newProducer() (*kgo.Client, error) {
	client, err := kgo.NewClient(append(slices.Clone(l.dest),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.MaxBufferedRecords(pollRecords+1),
		kgo.ProducerBatchMaxBytes(batchMaxBytes),
		kgo.ProducerLinger(0),
		kgo.ManualFlushing(),
		kgo.StopProducerOnDataLossDetected(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", l.cfg.Destination, err)
	}
	return client, nil
}

// newConsumer makes the client that reads the logs. Control records are kept,
// so that a log that ends with one is seen not to be dense.
func (l *Link) newConsumer() (*kgo.Client, error) {
	client, err := kgo.NewClient(append(slices.Clone(l.source),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", l.cfg.Origin, err)
	}
	return client, nil
}

// begin finds out from where to copy on, and begins to read there. waiting says
// which logs do not exist yet.
func (s *session) begin(ctx context.Context) (waiting, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if s.next, waiting, err = s.locate(ctx); err != nil {
		return nil, err
	}
	if s.tails, err = s.readTails(ctx, s.next); err != nil {
		return nil, err
	}
	if err := s.prepareProducer(ctx); err != nil {
		return nil, err
	}
	start := map[string]map[int32]kgo.Offset{}
	for p, offset := range s.next {
		if s.tails[p] != nil && offset > s.starts[p] {
			offset--
		} else {
			delete(s.tails, p) // the source has nothing to compare it with
		}
		addOffset(start, p.topic, p.num, offset)
	}
	s.consumer.AddConsumePartitions(start)
	return waiting, nil
}

// prepareProducer makes the producer ask for all that it needs besides records.
//
// Without a producer id it would ask for one at the first write, without a pause
// as long as the cluster cannot be reached. And the records of a topic that it
// does not know it keeps elsewhere, and may send the first of them before it has
// moved the last to where they fail together.
func (s *session) prepareProducer(ctx context.Context) error {
	if _, _, err := s.producer.ProducerID(ctx); err != nil {
		return fmt.Errorf("producer id of %s: %w", s.cfg.Destination, err)
	}
	met := map[string]bool{}
	for p := range s.next {
		if met[p.topic] {
			continue
		}
		met[p.topic] = true
		const none = -1 // no such partition: the record goes nowhere once the topic is known
		s.producer.ProduceSync(ctx, &kgo.Record{Topic: s.cfg.Origin.MirrorTopic(p.topic), Partition: none})
	}
	return ctx.Err()
}

// loop copies, and now and then looks whether everything still fits together.
func (s *session) loop(ctx context.Context) error {
	for due := time.Now().Add(checkInterval); ; {
		fetches, err := s.poll(ctx, due)
		if err != nil {
			return err
		}
		if err := s.copy(ctx, fetches); err != nil {
			return err
		}
		if time.Now().Before(due) {
			continue
		}
		if err := s.check(ctx); err != nil {
			return err
		}
		due = time.Now().Add(checkInterval)
	}
}

// poll waits until a time for records. Any error of the source ends the session:
// the next one looks at everything anew, and says what is missing.
func (s *session) poll(ctx context.Context, until time.Time) (kgo.Fetches, error) {
	waited, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	fetches := s.consumer.PollRecords(waited, pollRecords)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, fe := range fetches.Errors() {
		if errors.Is(fe.Err, context.DeadlineExceeded) {
			continue
		}
		return nil, fmt.Errorf("read %s, topic %s, partition %d: %w", s.cfg.Origin, fe.Topic, fe.Partition, fe.Err)
	}
	return fetches, nil
}

// check compares what the clusters say with what this session did. It also
// finds out that one of them has gone, about which clients keep silent.
func (s *session) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ends, waiting, err := s.locate(ctx)
	if err != nil {
		return err
	}
	for _, p := range sortedKeys(s.next) {
		end, known := ends[p]
		switch next := s.next[p]; {
		case s.isStopped(p):
			s.leave(p)
		case !known:
			return waiting
		case end < next:
			return fmt.Errorf("mirror of topic %s, partition %d: it was written up to offset %d and ends at %d", p.topic, p.num, next, end)
		case end > next:
			s.halt(p, "the mirror ends at offset %d, this link wrote up to %d: somebody else writes to the mirror", end, next)
		}
	}
	for p := range ends {
		if _, copied := s.next[p]; !copied && !s.isStopped(p) {
			return fmt.Errorf("topic %s, partition %d, exists by now", p.topic, p.num)
		}
	}
	s.setConnected(waiting)
	return nil
}

// halt stops a partition that is being copied.
func (s *session) halt(p partition, format string, args ...any) {
	s.stop(p, format, args...)
	s.leave(p)
}

func (s *session) leave(p partition) {
	delete(s.next, p)
	s.consumer.RemoveConsumePartitions(map[string][]int32{p.topic: {p.num}})
}

// addOffset puts an offset into what clients want to have.
func addOffset(m map[string]map[int32]kgo.Offset, topic string, num int32, offset int64) {
	if m[topic] == nil {
		m[topic] = map[int32]kgo.Offset{}
	}
	m[topic][num] = kgo.NewOffset().At(offset)
}
