package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// Config is what a link copies.
type Config struct {
	Origin      events.Origin // whose logs
	Destination events.Region
	Topics      []string // of the logs, in the origin's cluster
	Partitions  int32    // of every log and mirror
}

const (
	pollRecords    = 20_000 // at most so many records are in flight
	fetchMaxBytes  = 16 << 20
	requestTimeout = 10 * time.Second
	backoffLeast   = 100 * time.Millisecond
	backoffMost    = 5 * time.Second
)

// Link mirrors the logs of one origin into one destination.
type Link struct {
	cfg     Config
	source  []kgo.Opt
	dest    []kgo.Opt
	metrics *Metrics
	log     *slog.Logger

	mu        sync.Mutex
	connected error // why the source cannot be read at present; nil if it can
	since     time.Time
	stopped   map[partition]error
}

type partition struct {
	topic string // of the log, not of the mirror
	num   int32
}

func (p partition) compare(q partition) int {
	if c := strings.Compare(p.topic, q.topic); c != 0 {
		return c
	}
	return int(p.num - q.num)
}

// NewLink makes a link from the cluster that the source options reach to the
// one that the dest options reach.
func NewLink(source, dest []kgo.Opt, cfg Config, metrics *Metrics, log *slog.Logger) *Link {
	return &Link{
		cfg: cfg, source: source, dest: dest, metrics: metrics,
		log:       log.With("link", cfg.Origin.String()+"→"+cfg.Destination.String()),
		connected: errors.New("not started"),
		since:     time.Now(),
		stopped:   map[partition]error{},
	}
}

// StoppedError says that the mirroring of one partition has stopped for good
// and what an operator has to know.
type StoppedError struct {
	Origin    events.Origin
	Topic     string // of the log
	Partition int32
	Reason    string
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("mirror of %s, topic %s, partition %d: %s", e.Origin, e.Topic, e.Partition, e.Reason)
}

// Status is what a link is doing.
type Status struct {
	Origin      events.Origin `json:"origin"`
	Destination events.Region `json:"destination"`
	Running     bool          `json:"running"`         // the source is being read
	Error       string        `json:"error,omitempty"` // why not, if it is not
	Since       time.Time     `json:"since"`           // of Running's present value
	Stopped     []string      `json:"stopped,omitempty"`
}

// Status tells what the link is doing at present.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Origin: l.cfg.Origin, Destination: l.cfg.Destination, Running: l.connected == nil, Since: l.since}
	if l.connected != nil {
		s.Error = l.connected.Error()
	}
	for _, p := range sortedKeys(l.stopped) {
		s.Stopped = append(s.Stopped, l.stopped[p].Error())
	}
	return s
}

// Run mirrors until the context ends; whatever fails meanwhile is tried again,
// with growing pauses. It returns only after every write under way has been
// answered or given up.
func (l *Link) Run(ctx context.Context) {
	producer, err := kgo.NewClient(append(slices.Clone(l.dest),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.MaxBufferedRecords(pollRecords+1),
		kgo.ProducerLinger(0),
	)...)
	if err != nil {
		l.setConnected(fmt.Errorf("client of %s: %w", l.cfg.Destination, err))
		return
	}
	defer producer.Close()
	pause := backoffLeast
	for {
		worked, err := l.session(ctx, producer)
		if ctx.Err() != nil {
			return
		}
		l.setConnected(err)
		if worked {
			pause = backoffLeast
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		pause = min(2*pause, backoffMost)
	}
}

// session reads where the mirrors end and copies on from there, until
// something fails. worked tells whether it got as far as copying.
func (l *Link) session(ctx context.Context, producer *kgo.Client) (worked bool, err error) {
	next, err := l.startOffsets(ctx, producer)
	if err != nil {
		return false, err
	}
	start := map[string]map[int32]kgo.Offset{}
	for p, offset := range next {
		if start[p.topic] == nil {
			start[p.topic] = map[int32]kgo.Offset{}
		}
		start[p.topic][p.num] = kgo.NewOffset().At(offset)
	}
	consumer, err := kgo.NewClient(append(slices.Clone(l.source),
		kgo.ConsumePartitions(start),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)...)
	if err != nil {
		return false, fmt.Errorf("client of %s: %w", l.cfg.Origin, err)
	}
	defer consumer.Close()
	l.setConnected(nil)
	for {
		fetches := consumer.PollRecords(ctx, pollRecords)
		if err := ctx.Err(); err != nil {
			return true, err
		}
		if err := l.checkFetchErrors(consumer, fetches); err != nil {
			return true, err
		}
		if err := l.copy(ctx, consumer, producer, next, fetches); err != nil {
			return true, err
		}
	}
}

// startOffsets compares source and mirrors and says from where to copy on.
// Partitions whose logs do not fit together are stopped.
func (l *Link) startOffsets(ctx context.Context, producer *kgo.Client) (map[partition]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var mirrors []string
	for _, t := range l.cfg.Topics {
		mirrors = append(mirrors, l.cfg.Origin.MirrorTopic(t))
	}
	// Mirrors first: their sources can only have grown by the time that those
	// are asked, so a mirror that seems ahead really is.
	mirrorEnds, err := listOffsets(ctx, kadm.NewClient(producer).ListEndOffsets, l.cfg.Destination.String(), mirrors)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(l.source...)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", l.cfg.Origin, err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := listOffsets(ctx, admin.ListStartOffsets, l.cfg.Origin.String(), l.cfg.Topics)
	if err != nil {
		return nil, err
	}
	ends, err := listOffsets(ctx, admin.ListEndOffsets, l.cfg.Origin.String(), l.cfg.Topics)
	if err != nil {
		return nil, err
	}
	offsets := map[partition]int64{}
	for _, t := range l.cfg.Topics {
		for num := range l.cfg.Partitions {
			p := partition{t, num}
			next := mirrorEnds[partition{l.cfg.Origin.MirrorTopic(t), num}]
			switch {
			case l.isStopped(p):
			case next < starts[p]:
				l.stop(p, "offsets %d to %d have expired at the source before they were mirrored", next, starts[p]-1)
			case next > ends[p]:
				l.stop(p, "the mirror ends at offset %d, the source at %d: the source was truncated or re-created, or somebody else wrote to the mirror", next, ends[p])
			default:
				offsets[p] = next
			}
		}
	}
	return offsets, nil
}

// listOffsets asks a cluster for an offset of every partition of the topics.
func listOffsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), cluster string, topics []string) (map[partition]int64, error) {
	listed, err := list(ctx, topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", cluster, err)
	}
	offsets := map[partition]int64{}
	listed.Each(func(o kadm.ListedOffset) { offsets[partition{o.Topic, o.Partition}] = o.Offset })
	return offsets, nil
}

