package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// startChecks starts attesting the region's own logs and comparing all of them.
func (r *Region) startChecks(ctx context.Context, own []kgo.Opt) error {
	client, err := kgo.NewClient(append(own,
		// What is written here is as good if it is written twice, and nobody may wait for it: nor may one partition that does not
		// answer hold up the others, or the end of the node.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ConsumeTopics(slices.Sorted(maps.Keys(r.cfg.AttestationTopics()))...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client of %s: %w", r.cfg.Region, err)
	}
	m := checks.NewMetrics(r.parts.Registry)
	r.checks = checks.New(r.cfg, client, r.heldShard, m, r.log)
	attester := checks.NewAttester(r.cfg, client, r.sureShard, r.lags, m, r.log)
	r.parts.Registry.MustRegister(checks.NewGauges(r.checks))
	if r.cfg.Tombstones.Keep > 0 {
		c := &collector{
			cfg: r.cfg, origin: r.origin, source: r.source(), client: client, held: r.sureShard, hold: r.sureWhile,
			gather: r.gather, checks: r.checks, mirrors: r.worker.mirrors, clock: r.clock, metrics: newCollectMetrics(r.parts.Registry), log: r.log, sweeps: map[events.Log]*sweep{},
			topics: newTopicAges(), askable: events.MaxCollected,
			places: recallPlaces(r.parts.FS, r.cfg.DataDir, r.log), ends: recallEnds(r.parts.FS, r.cfg.DataDir, r.cfg.HoldsTombstonesFor(), r.log),
		}
		r.parts.Registry.MustRegister(c)
		r.running.Go(func() { c.run(ctx) })
	}
	r.running.Go(func() { attester.Run(ctx) })
	r.running.Go(func() { r.checks.Read(ctx) })
	r.running.Go(func() { r.checks.Compare(ctx) })
	return nil
}

// heldShard is a checks.Holder of the shards that are open here.
func (r *Region) heldShard(partition int32) (*projections.Shard, func()) {
	open, release := r.shards.use([]int32{partition})
	return open[partition], release
}

// sureShard is a checks.Holder for what is told to others: a node that was silent for a while
// has no shards until it knows that they are still its own.
func (r *Region) sureShard(partition int32) (*projections.Shard, func()) {
	if r.claims.Lapsed() != nil {
		return nil, func() {}
	}
	return r.heldShard(partition)
}

// Check implements api.CheckNode.
func (r *Region) Check(ctx context.Context, p api.CheckParams) (*api.Check, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil && p.Stream != "" {
		return nil, err
	}
	findings := r.checks.Findings(r.links.Running())
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
	if err := r.checks.Acknowledge(p.Log); err != nil {
		return nil, err
	}
	r.log.Warn("divergence acknowledged by an operator", "log", p.Log.String())
	return &api.Acknowledged{Region: r.cfg.Region, Log: p.Log}, nil
}

// divergences describe the logs that have diverged.
func (r *Region) divergences() (texts []string) {
	for _, f := range r.checks.Findings(nil) {
		if f.Result == divergence.Diverged {
			texts = append(texts, f.Describe(r.cfg.Region))
		}
	}
	return texts
}
