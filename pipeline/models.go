package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// models asks the owners of all shards how their read models are.
func (r *Region) models(ctx context.Context) ([]api.ModelDetails, error) {
	var answers []*api.ModelShards
	err := peers.WhileMoving(ctx, func() (err error) {
		answers, err = fromOwners(ctx, r, r.cfg.Shards(),
			func(own []int32) (*api.ModelShards, error) {
				return r.ModelShards(ctx, api.ModelShardsParams{Shards: own})
			},
			func(ctx context.Context, c *api.Client, theirs []int32) (*api.ModelShards, error) {
				return c.ModelShards(ctx, api.ModelShardsParams{Shards: theirs})
			})
		return err
	})
	if err != nil {
		return nil, err
	}
	var shards []api.ShardModels
	for _, a := range answers {
		shards = append(shards, a.Shards...)
	}
	return sumModels(shards), nil
}

// sumModels sums up how the models of some shards are, by name. Nodes may be
// configured to have different ones.
func sumModels(shards []api.ShardModels) []api.ModelDetails {
	slices.SortFunc(shards, func(a, b api.ShardModels) int { return cmp.Compare(a.Partition, b.Partition) })
	all := []api.ModelDetails{}
	for _, shard := range shards {
		for _, st := range shard.Models {
			if !slices.ContainsFunc(all, func(d api.ModelDetails) bool { return d.Name == st.Name }) {
				all = append(all, api.ModelDetails{ModelSummary: api.ModelSummary{
					Name: st.Name, Version: st.Version, OfEvents: st.OfEvents, Streams: st.Streams, States: map[derived.State]int{},
				}})
			}
		}
	}
	for i := range all {
		for _, shard := range shards {
			st := derived.Status{Name: all[i].Name, State: api.ModelAbsent}
			if n := slices.IndexFunc(shard.Models, func(st derived.Status) bool { return st.Name == all[i].Name }); n >= 0 {
				st = shard.Models[n]
			}
			addModelShard(&all[i], api.ModelShard{Partition: shard.Partition, Status: st})
		}
	}
	slices.SortFunc(all, func(a, b api.ModelDetails) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func addModelShard(d *api.ModelDetails, s api.ModelShard) {
	d.Shards = append(d.Shards, s)
	d.States[s.State]++
	d.Done, d.Total, d.Failures = d.Done+s.Done, d.Total+s.Total, d.Failures+s.Failures
	if s.Stale != "" {
		d.Stale++
	}
	if !s.Served {
		d.Missing++
	}
	if since := cmp.Or(s.Reaches, s.Begun); len(s.Since) > 0 && (d.Since == nil || d.Since.Before(*since)) {
		d.Since = since
	}
}

func (r *Region) model(ctx context.Context, name string) (*api.ModelDetails, error) {
	all, err := r.models(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
		names = append(names, all[i].Name)
	}
	return nil, events.Errorf(events.KindNotFound, "model %q is not enabled in %s; there is %v", name, r.cfg.Region, names)
}

// everywhere is a model that every shard has, or an error that says which does not.
func (r *Region) everywhere(ctx context.Context, name string) (*api.ModelDetails, error) {
	d, err := r.model(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, s := range d.Shards {
		if s.State == api.ModelAbsent {
			return nil, events.Errorf(events.KindRefused, "model %s is not enabled on the node that owns shard %d of %s; "+
				"give all nodes of the region the same models", name, s.Partition, r.cfg.Region)
		}
	}
	return d, nil
}

// ListModels implements api.Node.
func (r *Region) ListModels(ctx context.Context) (*api.ModelList, error) {
	all, err := r.models(ctx)
	if err != nil {
		return nil, err
	}
	list := &api.ModelList{Models: []api.ModelSummary{}}
	for _, d := range all {
		list.Models = append(list.Models, d.ModelSummary)
	}
	return list, nil
}

// ShowModel implements api.Node.
func (r *Region) ShowModel(ctx context.Context, p api.ShowModelParams) (*api.ModelDetails, error) {
	return r.model(ctx, p.Name)
}

// RebuildModel implements api.Node: the entries are made anew in the background, in
// every shard of the region. If it fails some shards may have begun; to ask again does no
// harm.
func (r *Region) RebuildModel(ctx context.Context, p api.RebuildModelParams) (*api.ModelDetails, error) {
	if _, err := r.everywhere(ctx, p.Name); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	left := r.cfg.Shards() // those that were not told yet: a shard that has begun is not to begin again
	told := func(shards []int32, answer *api.ModelShards, err error) (*api.ModelShards, error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			left = slices.DeleteFunc(left, func(p int32) bool { return slices.Contains(shards, p) })
		}
		return answer, err
	}
	err := peers.WhileMoving(ctx, func() error {
		_, err := fromOwners(ctx, r, slices.Clone(left),
			func(own []int32) (*api.ModelShards, error) {
				answer, err := r.RebuildShards(ctx, api.RebuildShardsParams{RebuildModelParams: p, Shards: own})
				return told(own, answer, err)
			},
			func(ctx context.Context, c *api.Client, theirs []int32) (*api.ModelShards, error) {
				answer, err := c.RebuildShards(ctx, api.RebuildShardsParams{RebuildModelParams: p, Shards: theirs})
				return told(theirs, answer, err)
			})
		return err
	})
	if err != nil {
		return nil, err
	}
	r.log.Info("read model is rebuilt", "model", p.Name, "from_now", p.FromNow)
	return r.model(ctx, p.Name)
}

// QueryModel implements api.Node.
func (r *Region) QueryModel(ctx context.Context, p api.QueryModelParams) (*api.ModelRows, error) {
	limit, err := api.Limit("query", p.Limit, api.DefaultScanEntries, api.MaxScanEntries)
	if err != nil {
		return nil, err
	}
	ask := api.ModelPageParams{Name: p.Name, Prefix: p.Prefix, After: p.After, Limit: limit}
	var pages []*api.ModelPage
	err = peers.WhileMoving(ctx, func() (err error) {
		pages, err = fromOwners(ctx, r, r.cfg.Shards(),
			func(own []int32) (*api.ModelPage, error) {
				mine := ask
				mine.Shards = own
				return r.ModelPage(ctx, mine)
			},
			func(ctx context.Context, c *api.Client, shards []int32) (*api.ModelPage, error) {
				theirs := ask
				theirs.Shards = shards
				return c.ModelPage(ctx, theirs)
			})
		return err
	})
	if err != nil {
		return nil, err
	}
	return joinModelPages(pages, limit), nil
}

// joinModelPages puts pages of several nodes together, in order. Beyond the end of the
// shortest page that has more behind it nothing is known of that node's entries: what the
// others have there is left for the next page.
func joinModelPages(pages []*api.ModelPage, limit int) *api.ModelRows {
	joined := &api.ModelRows{Rows: []api.ModelRow{}, Stale: []string{}}
	var rows []api.PagedRow
	var stale []api.StaleShard
	var end []byte // nil: all that there is is here
	for _, page := range pages {
		rows, stale = append(rows, page.Rows...), append(stale, page.Stale...)
		if n := len(page.Rows); page.More && n > 0 && (end == nil || derived.CompareNext(page.Rows[n-1].Next, end) < 0) {
			end = page.Rows[n-1].Next
		}
	}
	slices.SortFunc(rows, func(a, b api.PagedRow) int { return derived.CompareNext(a.Next, b.Next) })
	size := 0
	for i, row := range rows {
		if i == limit || size > api.MaxScanBytes || end != nil && derived.CompareNext(row.Next, end) > 0 {
			joined.Next = rows[i-1].Next
			break
		}
		joined.Rows = append(joined.Rows, row.ModelRow)
		size += sizeOf(row.ModelRow)
	}
	if joined.Next == nil && end != nil {
		joined.Next = end
	}
	slices.SortFunc(stale, func(a, b api.StaleShard) int { return cmp.Compare(a.Partition, b.Partition) })
	for _, s := range stale {
		joined.Stale = append(joined.Stale, fmt.Sprintf("shard %d: %s", s.Partition, s.Reason))
	}
	return joined
}

func sizeOf(row api.ModelRow) int { return len(row.Key) + len(row.Value) + len(row.Of) }

func toModelRow(row derived.Row) api.PagedRow {
	r := api.PagedRow{ModelRow: api.ModelRow{Key: []byte(row.Key), Value: row.Value, Stream: row.Stream}, Next: bytes.Clone(row.Next)}
	if row.Stream == "" {
		r.Log = row.Log.String()
	} else {
		r.Of = []byte(row.Of)
	}
	return r
}