// checkFetchErrors stops the partitions that cannot be read any further. Any
// other error ends the session, and the next one looks at everything anew.
func (l *Link) checkFetchErrors(consumer *kgo.Client, fetches kgo.Fetches) error {
	for _, fe := range fetches.Errors() {
		if fe.Topic == "" || fe.Partition < 0 || !isLoss(fe.Err) {
			return fmt.Errorf("read %s, topic %s, partition %d: %w", l.cfg.Origin, fe.Topic, fe.Partition, fe.Err)
		}
		l.halt(consumer, partition{fe.Topic, fe.Partition}, "the source cannot be read on: %s", fe.Err)
	}
	return nil
}

// copy appends what was fetched to the mirrors and waits for the acks. next
// holds the offset expected next of every partition.
func (l *Link) copy(ctx context.Context, consumer, producer *kgo.Client, next map[partition]int64, fetches kgo.Fetches) error {
	c := copying{misfits: map[partition]misfit{}, done: map[partition]volume{}}
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		p := partition{ftp.Topic, ftp.Partition}
		for _, r := range ftp.Records {
			if l.isStopped(p) {
				return
			}
			if r.Offset != next[p] {
				l.halt(consumer, p, "offsets %d to %d are missing at the source: its log is not dense (transactions, compaction), "+
					"and this link mirrors dense logs only", next[p], r.Offset-1)
				return
			}
			next[p]++
			c.produce(ctx, producer, l.cfg.Origin.MirrorTopic(p.topic), p, r)
		}
	})
	c.wg.Wait()
	for p, done := range c.done {
		l.metrics.add(l.cfg.Origin, p.topic, done.records, done.bytes)
	}
	for p, m := range c.misfits {
		l.halt(consumer, p, "offset %d of the source was written at offset %d of the mirror: somebody else writes to the mirror", m.source, m.mirror)
	}
	return c.err
}

// copying is one round of produced records. The producer answers from its own
// goroutines.
type copying struct {
	wg      sync.WaitGroup
	mu      sync.Mutex
	err     error
	misfits map[partition]misfit // the first of each partition
	done    map[partition]volume
}

type misfit struct{ source, mirror int64 }

type volume struct{ records, bytes int64 }

func (c *copying) produce(ctx context.Context, producer *kgo.Client, topic string, p partition, r *kgo.Record) {
	size := int64(len(r.Key) + len(r.Value))
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
		if c.err == nil { // the others mostly say the same
			c.err = fmt.Errorf("write the mirror of topic %s, partition %d, offset %d: %w", p.topic, p.num, m.source, err)
		}
		return
	}
	if _, known := c.misfits[p]; m.mirror != m.source && !known {
		c.misfits[p] = m
	}
	d := c.done[p]
	c.done[p] = volume{d.records + 1, d.bytes + size}
}
