package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// models tells how the read models are in the node's shards, by name.
func (r *Region) models() []api.ModelDetails {
	byName := map[string]*api.ModelDetails{}
	open, release := r.shards.use(r.allShards())
	defer release()
	for _, p := range slices.Sorted(maps.Keys(open)) {
		for _, st := range open[p].Models() {
			d := byName[st.Name]
			if d == nil {
				d = &api.ModelDetails{ModelSummary: api.ModelSummary{
					Name: st.Name, Version: st.Version, OfEvents: st.OfEvents, Streams: st.Streams, States: map[derived.State]int{},
				}}
				byName[st.Name] = d
			}
			addModelShard(d, api.ModelShard{Partition: p, Status: st})
		}
	}
	all := []api.ModelDetails{}
	for _, d := range byName {
		all = append(all, *d)
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
	if len(s.Since) > 0 && (d.Since == nil || d.Since.Before(*s.Begun)) {
		d.Since = s.Begun
	}
}

// allHere takes all shards of the region; the caller calls release. Read models are not
// gathered from several nodes yet, and half an answer is none.
func (r *Region) allHere(ctx context.Context) (shards []*projections.Shard, release func(), err error) {
	err = whileMoving(ctx, func() error {
		_, others, err := r.shares(r.allShards())
		if err == nil && len(others) > 0 {
			err = events.Errorf(events.KindRefused, "read models are answered by a node that has all shards of %s; shard %d is on node %s at %s",
				r.cfg.Region, others[0].shards[0], others[0].node, others[0].address)
		}
		if err != nil {
			return err
		}
		open, done, err := r.useOwn(r.allShards())
		release = done
		for _, s := range open {
			shards = append(shards, s.Shard)
		}
		return err
	})
	return shards, release, err
}

func (r *Region) model(name string) (*api.ModelDetails, error) {
	all := r.models()
	var names []string
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
		names = append(names, all[i].Name)
	}
	return nil, events.Errorf(events.KindNotFound, "model %q is not enabled in %s; there is %v", name, r.cfg.Region, names)
}

// ListModels implements api.Node.
func (r *Region) ListModels(ctx context.Context) (*api.ModelList, error) {
	_, release, err := r.allHere(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	list := &api.ModelList{Models: []api.ModelSummary{}}
	for _, d := range r.models() {
		list.Models = append(list.Models, d.ModelSummary)
	}
	return list, nil
}

// ShowModel implements api.Node.
func (r *Region) ShowModel(ctx context.Context, p api.ShowModelParams) (*api.ModelDetails, error) {
	_, release, err := r.allHere(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return r.model(p.Name)
}

// RebuildModel implements api.Node: the entries are made anew in the background, in
// every shard of the node.
func (r *Region) RebuildModel(ctx context.Context, p api.RebuildModelParams) (*api.ModelDetails, error) {
	shards, release, err := r.allHere(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := r.model(p.Name); err != nil {
		return nil, err
	}
	for i, shard := range shards {
		if err := shard.RebuildModel(p.Name, p.FromNow); err != nil {
			return nil, fmt.Errorf("shard %d: %w", i, err)
		}
	}
	r.log.Info("read model is rebuilt", "model", p.Name, "from_now", p.FromNow)
	return r.model(p.Name)
}

// QueryModel implements api.Node.
func (r *Region) QueryModel(ctx context.Context, p api.QueryModelParams) (*api.ModelRows, error) {
	shards, release, err := r.allHere(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	d, err := r.model(p.Name)
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(p.Limit, api.DefaultScanEntries)
	if limit < 1 || limit > api.MaxScanEntries {
		return nil, events.Errorf(events.KindInvalid, "query: limit %d: want 1 to %d", limit, api.MaxScanEntries)
	}
	page := &api.ModelRows{Rows: []api.ModelRow{}, Stale: []string{}}
	for _, s := range d.Shards {
		if s.Stale != "" {
			page.Stale = append(page.Stale, fmt.Sprintf("shard %d: %s", s.Partition, s.Stale))
		}
	}
	size := 0
	var last []byte
	for row, err := range projections.QueryModel(shards, p.Name, string(p.Prefix), p.After) {
		if err != nil {
			return nil, fmt.Errorf("model %s of %s: %w", p.Name, r.cfg.Region, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(page.Rows) == limit || size > api.MaxScanBytes {
			page.Next = last
			break
		}
		page.Rows = append(page.Rows, toModelRow(row))
		size += len(row.Key) + len(row.Value) + len(row.Of)
		last = row.Next
	}
	return page, nil
}

func toModelRow(row derived.Row) api.ModelRow {
	r := api.ModelRow{Key: []byte(row.Key), Value: row.Value, Stream: row.Stream}
	if row.Stream == "" {
		r.Log = row.Log.String()
	} else {
		r.Of = []byte(row.Of)
	}
	return r
}

// modelProblems lists the models that have stopped.
func (r *Region) modelProblems() (problems []string) {
	for _, d := range r.models() {
		for _, s := range d.Shards {
			if s.State == derived.Stopped {
				problems = append(problems, fmt.Sprintf("model %s of shard %d has stopped, what it has is stale: %s; when that is mended: evenkeel models rebuild %s",
					d.Name, s.Partition, s.Stopped, d.Name))
			}
		}
	}
	return problems
}

// modelGauges shows what the read models are doing whenever it is asked.
type modelGauges struct {
	region                         *Region
	shards, progress, stale, since *prometheus.Desc
	failures                       *prometheus.Desc
}

func newModelGauges(r *Region) *modelGauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("evenkeel_model_"+name, help, append([]string{"model"}, labels...), nil)
	}
	return &modelGauges{
		region:   r,
		shards:   desc("shards", "Shards in which the read model is in a state.", "state"),
		progress: desc("build_progress_ratio", "How much of what is being built is done, about. Absent if nothing is."),
		stale:    desc("stale_shards", "Shards whose entries are not kept up to date."),
		since:    desc("since_timestamp_seconds", "When a model of events began to gather them. Absent if it did with the first."),
		failures: desc("failures_total", "How often the read model failed and was stopped, since the shards were opened."),
	}
}

// Describe implements prometheus.Collector.
func (g *modelGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.shards, g.progress, g.stale, g.since, g.failures} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *modelGauges) Collect(ch chan<- prometheus.Metric) {
	for _, d := range g.region.models() {
		show := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{d.Name}, labels...)...)
		}
		for _, state := range []derived.State{derived.Running, derived.Building, derived.Stopped} {
			show(g.shards, prometheus.GaugeValue, float64(d.States[state]), string(state))
		}
		if d.Total > 0 {
			show(g.progress, prometheus.GaugeValue, float64(d.Done)/float64(d.Total))
		}
		show(g.stale, prometheus.GaugeValue, float64(d.Stale))
		if d.Since != nil {
			show(g.since, prometheus.GaugeValue, float64(d.Since.UnixMilli())/float64(time.Second/time.Millisecond))
		}
		show(g.failures, prometheus.CounterValue, float64(d.Failures))
	}
}
