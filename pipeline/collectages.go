package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/listed"
	"github.com/evenkeel/evenkeel/projections"
)

// unnoticed is how long a region may have been lost while others still take it to be there, at most: an attestation
// counts for divergence.SilentAfter, what is decided then is written within a minute, and three clocks have a part
// in it (of the attestation, of the record, of whoever compares), each of which may be wrong by minutes.
const unnoticed = 15 * time.Minute

// holdFor is how old all last events of a key have to be before a tombstone of it is collected, if several logs have a part in
// the key: older than any state that any region may be restored to. Such a state of one log, and the collection in the other,
// would show what was hidden. Not strict, no region can be restored.
func (c *collector) holdFor() (held time.Duration, strict bool) {
	held = max(c.cfg.HoldsTombstonesFor(), c.checks.Held())
	if held <= c.cfg.Tombstones.Keep && c.cfg.Backup == nil {
		return held, false
	}
	return held + unnoticed, true
}

// ages tells what is old enough, by the clocks of events and by when they were written: events that
// are loaded may have clocks of long ago, and the slices of some rules know no clock. A burial is told by when
// it was written alone. Kafka is asked for each log once at most, and if need be. It tells where the first record is that is not
// old, so one that is dated in the future would keep all that follow it young until then: what this node has noted is looked
// at before.
type ages struct {
	*collector
	log        events.Log
	kept, held bound
	errs       map[events.Origin]error // of logs that cannot be asked
}

// bound is a time before which what was written is old.
type bound struct {
	before time.Time
	noted  time.Time                 // what this node has noted to be folded everywhere then is old, whatever its timestamp says
	told   map[events.Origin]written // of the log's stream and partition

	// strict: what the topic does not have any more is old only if it has something else that is older than the bound, or if it
	// is noted. Not strict, it is taken to be old: topics keep records for longer than that.
	strict bool
}

// written is what a topic says of when its log was written.
type written struct {
	later int64 // offset in the log of the first event that was written at the bound, or after it
	older bool  // there is one that was written before
}

func (c *collector) agesOf(log events.Log) *ages {
	if time.Since(c.topics.now) > topicAgesFor {
		c.topics = newTopicAges()
	}
	now := c.topics.now
	held, strict := c.holdFor()
	kept := now.Add(-c.cfg.Tombstones.Keep)
	return &ages{
		collector: c, log: log, errs: map[events.Origin]error{},
		kept: bound{before: kept, noted: kept.Add(-unnoticed), told: map[events.Origin]written{}},
		held: bound{before: now.Add(-held), noted: now.Add(-c.endsSpan()), told: map[events.Origin]written{}, strict: strict},
	}
}

// failed says of which logs no ages are known.
func (a *ages) failed() error {
	return errors.Join(slices.Collect(maps.Values(a.errs))...)
}

// areOld tells whether the last events of all slices of a key are as old as they have to be.
func (a *ages) areOld(ctx context.Context, d projections.Dead) bool {
	b := &a.kept
	if isShared := len(d.Seen) > 1; isShared && !d.Holds {
		b = &a.held
	}
	if !d.Clock.Time().Before(b.before) {
		return false
	}
	return !slices.ContainsFunc(d.Seen, func(last events.Seen) bool { return !a.isOld(ctx, b, last) })
}

// isOld tells whether what a log has last of a key is older than a bound. Everything of a former incarnation was written before
// anything of that which followed. Of a region that was taken out nothing is known but clocks.
func (a *ages) isOld(ctx context.Context, b *bound, last events.Seen) bool {
	region, ok := a.cfg.Regions[last.Origin.Region]
	if !ok {
		return true
	}
	if last.Origin.Incarnation > region.Incarnation {
		return false // this node's configuration is of before
	}
	log := events.Log{Origin: last.Origin, Stream: a.log.Stream, Partition: a.log.Partition}
	if last.Next <= a.ends.before(b.noted, log) {
		return true
	}
	w, ok := a.ask(ctx, b, a.cfg.Origin(last.Origin.Region))
	switch {
	case !ok:
		return false
	case last.Origin.Incarnation < region.Incarnation:
		return w.older
	}
	return last.Next <= w.later && (w.older || !b.strict)
}

// ask asks Kafka when an origin's log was written; not ok if it does not answer.
func (a *ages) ask(ctx context.Context, b *bound, origin events.Origin) (w written, ok bool) {
	if w, ok = b.told[origin]; ok || a.errs[origin] != nil {
		return w, ok
	}
	log := events.Log{Origin: origin, Stream: a.log.Stream, Partition: a.log.Partition}
	w, err := a.writtenBefore(ctx, log, b)
	if err != nil {
		a.errs[origin] = fmt.Errorf("what was written to topic %s of %s, partition %d, before %s: %w",
			a.cfg.TopicOf(log), a.cfg.Region, log.Partition, b.before.UTC().Format(time.RFC3339), err)
		return w, false
	}
	b.told[origin] = w
	return w, true
}

// writtenBefore is where in a log what is younger than a bound begins.
func (c *collector) writtenBefore(ctx context.Context, log events.Log, b *bound) (w written, err error) {
	if b.before.UnixMilli() < 0 {
		return w, nil // which Kafka would take for something else
	}
	ctx, cancel := context.WithTimeout(ctx, collectWait)
	defer cancel()
	topic := c.cfg.TopicOf(log)
	t := c.topics.of(ctx, c.client, topic, b.before)
	later, err := oneOf(t.laters, topic, log.Partition, t.latersErr)
	if err != nil {
		return w, err
	}
	start, err := oneOf(t.starts, topic, log.Partition, t.startsErr)
	if err != nil {
		return w, err
	}
	w.older = later > start || !b.strict && start > 0
	w.later, err = c.mirrors.InLog(ctx, log, later)
	return w, err
}

// topicAgesFor is how long what topics say of their ages is good for: if a log is restored to before meanwhile, it gives the
// offsets of old records to young ones.
const topicAgesFor = time.Minute

// topicAges are what topics say of when they were written, of all of their partitions at once: each is asked once in a pass,
// however many logs it is gone round for.
type topicAges struct {
	now  time.Time // from which bounds are reckoned
	told map[topicAge]*listedAges
}

type topicAge struct {
	topic  string
	before int64 // ms
}

// listedAges are good for the partitions that they name, whatever has become of others.
type listedAges struct {
	laters, starts       kadm.ListedOffsets
	latersErr, startsErr error
}

func newTopicAges() *topicAges {
	return &topicAges{now: time.Now(), told: map[topicAge]*listedAges{}}
}

func (a *topicAges) of(ctx context.Context, client *kgo.Client, topic string, before time.Time) *listedAges {
	key := topicAge{topic, before.UnixMilli()}
	if t := a.told[key]; t != nil {
		return t
	}
	t, admin := &listedAges{}, kadm.NewClient(client)
	t.laters, t.latersErr = admin.ListOffsetsAfterMilli(ctx, key.before, topic)
	t.starts, t.startsErr = admin.ListStartOffsets(ctx, topic)
	if !errors.Is(ctx.Err(), context.Canceled) { // else that was one shard's end, and says nothing to others
		a.told[key] = t
	}
	return t
}

// oneOf is what was listed of a partition. An error is told only if it was not.
func oneOf(offsets kadm.ListedOffsets, topic string, partition int32, err error) (int64, error) {
	offset, missing := listed.Offset(offsets, topic, partition)
	if missing != nil && err != nil {
		return 0, err
	}
	return offset, missing
}
