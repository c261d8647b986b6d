package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/mirrors"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

const (
	sweepKeys  = events.MaxCollected    // looked at without a look at the clock
	sweepWork  = 200 * time.Millisecond // on one log at a time, about
	sweepRest  = time.Second            // between two passes over all logs, at least; more the longer they take
	sweepRests = 3                      // times as long as it worked

	// Chunks of one log that are written in a pass: watches remember the keys of so many changes and no more.
	sweepWrites = 4

	// A round of all keys of a log begins so long after the one before, by tombstones.keep.
	roundKeeps = 16 // of them in that time
	roundLeast = 10 * time.Second
	roundMost  = time.Hour

	collectBytes = 256 << 10        // of keys in one chunk
	collectWait  = 10 * time.Second // for its acknowledgement

	// So long, or for tombstones.keep if that is shorter, all regions have to have spoken this node's version as it has
	// heard: half of what a node lives that is started anew each hour.
	alikeFor = 30 * time.Minute
)

// collector finds tombstones that nobody needs any more and writes into their own
// logs that they go; and what other logs have hidden for long, and writes into its own log that it is a
// tombstone from there on. It goes round all keys, at rest three quarters of the time.
type collector struct {
	cfg     *config.Config
	origin  events.Origin
	source  string
	client  *kgo.Client
	held    checks.Holder
	hold    func(ctx context.Context, partition int32) (while context.Context, shard *projections.Shard, release func())
	gather  func(ctx context.Context, p api.SlicesParams) ([]*api.SlicesPage, error)
	checks  attested
	mirrors *mirrors.Offsets
	clock   *nodeClock
	metrics *collectMetrics
	log     *slog.Logger
	places  *places // of rounds and stalls, for the next start; nil: each begins anew
	ends    *pastEnds
	topics  *topicAges
	askable int // keys that are asked for at once in other partitions: no more than nodes take, and answer in time

	mu     sync.Mutex // guards the map, and what gauges read of sweeps
	sweeps map[events.Log]*sweep
}

// attested is what all regions have said of their logs: a checks.Checker.
type attested interface {
	Known(stream events.Stream, partition int32) (least, most events.Context, err error)
	Applied(log events.Log) map[events.Origin]int64
	Alike(stream events.Stream) (since time.Time, err error)
	Behind() time.Duration
	Held() time.Duration
}

// sweep is how far the round of one log has come.
type sweep struct {
	after string // key; empty: the next round is not begun
	next  int64  // the log has to be folded up to here before it goes on: what was collected last
	begun time.Time
	seen  tombstones // in this round

	resumed bool // the round was begun before the node was started, and does not see all

	counted tombstones // in the last round that came to its end
	stable  int64      // every region had folded the log up to here when it was looked at last
	moved   time.Time  // when the log could be swept last, and every region had folded all or more of it; later by as long as the node did not have it since
}

// tombstones are counted.
type tombstones struct {
	all   int
	stuck int // they hide what is in a log that nobody writes any more
}

// run collects until the context ends.
func (c *collector) run(ctx context.Context) {
	for !ended(ctx) {
		begun := time.Now()
		c.pass(ctx)
		c.places.note(c.sweeps, false)
		c.ends.note(time.Now(), c.knownEnds)
		pause.For(ctx, max(sweepRest, sweepRests*time.Since(begun)))
	}
	c.places.note(c.sweeps, true)
}

// pass goes on with the rounds of all logs whose shards this node has. What lies in the bucket yet is let
// alone: others wait for it.
func (c *collector) pass(ctx context.Context) {
	c.topics = newTopicAges()
	for p := range c.cfg.Partitions {
		while, shard, release := c.hold(ctx, p)
		for stream := range c.cfg.Streams {
			log := events.Log{Origin: c.origin, Stream: stream, Partition: p}
			s := c.sweepOf(log, shard != nil && !shard.IsInPlace() && c.canCollect(stream))
			if s == nil || ended(while) {
				continue
			}
			if err := c.sweep(while, shard, log, s); err != nil && !ended(while) {
				c.metrics.failures.Inc()
				c.log.Debug("tombstones were not collected and are tried again", "log", log.String(), "error", err)
			}
		}
		release()
	}
}

