package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// ownModels is how the read models of the shards are that are open on this node.
func (r *Region) ownModels() []api.ModelDetails {
	open, release := r.shards.use(r.cfg.Shards())
	defer release()
	var shards []api.ShardModels
	for _, p := range slices.Sorted(maps.Keys(open)) {
		shards = append(shards, api.ShardModels{Partition: p, Models: open[p].Models()})
	}
	return sumModels(shards)
}

// modelProblems lists the models of this node that have stopped.
func (r *Region) modelProblems() (problems []string) {
	for _, d := range r.ownModels() {
		for _, s := range d.Shards {
			if s.State == derived.Stopped {
				problems = append(problems, fmt.Sprintf("model %s of shard %d has stopped, what it has is stale: %s; when that is mended: evenkeel models rebuild %s",
					d.Name, s.Partition, s.Stopped, d.Name))
			}
		}
	}
	return problems
}

// ModelShards implements api.PeerNode.
func (r *Region) ModelShards(_ context.Context, p api.ModelShardsParams) (*api.ModelShards, error) {
	shards, release, err := r.useOwn(p.Shards)
	if err != nil {
		return nil, err
	}
	defer release()
	answer := &api.ModelShards{Shards: []api.ShardModels{}}
	for i, shard := range shards {
		answer.Shards = append(answer.Shards, api.ShardModels{Partition: p.Shards[i], Models: shard.Models()})
	}
	return answer, nil
}

// RebuildShards implements api.PeerNode.
func (r *Region) RebuildShards(ctx context.Context, p api.RebuildShardsParams) (*api.ModelShards, error) {
	shards, release, err := r.useOwn(p.Shards)
	if err != nil {
		return nil, err
	}
	defer release()
	for i, shard := range shards {
		if err := shard.RebuildModel(ctx, p.Name, derived.Rebuild{FromNow: p.FromNow, AcceptLess: p.AcceptLess}); err != nil {
			return nil, fmt.Errorf("shard %d: %w", p.Shards[i], err)
		}
	}
	return r.ModelShards(ctx, api.ModelShardsParams{Shards: p.Shards})
}

// ModelPage implements api.PeerNode.
func (r *Region) ModelPage(ctx context.Context, p api.ModelPageParams) (*api.ModelPage, error) {
	if p.Limit < 1 {
		return nil, errNoLimit
	}
	open, release, err := r.useOwn(p.Shards)
	if err != nil {
		return nil, err
	}
	defer release()
	page := &api.ModelPage{Rows: []api.PagedRow{}, Stale: []api.StaleShard{}}
	shards := make([]*projections.Shard, len(open))
	for i, shard := range open {
		shards[i] = shard.Shard
		for _, st := range shard.Models() {
			if st.Name == p.Name && st.Stale != "" {
				page.Stale = append(page.Stale, api.StaleShard{Partition: p.Shards[i], Reason: st.Stale})
			}
		}
	}
	size := 0
	for row, err := range projections.QueryModel(shards, p.Name, string(p.Prefix), p.After) {
		if err != nil {
			return nil, fmt.Errorf("model %s of %s: %w", p.Name, r.cfg.Region, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(page.Rows) == p.Limit || size > api.MaxScanBytes {
			page.More = true
			break
		}
		page.Rows = append(page.Rows, toModelRow(row))
		size += sizeOf(page.Rows[len(page.Rows)-1].ModelRow)
	}
	return page, nil
}
