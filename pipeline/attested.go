package pipeline

import (
	"context"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// planPatience is how long plans and restores, which can do without, wait for what is attested.
const planPatience = 5 * time.Second

// readAttested reads what has been attested.
func (b Backups) readAttested(ctx context.Context) (*checks.Attested, error) {
	return checks.ReadAttested(ctx, b.Config, b.kafkaOpts)
}

// PlanRestore is PlanRestore, and says besides whether the backup that it begins with has the states that other
// regions have attested.
func (b Backups) PlanRestore(ctx context.Context, p api.PlanRestoreParams) (*timeline.Plan, error) {
	plan, err := PlanRestore(ctx, RestoreJob{Config: b.Config, Bucket: b.Bucket, Opener: b.Opener, Log: b.Log, Request: p.Request})
	if err != nil || len(plan.Chain) == 0 {
		return plan, err
	}
	asking, cancel := context.WithTimeout(ctx, planPatience) // Kafka may be what was lost
	defer cancel()
	a, err := b.readAttested(asking)
	if err != nil {
		plan.Attested = "is unknown: " + err.Error()
		return plan, ctx.Err()
	}
	plan.Attested = a.OfStates(plan.Chain.Newest().States()).String()
	return plan, nil
}

// compareDir compares restored shards, which remember more of what they were.
func compareDir(a *checks.Attested, cfg *config.Config, fs vfs.FS, log *slog.Logger, dir string, partitions []int32) (*api.Agreement, error) {
	return a.OfShards(partitions, func(p int32) (*projections.Shard, error) {
		sc, err := shardConfig(cfg, fs, log, dir, p)
		if err != nil {
			return nil, err
		}
		return openState(sc)
	})
}
