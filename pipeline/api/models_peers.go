package api

import (
	"context"

	"github.com/evenkeel/evenkeel/projections/derived"
)

// ModelShardsParams ask how the read models are in some of the node's shards.
type ModelShardsParams struct {
	Shards []int32 `json:"shards"`
}

// ModelShards is how read models are, shard by shard.
type ModelShards struct {
	Shards []ShardModels `json:"shards"`
}

// ShardModels is how the read models of one shard are.
type ShardModels struct {
	Partition int32            `json:"partition"`
	Models    []derived.Status `json:"models"`
}

// RebuildShardsParams have the entries of a model made anew in some of the node's
// shards.
type RebuildShardsParams struct {
	RebuildModelParams
	Shards []int32 `json:"shards"`
}

// ModelPageParams ask for entries of a model in some of the node's shards, in order.
type ModelPageParams struct {
	Name   string  `json:"name"`
	Shards []int32 `json:"shards"`
	Prefix Bytes   `json:"prefix,omitempty"`
	After  Bytes   `json:"after,omitempty"` // the Next of a row, of whatever shard
	Limit  int     `json:"limit"`
}

// ModelPage is one page of entries, in order.
type ModelPage struct {
	Rows  []PagedRow   `json:"rows"`
	More  bool         `json:"more"`  // ask on with After = the last row's Next
	Stale []StaleShard `json:"stale"` // shards whose entries are not up to date
}

// PagedRow is an entry, and how to go on behind it.
type PagedRow struct {
	ModelRow
	Next Bytes `json:"next"`
}

// StaleShard says why what a shard has is not up to date.
type StaleShard struct {
	Partition int32  `json:"partition"`
	Reason    string `json:"reason"`
}

// ModelShards asks another node how its read models are.
func (c *Client) ModelShards(ctx context.Context, p ModelShardsParams) (*ModelShards, error) {
	return call[ModelShards](ctx, c, "models.shards", p)
}

// RebuildShards has another node make the entries of a model anew.
func (c *Client) RebuildShards(ctx context.Context, p RebuildShardsParams) (*ModelShards, error) {
	return call[ModelShards](ctx, c, "models.rebuild_shards", p)
}

// ModelPage asks another node for entries of a model.
func (c *Client) ModelPage(ctx context.Context, p ModelPageParams) (*ModelPage, error) {
	return call[ModelPage](ctx, c, "models.page", p)
}
