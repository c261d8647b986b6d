package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/projections"
)

const (
	sweepInterval = 10 * time.Second
	sweepKeys     = events.MaxCollected // looked at in each log at a time
	collectBytes  = 256 << 10           // of keys in one collection
	collectWait   = 10 * time.Second    // for its acknowledgement
)

// collector finds tombstones that nobody needs any more and writes into their own
// logs that they go. It goes round all keys, slowly.
type collector struct {
	cfg    *config.Config
	origin events.Origin
	source string
	client *kgo.Client
	held   holder
	checks *checker
	clock  *nodeClock
	log    *slog.Logger
	sweeps map[events.Log]*sweep
}

// sweep is how far the round of one log has come.
type sweep struct {
	after string // key
	next  int64  // the log has to be folded up to here first: what was collected last
}

// run collects until the context ends.
func (c *collector) run(ctx context.Context) {
	for range pause.Ticks(ctx, sweepInterval) {
		for p := range c.cfg.Partitions {
			shard, release := c.held(p)
			for stream := range c.cfg.Streams {
				log := events.Log{Origin: c.origin, Stream: stream, Partition: p}
				if shard == nil || ended(ctx) {
					continue
				}
				if err := c.sweep(ctx, shard, log); err != nil {
					c.log.Debug("tombstones were not collected and are tried again", "log", log.String(), "error", err)
				}
			}
			release()
		}
	}
}

// sweep looks at the next keys of a log's round and collects what can go.
func (c *collector) sweep(ctx context.Context, shard *projections.Shard, log events.Log) error {
	s, ok := c.sweeps[log]
	if !ok {
		s = &sweep{}
		c.sweeps[log] = s
	}
	settled := c.checks.settled(log, shard.Next)
	if settled == 0 || shard.Next(log) < s.next {
		return nil
	}
	dead, after, err := shard.Dead(log, s.after, sweepKeys)
	if err != nil {
		return err
	}
	old, err := c.old(ctx, log, settled, dead)
	if err != nil {
		return err
	}
	if len(old) > 0 {
		offset, err := c.write(ctx, shard, log, old)
		if err != nil {
			return err
		}
		s.next = offset + 1
		c.log.Debug("tombstones collected", "log", log.String(), "offset", offset, "tombstones", len(old))
	}
	s.after = after
	return nil
}

// old are the tombstones below an offset that are old enough, by their clocks and by
// when they were written: events that are loaded may have clocks of long ago.
func (c *collector) old(ctx context.Context, log events.Log, below int64, dead []projections.Dead) (old []events.Tombstone, err error) {
	before, bytes := time.Now().Add(-c.cfg.Tombstones.Keep), 0
	for _, d := range dead {
		if d.Offset < below && d.Clock.Time().Before(before) && bytes < collectBytes {
			old, bytes = append(old, d.Tombstone), bytes+len(d.Key)
		}
	}
	if len(old) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, collectWait)
	defer cancel()
	topic := c.cfg.Streams[log.Stream].Topic
	listed, err := kadm.NewClient(c.client).ListOffsetsAfterMilli(ctx, before.UnixMilli(), topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("what was written to topic %s of %s before %s: %w", topic, c.cfg.Region, before.UTC().Format(time.RFC3339), err)
	}
	later, ok := listed.Lookup(topic, log.Partition)
	if !ok {
		return nil, nil
	}
	return slices.DeleteFunc(old, func(t events.Tombstone) bool { return t.Offset >= later.Offset }), nil
}

// write writes a collection into the log itself. Whether or not an answer comes, it
// does no harm to write another: what is gone already is left alone.
func (c *collector) write(ctx context.Context, shard *projections.Shard, log events.Log, old []events.Tombstone) (offset int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, collectWait)
	defer cancel()
	e, err := events.NewCollection(old)
	if err != nil {
		return 0, err
	}
	e.ID, e.Source, e.Epoch = uuid.NewString(), c.source, shard.Epoch()
	if e.Clock, e.Time, err = c.clock.now(); err != nil {
		return 0, err
	}
	e.Deps, _ = contextOf(shard.Logs(), log)
	record, err := events.Encode(e)
	if err != nil {
		return 0, err
	}
	record.Topic, record.Partition = c.cfg.Streams[log.Stream].Topic, log.Partition
	if err := c.client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return 0, fmt.Errorf("write to topic %s of %s: %w", record.Topic, c.cfg.Region, err)
	}
	return record.Offset, nil
}

// settled is up to where a log's events are known everywhere; see
// divergence.Judge.Settled.
func (c *checker) settled(log events.Log, next func(events.Log) int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Settled(log, next)
}
