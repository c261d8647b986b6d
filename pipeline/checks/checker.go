package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/links"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/trouble"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// compareInterval is how often it is looked whether the fold has come to what was
// attested.
const compareInterval = 200 * time.Millisecond

// errorPause is before what could not be read is tried again.
const errorPause = 200 * time.Millisecond

// Checker compares what origins attest with the region's state, all the time, in the shards that this
// node has.
type Checker struct {
	cfg     *config.Config
	client  *kgo.Client
	topics  map[string]events.Origin // whose attestations they hold
	held    Holder
	metrics *Metrics
	log     *slog.Logger

	mu      sync.Mutex
	judge   *divergence.Judge
	foreign *trouble.Recent // that another deployment attests what is this one's; nil: never
}

// Holder gives the shard of a partition if this node has it, else nil. It is released
// when it is not used any more.
type Holder func(partition int32) (shard *projections.Shard, release func())

// TopicConfigs keep the newest attestation of each log for ever, and little
// else: every node reads the topic from its beginning when it starts.
var TopicConfigs = map[string]*string{
	"cleanup.policy": kadm.StringPtr("compact"),
	"segment.ms":     kadm.StringPtr("600000"),
	"segment.bytes":  kadm.StringPtr("33554432"),
}

// New makes a Checker; the client reads the AttestationTopics from their beginning.
func New(cfg *config.Config, client *kgo.Client, held Holder, m *Metrics, log *slog.Logger) *Checker {
	c := &Checker{cfg: cfg, client: client, topics: cfg.AttestationTopics(), held: held, metrics: m, log: log}
	c.judge = divergence.NewJudge(judgeConfig(cfg), localMarks{held}, time.Now())
	return c
}

// judgeConfig says whose attestations of which logs are heeded.
func judgeConfig(cfg *config.Config) divergence.Config {
	jc := divergence.Config{
		Origin: cfg.Origin(cfg.Region),
		Format: func(s events.Stream) uint32 { return formatVersion(cfg.Streams[s].Merge) },
		Group:  cfg.Group,
		Topic:  func(s events.Stream) string { return cfg.Streams[s].Topic },
	}
	for region := range cfg.Regions {
		origin := cfg.Origin(region)
		jc.Origins = append(jc.Origins, origin)
		for stream := range cfg.Streams {
			for p := range cfg.Partitions {
				jc.Logs = append(jc.Logs, events.Log{Origin: origin, Stream: stream, Partition: p})
			}
		}
	}
	return jc
}

// localMarks asks the region's shards for marks.
type localMarks struct {
	held Holder
}

var _ divergence.Local = localMarks{}

// At implements divergence.Local.
func (l localMarks) At(log events.Log, offset int64) (events.Mark, error) {
	shard, release := l.held(log.Partition)
	defer release()
	if shard == nil {
		return events.Mark{}, divergence.ErrElsewhere
	}
	mark, err := shard.At(log, offset)
	switch {
	case errors.Is(err, projections.ErrMarkAhead):
		err = divergence.ErrAhead
	case errors.Is(err, projections.ErrMarkGone):
		err = divergence.ErrGone
	}
	return mark, err
}

// Lineage implements divergence.Local.
func (l localMarks) Lineage(log events.Log) string {
	shard, release := l.held(log.Partition)
	defer release()
	if shard != nil {
		return shard.Lineage().ID
	}
	return ""
}

// Read takes in attestations until the context ends.
func (c *Checker) Read(ctx context.Context) {
	for {
		fetches := c.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachRecord(c.take)
		if err := fetches.Err(); err != nil {
			c.log.Debug("attestations cannot be read and are tried again", "error", err)
			pause.For(ctx, errorPause)
		}
	}
}

func (c *Checker) take(r *kgo.Record) {
	a, err := divergence.Read(r)
	if err == nil {
		c.mu.Lock()
		err = c.judge.Attested(c.topics[r.Topic], a, time.Now())
		c.mu.Unlock()
	}
	var refused *divergence.RefusedError
	if errors.As(err, &refused) {
		c.metrics.refused.WithLabelValues(string(refused.Reason)).Inc()
		if refused.Reason == divergence.OtherDeployment {
			c.meets(refused, a.Made)
		}
		c.log.Debug("attestation refused", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "error", err)
	}
}

// meets notes that another deployment speaks of this one's logs. What it said long ago may be
// all that is left of it, or this one's own from before it was given another name.
func (c *Checker) meets(refused error, made time.Time) {
	if time.Since(made) > divergence.RecentFor {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign == nil || time.Since(c.foreign.At) > divergence.RecentFor {
		c.log.Error("another deployment attests the same logs in the same topics", "error", refused)
	}
	c.foreign = &trouble.Recent{Err: refused, At: time.Now()}
}

// Problem says that another deployment is in the way.
func (c *Checker) Problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign == nil || time.Since(c.foreign.At) > divergence.RecentFor {
		return nil
	}
	return fmt.Errorf("another deployment uses the same Kafka cluster and names: %w; give one of them a name, in all its regions (deployment), and a group of its own", c.foreign.Err)
}

