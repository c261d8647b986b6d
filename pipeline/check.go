package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/links"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/pipeline/trouble"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// compareInterval is how often it is looked whether the fold has come to what was
// attested.
const compareInterval = 200 * time.Millisecond

// checker compares what origins attest with this region's state, all the time.
type checker struct {
	cfg     *config.Config
	client  *kgo.Client
	topics  map[string]events.Origin // whose attestations they hold
	held    holder
	metrics *checkMetrics
	log     *slog.Logger

	mu      sync.Mutex
	judge   *divergence.Judge
	foreign *trouble.Recent // that another deployment attests what is this one's; nil: never
}

// attestationTopics are the region's own topic of attestations and its mirrors of
// the others'.
func attestationTopics(cfg *config.Config) map[string]events.Origin {
	own := cfg.Origin(cfg.Region)
	topics := map[string]events.Origin{cfg.AttestationTopic(): own}
	for _, peer := range cfg.Peers() {
		origin := cfg.Origin(peer)
		topics[origin.MirrorTopic(cfg.AttestationTopic())] = origin
	}
	return topics
}

// attestationConfigs keep the newest attestation of each log for ever, and little
// else: every node reads the topic from its beginning when it starts.
var attestationConfigs = map[string]*string{
	"cleanup.policy": kadm.StringPtr("compact"),
	"segment.ms":     kadm.StringPtr("600000"),
	"segment.bytes":  kadm.StringPtr("33554432"),
}