// sureWhile is a sureShard for work that may have to wait: its context ends when the shard is to be closed.
func (r *Region) sureWhile(ctx context.Context, partition int32) (while context.Context, shard *projections.Shard, release func()) {
	if s := r.shards.get(partition); s != nil && r.claims.Lapsed() == nil {
		if while, done, ok := s.useWhile(ctx); ok {
			return while, s.Shard, done
		}
	}
	return ctx, nil, func() {}
}

// canCollect tells whether a stream's rule has deletes: if not, its keys are not gone round.
func (c *collector) canCollect(stream events.Stream) bool {
	rule, err := projections.LookupRule(c.cfg.Streams[stream].Merge)
	if err != nil {
		return false
	}
	_, err = rule.Fold(nil, nil, &events.Event{Op: events.OpDelete, Type: events.TypeDelete}, events.Log{Origin: c.origin, Stream: stream}.At(0))
	return err == nil
}

// sweepOf is the sweep of a log; nil, and forgotten, if the node has nothing to collect of it.
func (c *collector) sweepOf(log events.Log, can bool) *sweep {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !can {
		delete(c.sweeps, log)
		return nil
	}
	s, ok := c.sweeps[log]
	if !ok {
		stood := c.places.stallOf(log)
		s = &sweep{moved: time.Now().Add(-stood.duration()), stable: stood.Next, after: c.places.of(log)}
		s.resumed = s.after != ""
		c.sweeps[log] = s
	}
	return s
}

// sweep goes on with a log's round for a while, and collects what can go.
func (c *collector) sweep(ctx context.Context, shard *projections.Shard, log events.Log, s *sweep) error {
	now := time.Now()
	stable, settled := c.settled(shard, log)
	if !settled {
		return nil // that is no failure; how long it has been so is told, see moved
	}
	isDue := s.after != "" || now.Sub(s.begun) >= c.roundEvery()
	if isDue && shard.Next(log) >= s.next {
		if s.after == "" {
			s.begun, s.seen = now, tombstones{}
		}
		if err := c.goRound(ctx, shard, log, s, stable); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if next := stable.Next(log.Origin); next != s.stable || next >= shard.Next(log) {
		s.stable, s.moved = next, now
	}
	return nil
}

// settled is what all regions have folded of the logs of a log's partition, as they have said lately; not ok unless whatever any of
// them had folded when it said so is folded here, too. Nor is it ok while a node anywhere speaks, or has spoken a while ago,
// another version: it may get the shard next, and fold what is written now otherwise.
func (c *collector) settled(shard *projections.Shard, log events.Log) (stable events.Context, ok bool) {
	if since, err := c.checks.Alike(log.Stream); err != nil || time.Since(since) < min(c.cfg.Tombstones.Keep, alikeFor) {
		return nil, false
	}
	stable, atLeast, err := c.known(log.Stream, log.Partition)
	return stable, err == nil && shard.Reached(atLeast) == nil
}

func (c *collector) roundEvery() time.Duration {
	return min(max(c.cfg.Tombstones.Keep/roundKeeps, roundLeast), roundMost)
}

// goRound looks at keys, page by page, until it has worked or written for long enough, or the round is over. Keys whose age is
// not known, because their logs cannot be asked, wait for another round.
func (c *collector) goRound(ctx context.Context, shard *projections.Shard, log events.Log, s *sweep, stable events.Context) error {
	ages := c.agesOf(log)
	return errors.Join(c.goPages(ctx, shard, log, s, stable, ages), ages.failed())
}

func (c *collector) goPages(ctx context.Context, shard *projections.Shard, log events.Log, s *sweep, stable events.Context, ages *ages) error {
	begun := time.Now()
	for written := 0; ; {
		page, err := shard.Dead(log, s.after, sweepKeys)
		if err != nil {
			return err
		}
		ready := slices.DeleteFunc(page.Dead, func(d projections.Dead) bool { return !hasSeen(stable, d.Seen) || !ages.areOld(ctx, d) })
		for chunk := range chunks(ready) {
			if written++; written > sweepWrites {
				return nil // from behind the last one
			}
			if err := c.collect(ctx, shard, log, s, chunk); err != nil {
				return err
			}
			s.after = chunk[len(chunk)-1].Key
			page.Tombstones = c.count(s, page.Tombstones, s.after)
		}
		s.after = page.Next
		c.count(s, page.Tombstones, s.after)
		if s.after == "" {
			c.endRound(s)
			return nil
		}
		if time.Since(begun) >= sweepWork || ended(ctx) {
			return nil
		}
	}
}

// endRound notes what was counted, if that is all; else another round begins at once.
func (c *collector) endRound(s *sweep) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.resumed {
		s.resumed, s.begun = false, time.Time{}
		return
	}
	s.counted = s.seen
}