// Compare compares until the context ends.
func (c *Checker) Compare(ctx context.Context) {
	for range pause.Ticks(ctx, compareInterval) {
		c.mu.Lock()
		done := c.judge.Compare(time.Now())
		c.mu.Unlock()
		c.metrics.compared.Add(float64(done.Compared))
		for _, f := range done.Found {
			c.metrics.found.WithLabelValues(string(f.Layer)).Inc()
			c.log.Error("divergence found", "log", f.Log.String(), "offset", *f.At, "layer", string(f.Layer), "what", f.Describe(c.cfg.Region))
		}
		for _, log := range done.Repaired {
			c.log.Info("divergence is over: the state was folded anew and is equal", "log", log.String())
		}
	}
}

// holds reports whether this node has a shard to compare.
func (c *Checker) holds(partition int32) bool {
	shard, release := c.held(partition)
	release()
	return shard != nil
}

// Forget lets go what was found by comparing a shard that another node owns now. That one
// finds what lasts.
func (c *Checker) Forget(partition int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge.Forget(partition)
}

// Acknowledge has what was found of a log be over, on an operator's word.
func (c *Checker) Acknowledge(log events.Log) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Acknowledge(log)
}

// Applied is up to where each region has folded a log, as it attests.
func (c *Checker) Applied(log events.Log) map[events.Origin]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Applied(log)
}

// Known is, of a stream's partition, what all regions have folded as they attest, and what any of them has. It
// is an error if one of them has not attested it lately.
func (c *Checker) Known(stream events.Stream, partition int32) (least, most events.Context, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Known(stream, partition, time.Now())
}

// Behind is by how much this node's clock is behind that of some region, as far as attestations tell.
func (c *Checker) Behind() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Behind(time.Now())
}

// Held is the longest for which any region holds tombstones of keys that several regions have written.
func (c *Checker) Held() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Held()
}

// Alike is since when, as heard by this node, all regions have spoken this one's version of a stream's folds; an
// error if one does not.
func (c *Checker) Alike(stream events.Stream) (since time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Alike(stream)
}

// Findings tell how every log stands; running are the links on this node.
func (c *Checker) Findings(running []*replicator.Link) []divergence.Finding {
	blocked := c.blocked(running)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Findings(time.Now(), func(log events.Log) string { return blocked[log] })
}

// blocked says what keeps logs from being compared: the link, the shard, the fold.
func (c *Checker) blocked(running []*replicator.Link) map[events.Log]string {
	blocked := map[events.Log]string{}
	for _, l := range running {
		c.linkTroubles(links.Details(l), blocked)
	}
	for p := range c.cfg.Partitions {
		shard, release := c.held(p)
		release() // what has stopped is in memory
		if shard == nil {
			for region := range c.cfg.Regions {
				for stream := range c.cfg.Streams {
					blocked[events.Log{Origin: c.cfg.Origin(region), Stream: stream, Partition: p}] = fmt.Sprintf("shard %d is not held by this node", p)
				}
			}
			continue
		}
		for log, err := range shard.Blocked() {
			blocked[log] = err.Error()
		}
	}
	return blocked
}

// linkTroubles notes what keeps a link from mirroring logs, or attestations of
// them.
func (c *Checker) linkTroubles(d replicator.Details, blocked map[events.Log]string) {
	troubles := map[topicPartition]string{}
	for _, p := range d.Partitions {
		if p.State == replicator.Mirroring {
			continue
		}
		text := fmt.Sprintf("link from %s, topic %s, partition %d: %s", d.Origin, p.Topic, p.Partition, p.State)
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		troubles[topicPartition{p.Topic, p.Partition}] = text
	}
	for stream, s := range c.cfg.Streams {
		for p := range c.cfg.Partitions {
			log := events.Log{Origin: d.Origin, Stream: stream, Partition: p}
			if !d.Running && len(d.Partitions) == 0 {
				blocked[log] = fmt.Sprintf("link from %s: %s", d.Origin, d.Error)
			}
			if text := cmp.Or(troubles[topicPartition{s.Topic, p}], troubles[topicPartition{c.cfg.AttestationTopic(), 0}]); text != "" {
				blocked[log] = text
			}
		}
	}
}

// Close ends the client.
func (c *Checker) Close() { c.client.Close() }

// topicPartition is a partition of a topic.
type topicPartition struct {
	topic     string
	partition int32
}