// startChecks starts attesting the region's own logs and comparing all of them.
func (r *Region) startChecks(ctx context.Context, own []kgo.Opt) error {
	topics := attestationTopics(r.cfg)
	client, err := kgo.NewClient(append(own,
		kgo.ConsumeTopics(slices.Sorted(maps.Keys(topics))...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client of %s: %w", r.cfg.Region, err)
	}
	m := newCheckMetrics(r.parts.Registry)
	r.checks = newChecker(r.cfg, client, topics, r.heldShard, m, r.log)
	a := &attester{
		cfg: r.cfg, origin: r.origin, client: client, held: r.sureShard, metrics: m, log: r.log, paces: map[events.Log]*attestPace{},
	}
	r.parts.Registry.MustRegister(&checkGauges{region: r})
	if r.cfg.Tombstones.Keep > 0 {
		c := &collector{
			cfg: r.cfg, origin: r.origin, source: r.source(), client: client, held: r.sureShard, hold: r.sureWhile,
			gather: r.gather, checks: r.checks, clock: r.clock, metrics: newCollectMetrics(r.parts.Registry), log: r.log, sweeps: map[events.Log]*sweep{},
		}
		r.parts.Registry.MustRegister(c)
		r.running.Go(func() { c.run(ctx) })
	}
	r.running.Go(func() { a.run(ctx) })
	r.running.Go(func() { r.checks.read(ctx) })
	r.running.Go(func() { r.checks.compare(ctx) })
	return nil
}

// holder gives the shard of a partition if this node has it, else nil. It is released
// when it is not used any more.
type holder func(partition int32) (shard *projections.Shard, release func())

// heldShard is a holder of the shards that are open here.
func (r *Region) heldShard(partition int32) (*projections.Shard, func()) {
	open, release := r.shards.use([]int32{partition})
	return open[partition], release
}

// sureShard is a holder for what is told to others: a node that was silent for a while
// has no shards until it knows that they are still its own.
func (r *Region) sureShard(partition int32) (*projections.Shard, func()) {
	if r.claims.Lapsed() != nil {
		return nil, func() {}
	}
	return r.heldShard(partition)
}

func newChecker(cfg *config.Config, client *kgo.Client, topics map[string]events.Origin, held holder, m *checkMetrics, log *slog.Logger) *checker {
	c := &checker{cfg: cfg, client: client, topics: topics, held: held, metrics: m, log: log}
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
	held holder
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

// read takes in attestations until the context ends.
func (c *checker) read(ctx context.Context) {
	for {
		fetches := c.client.PollFetches(ctx)
		if ended(ctx) {
			return
		}
		fetches.EachRecord(c.take)
		if err := fetches.Err(); err != nil {
			c.log.Debug("attestations cannot be read and are tried again", "error", err)
			pause.For(ctx, errorPause)
		}
	}
}

func (c *checker) take(r *kgo.Record) {
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
func (c *checker) meets(refused error, made time.Time) {
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

// problem says that another deployment is in the way.
func (c *checker) problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign == nil || time.Since(c.foreign.At) > divergence.RecentFor {
		return nil
	}
	return fmt.Errorf("another deployment uses the same Kafka cluster and names: %w; give one of them a name, in all its regions (deployment), and a group of its own", c.foreign.Err)
}

// compare compares until the context ends.
func (c *checker) compare(ctx context.Context) {
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
func (c *checker) holds(partition int32) bool {
	shard, release := c.held(partition)
	release()
	return shard != nil
}

// forget lets go what was found by comparing a shard that another node owns now. That one
// finds what lasts.
func (c *checker) forget(partition int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge.Forget(partition)
}

// findings tell how every log stands.
func (c *checker) findings(running []*replicator.Link) []divergence.Finding {
	blocked := c.blocked(running)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Findings(time.Now(), func(log events.Log) string { return blocked[log] })
}

// blocked says what keeps logs from being compared: the link, the shard, the fold.
func (c *checker) blocked(running []*replicator.Link) map[events.Log]string {
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
func (c *checker) linkTroubles(d replicator.Details, blocked map[events.Log]string) {
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

// topicPartition is a partition of a topic.
type topicPartition struct {
	topic     string
	partition int32
}

func (c *checker) close() { c.client.Close() }

// Check implements api.CheckNode.
func (r *Region) Check(ctx context.Context, p api.CheckParams) (*api.Check, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil && p.Stream != "" {
		return nil, err
	}
	findings := r.checks.findings(r.links.Running())
	if _, forwarded := api.ForwardedFrom(ctx); !forwarded {
		r.askFindings(ctx, findings)
	}
	findings = slices.DeleteFunc(findings, func(f divergence.Finding) bool {
		return p.Stream != "" && f.Log.Stream != p.Stream
	})
	return &api.Check{Region: r.cfg.Region, At: time.Now().UTC(), Logs: findings}, nil
}

// askFindings replaces findings about shards of other nodes by what these say. Of a node
// that does not answer they stay as they are: not known.
func (r *Region) askFindings(ctx context.Context, findings []divergence.Finding) {
	for _, p := range r.cfg.Shards() {
		_, others, err := r.shares([]int32{p})
		if err != nil || len(others) == 0 {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, peers.Patience)
		err = r.askOthers(asking, others, func(ctx context.Context, _ int, c *api.Client) error {
			theirs, err := c.Check(ctx, api.CheckParams{})
			if err != nil {
				return err
			}
			for i, f := range findings {
				if j := slices.IndexFunc(theirs.Logs, func(t divergence.Finding) bool { return t.Log == f.Log }); f.Log.Partition == p && j >= 0 {
					findings[i] = theirs.Logs[j]
				}
			}
			return nil
		})
		cancel()
		if err != nil {
			r.log.Debug("findings of another node are not known", "shard", p, "error", err)
		}
	}
}

// Acknowledge implements api.CheckNode.
func (r *Region) Acknowledge(ctx context.Context, p api.AcknowledgeParams) (done *api.Acknowledged, err error) {
	if p.Log.Partition >= 0 && p.Log.Partition < r.cfg.Partitions {
		_, others, err := r.shares([]int32{p.Log.Partition})
		if err != nil {
			return nil, err
		}
		if len(others) > 0 {
			if err := peers.RefuseForward(ctx, "acknowledge"); err != nil {
				return nil, err
			}
			err = r.askOthers(ctx, others, func(ctx context.Context, _ int, c *api.Client) (err error) {
				done, err = c.Acknowledge(ctx, p)
				return err
			})
			return done, err
		}
	}
	r.checks.mu.Lock()
	defer r.checks.mu.Unlock()
	if err := r.checks.judge.Acknowledge(p.Log); err != nil {
		return nil, err
	}
	r.log.Warn("divergence acknowledged by an operator", "log", p.Log.String())
	return &api.Acknowledged{Region: r.cfg.Region, Log: p.Log}, nil
}

// divergences describe the logs that have diverged.
func (r *Region) divergences() (texts []string) {
	for _, f := range r.checks.findings(nil) {
		if f.Result == divergence.Diverged {
			texts = append(texts, f.Describe(r.cfg.Region))
		}
	}
	return texts
}