// hasSeen reports whether a context has seen all that another has.
func hasSeen(c, all events.Context) bool {
	return !slices.ContainsFunc(all, func(s events.Seen) bool { return c.Next(s.Origin) < s.Next })
}

// count counts tombstones up to where a round has come, the end if that is empty, and leaves those behind it: a page may be left early.
func (c *collector) count(s *sweep, all []projections.Tombstone, after string) (rest []projections.Tombstone) {
	for i, t := range all {
		if after != "" && t.Key > after {
			return all[i:]
		}
		s.seen.all++
		if c.isStuck(t.Hides) {
			s.seen.stuck++
		}
	}
	return nil
}

// isStuck reports whether a tombstone hides what is in a log that nobody writes any more: of a former
// incarnation, or of a region that was taken out.
func (c *collector) isStuck(hides []events.Origin) bool {
	return slices.ContainsFunc(hides, func(o events.Origin) bool { return !c.isWritten(o) })
}

// isWritten reports whether an origin's logs are written, and so mirrored.
func (c *collector) isWritten(o events.Origin) bool {
	_, ok := c.cfg.Regions[o.Region]
	return ok && c.cfg.Origin(o.Region) == o
}

// chunks cuts what is to go into what is written together: a collection, a burial, or both.
func chunks(ready []projections.Dead) iter.Seq[[]projections.Dead] {
	return func(yield func([]projections.Dead) bool) {
		from, keys, bytes := 0, 0, 0
		for i, d := range ready {
			isFull := i-from == events.MaxCollected || keys+len(d.Key) > collectBytes || bytes+d.Bytes > events.MaxUpkeepBytes
			if i > from && isFull {
				if !yield(ready[from:i]) {
					return
				}
				from, keys, bytes = i, 0, 0
			}
			keys, bytes = keys+len(d.Key), bytes+d.Bytes
		}
		if from < len(ready) {
			yield(ready[from:])
		}
	}
}

// collect writes that slices are buried, and that tombstones go, but for those that are needed elsewhere.
func (c *collector) collect(ctx context.Context, shard *projections.Shard, log events.Log, s *sweep, chunk []projections.Dead) error {
	var dead []projections.Dead
	var buried, going []events.Tombstone
	for _, d := range chunk {
		if d.Holds {
			buried = append(buried, d.Tombstone)
		} else {
			dead = append(dead, d)
		}
	}
	if err := c.write(ctx, shard, log, s, events.NewBurial, buried); err != nil {
		return err
	}
	needed, err := c.neededElsewhere(ctx, log, dead)
	if err != nil {
		return err
	}
	for _, d := range dead {
		if !needed[d.Key] {
			going = append(going, d.Tombstone)
		}
	}
	return c.write(ctx, shard, log, s, events.NewCollection, going)
}

