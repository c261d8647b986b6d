package api

import (
	"context"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// ModelsNode is what the API serves of a region's read models.
type ModelsNode interface {
	ListModels(ctx context.Context) (*ModelList, error)
	ShowModel(ctx context.Context, p ShowModelParams) (*ModelDetails, error)
	RebuildModel(ctx context.Context, p RebuildModelParams) (*ModelDetails, error)
	QueryModel(ctx context.Context, p QueryModelParams) (*ModelRows, error)
}

// ModelAbsent is the state of a model in a shard whose node is not configured to have it.
const ModelAbsent derived.State = "absent"

// ModelList lists the read models that are enabled, by name.
type ModelList struct {
	Models []ModelSummary `json:"models"`
}

// ModelSummary is how a model is in all shards of the region.
type ModelSummary struct {
	Name     string                `json:"name"`
	Version  int                   `json:"version"`
	OfEvents bool                  `json:"of_events"` // folds events; else: rows of views
	Streams  []events.Stream       `json:"streams"`   // null: all
	States   map[derived.State]int `json:"states"`    // how many shards, by state
	Done     int64                 `json:"done"`      // slices that were gone through in shards where it is being built; events if it is of events
	Total    int64                 `json:"total"`     // slices, or events, there, about
	Stale    int                   `json:"stale"`     // shards whose entries are not kept up to date
	Missing  int                   `json:"missing"`   // shards that have no entries yet
	Failures int64                 `json:"failures"`  // since the shards were opened

	// Since is, of a model of events, from when on all shards have all of them; null if
	// that is from the first.
	Since *time.Time `json:"since"`
}

// ShowModelParams name a model.
type ShowModelParams struct {
	Name string `json:"name"`
}

// ModelDetails is all there is to know about a model.
type ModelDetails struct {
	ModelSummary
	Shards []ModelShard `json:"shards"`
}

// ModelShard is how a model is in one shard.
type ModelShard struct {
	Partition int32 `json:"partition"`
	derived.Status
}

// RebuildModelParams name a model whose entries are to be made anew. For a model of events
// the logs are read again; it is refused if less of them can be read than the model has.
type RebuildModelParams struct {
	Name       string `json:"name"`
	FromNow    bool   `json:"from_now,omitempty"`    // of a model of events: what it has is given up, and no log is read
	AcceptLess bool   `json:"accept_less,omitempty"` // of a model of events: it may come to have less than it has
}

// QueryModelParams ask for entries of a model, in order.
type QueryModelParams struct {
	Name   string `json:"name"`
	Prefix Bytes  `json:"prefix,omitempty"` // of their keys
	After  Bytes  `json:"after,omitempty"`  // the Next of the page before
	Limit  int    `json:"limit,omitempty"`  // 1 to MaxScanEntries; 0: DefaultScanEntries
}

// ModelRows is one page of entries.
type ModelRows struct {
	Rows  []ModelRow `json:"rows"`
	Next  Bytes      `json:"next,omitempty"` // ask on with After = this; null: there are no more
	Stale []string   `json:"stale"`          // why what some shards have is not up to date
}

// ModelRow is an entry, and what it comes from: the key of a stream, or a log.
type ModelRow struct {
	Key    Bytes         `json:"key"`
	Value  Bytes         `json:"value"`
	Stream events.Stream `json:"stream,omitempty"`
	Of     Bytes         `json:"of,omitempty"` // the stream's key
	Log    string        `json:"log,omitempty"`
}

// ListModels asks how the read models of the region are.
func (c *Client) ListModels(ctx context.Context) (*ModelList, error) {
	return call[ModelList](ctx, c, "models.list", nil)
}

// ShowModel asks for everything about a model.
func (c *Client) ShowModel(ctx context.Context, p ShowModelParams) (*ModelDetails, error) {
	return call[ModelDetails](ctx, c, "models.show", p)
}

// RebuildModel has the entries of a model made anew.
func (c *Client) RebuildModel(ctx context.Context, p RebuildModelParams) (*ModelDetails, error) {
	return call[ModelDetails](ctx, c, "models.rebuild", p)
}

// QueryModel reads one page of a model's entries.
func (c *Client) QueryModel(ctx context.Context, p QueryModelParams) (*ModelRows, error) {
	return call[ModelRows](ctx, c, "models.query", p)
}
