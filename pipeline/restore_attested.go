package pipeline

import (
	"context"
	"fmt"

	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/projections"
)

// compare compares what was restored with what other regions have attested, if that is asked for. Where nobody can be
// asked, the report says so: Kafka may be what was lost.
func (r *restoring) compare(ctx context.Context) error {
	cfg := r.job.Config
	switch {
	case !r.job.Compare:
		return nil
	case len(cfg.Peers()) == 0:
		r.unattested = "no other region is configured"
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, planPatience)
	defer cancel()
	a, err := checks.ReadAttested(asking, cfg, r.job.KafkaOpts)
	if err != nil {
		r.unattested = err.Error()
		r.job.Log.Warn("what was restored could not be compared with what other regions have attested", "error", err)
		return ctx.Err()
	}
	var shards []int32
	for _, shard := range r.plan().Shards {
		shards = append(shards, shard.Shard)
	}
	if r.attested, err = a.OfShards(shards, r.look); err != nil {
		return err
	}
	err = r.attested.Err()
	if err != nil && r.job.AcceptDiverged {
		r.job.Log.Warn("the restored state is not the one that was attested, and is accepted", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; restore another backup or an earlier point (with --anew), or this one all the same: --accept-diverged", err)
	}
	return nil
}

// look opens a shard that was restored, to be looked at.
func (r *restoring) look(partition int32) (*projections.Shard, error) {
	sc, err := r.target.config(partition)
	if err != nil {
		return nil, err
	}
	if r.outside != nil {
		sc.Outside = r.outside
	}
	return openState(sc)
}