// neededElsewhere are the keys whose tombstones may hide something in other partitions: producers with
// other partitioners put one key into several.
func (c *collector) neededElsewhere(ctx context.Context, log events.Log, dead []projections.Dead) (map[string]bool, error) {
	if c.cfg.Partitions == 1 || len(dead) == 0 {
		return nil, nil
	}
	rule, err := projections.LookupRule(c.cfg.Streams[log.Stream].Merge)
	if err != nil {
		return nil, err
	}
	p := api.SlicesParams{Stream: log.Stream, AtLeast: events.Vector{}}
	stable := map[int32]events.Context{}
	for other := range c.cfg.Partitions {
		if other == log.Partition {
			continue
		}
		least, atLeast, err := c.known(log.Stream, other)
		if err != nil {
			return nil, err
		}
		p.Shards, stable[other] = append(p.Shards, other), least
		maps.Copy(p.AtLeast, atLeast)
	}
	c.askable = min(2*c.askable, events.MaxCollected)
	needed := map[string]bool{}
	for len(dead) > 0 {
		asked := dead[:min(c.askable, len(dead))]
		entities, done, err := c.ask(ctx, p, asked)
		isLarge := events.KindOf(err) == events.KindInvalid || errors.Is(err, context.DeadlineExceeded)
		if isLarge && len(asked) > 1 && !ended(ctx) {
			c.askable = (len(asked) + 1) / 2
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entities {
			if needed[e.Key], err = mayHold(rule, e, stable); err != nil {
				return nil, fmt.Errorf("stream %s, key %q: %w", e.Stream, e.Key, err)
			}
		}
		dead = dead[done:]
	}
	return needed, nil
}

// ask asks the owners of shards for the slices of keys, and says of how many of them, from the first on, that
// has told all.
func (c *collector) ask(ctx context.Context, p api.SlicesParams, dead []projections.Dead) (entities []projections.Entity, done int, err error) {
	ctx, cancel := context.WithTimeout(ctx, collectWait)
	defer cancel()
	p.Limit = len(dead)
	for _, d := range dead {
		p.Keys = append(p.Keys, api.Bytes(d.Key))
	}
	var pages []*api.SlicesPage
	err = peers.WhileMoving(ctx, func() (err error) {
		pages, err = c.gather(ctx, p)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	entities, last, more := joinPages(p.Stream, pages)
	if !more {
		return entities, len(dead), nil
	}
	behind := slices.IndexFunc(dead, func(d projections.Dead) bool { return d.Key > last })
	if behind < 0 {
		behind = len(dead)
	}
	return entities, behind, nil
}

// mayHold tells whether a key holds something in some region, as far as that is not known of all of them.
func mayHold(rule merge.Rule, e projections.Entity, stable map[int32]events.Context) (bool, error) {
	for _, s := range e.Slices {
		if rule.Live(s.Data) {
			return true, nil
		}
		last, _, err := rule.Last(s)
		if err != nil || stable[s.Log.Partition].Next(s.Log.Origin) <= last.Offset {
			return true, err
		}
	}
	return false, nil
}

// write writes an event of upkeep into the log itself, if it names anything. Whether or not an answer comes, it
// does no harm to write another: what has changed already is left alone.
func (c *collector) write(
	ctx context.Context, shard *projections.Shard, log events.Log, s *sweep, upkeep func([]events.Tombstone) (events.Event, error), named []events.Tombstone,
) error {
	if len(named) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, collectWait)
	defer cancel()
	e, err := upkeep(named)
	if err != nil {
		return err
	}
	e.ID, e.Source, e.Epoch = uuid.NewString(), c.source, shard.Epoch()
	if e.Clock, e.Time, err = c.clock.now(); err != nil {
		return err
	}
	e.Deps, _ = events.ContextOf(shard.Logs(), log)
	record, err := events.Encode(e)
	if err != nil {
		return err
	}
	record.Topic, record.Partition = c.cfg.Streams[log.Stream].Topic, log.Partition
	if err := c.client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("write to topic %s of %s: %w", record.Topic, c.cfg.Region, err)
	}
	s.next = record.Offset + 1
	c.log.Debug("upkeep of slices written", "log", log.String(), "offset", record.Offset, "type", e.Type, "slices", len(named))
	return nil
}

// known is, of a stream's partition, what all regions have folded as they attest, and the cut that has all
// that any of them has: what is read of a state that has reached it is no older than what they said.
func (c *collector) known(stream events.Stream, partition int32) (stable events.Context, atLeast events.Vector, err error) {
	least, most, err := c.checks.Known(stream, partition)
	atLeast = events.Vector{}
	for _, s := range most {
		atLeast[events.Log{Origin: s.Origin, Stream: stream, Partition: partition}] = s.Next
	}
	return least, atLeast, err
}
