package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/links"
	"github.com/evenkeel/evenkeel/pipeline/listed"
	"github.com/evenkeel/evenkeel/pipeline/mirrors"
)

// lagTimeout bounds how long the cluster is waited for; what it did not say by
// then is unknown.
const lagTimeout = 3 * time.Second

// Lag implements api.Node: it asks the region's cluster where logs and mirrors
// end, the nodes that own the shards how far these are, and those that run links
// how far the links are behind.
func (r *Region) Lag(ctx context.Context) (*api.Lag, error) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	local := r.cfg.Routes() // this region's logs and mirrors
	// Whoever follows is asked before what it follows, so that one who seems to
	// be ahead really is.
	status, err := r.Status(ctx)
	if err != nil {
		return nil, err
	}
	details := r.links.All(ctx)
	ends := r.endsOf(ctx, r.cfg.Region, local)
	lag := &api.Lag{Region: r.cfg.Region, Folds: []api.LagRow{}, Links: []api.LinkLag{}}
	vector := status.Vector()
	for _, shard := range status.Shards {
		for _, rt := range local {
			log := rt.Log(shard.Partition)
			next := mirrors.Offset{N: max(vector[log], shard.Read[log])}
			if shard.Events == nil {
				next.Err = fmt.Errorf("shard %d: %s", shard.Partition, cmp.Or(shard.Error, shard.State))
			}
			lag.Folds = append(lag.Folds, lagRow(log, ends[log], next))
		}
	}
	slices.SortFunc(lag.Folds, func(a, b api.LagRow) int { return a.Log.Compare(b.Log) })
	for _, d := range details {
		lag.Links = append(lag.Links, links.Lags(r.cfg, d)...)
	}
	return lag, nil
}

func lagRow(log events.Log, end, next mirrors.Offset) api.LagRow {
	row := api.LagRow{Log: log}
	if end.Err == nil {
		row.End, row.Open = new(end.N+end.Open), &end.Open
	}
	if next.Err == nil {
		row.Next = &next.N
	}
	switch {
	case end.Err != nil:
		row.Error = end.Err.Error()
	case next.Err != nil:
		row.Error = next.Err.Error()
	case next.N > *row.End:
		row.Error = fmt.Sprintf("stands at offset %d, behind which the log already ends at %d: the log was truncated or re-created", next.N, *row.End)
	default:
		row.Records = new(max(0, end.N-next.N))
	}
	return row
}

// adminOf makes a client of a region's cluster that works as long as the context.
// (Requests alone do not heed theirs while the client connects.)
func (r *Region) adminOf(ctx context.Context, region events.Region, extra ...kgo.Opt) (*kadm.Client, error) {
	opts, err := r.kafkaOpts(region)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(append(opts, kgo.WithContext(ctx)), extra...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", region, err)
	}
	return kadm.NewClient(client), nil
}

// endsOf asks a region's cluster where topics end, for readers who read what is committed.
func (r *Region) endsOf(ctx context.Context, region events.Region, topics map[string]config.Route) map[events.Log]mirrors.Offset {
	admin, err := r.adminOf(ctx, region)
	if err != nil {
		return r.unknown(topics, err)
	}
	defer admin.Close()
	names := slices.Collect(maps.Keys(topics))
	committed, err := admin.ListCommittedOffsets(ctx, names...)
	if err != nil {
		return r.unknown(topics, err)
	}
	written, err := admin.ListEndOffsets(ctx, names...) // after that, or less might be written than is committed
	if err != nil {
		return r.unknown(topics, err)
	}
	ends := map[events.Log]mirrors.Offset{}
	for topic, rt := range topics {
		for p := range r.cfg.Partitions {
			readable, err := listed.Offset(committed, topic, p)
			all, errAll := listed.Offset(written, topic, p)
			ends[rt.Log(p)] = mirrors.Offset{N: readable, Open: all - readable, Err: cmp.Or(err, errAll)}
		}
	}
	if region == r.cfg.Region {
		r.worker.mirrors.Ends(ctx, ends)
	}
	return ends
}

func (r *Region) unknown(topics map[string]config.Route, err error) map[events.Log]mirrors.Offset {
	ends := map[events.Log]mirrors.Offset{}
	for _, rt := range topics {
		for p := range r.cfg.Partitions {
			ends[rt.Log(p)] = mirrors.Offset{Err: err}
		}
	}
	return ends
}
