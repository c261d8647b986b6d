package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// lagTimeout bounds how long a cluster is waited for; what it did not say by
// then is unknown.
const lagTimeout = 3 * time.Second

// Lag implements api.Node: it asks all clusters where their logs end.
func (r *Region) Lag(ctx context.Context) (*api.Lag, error) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	local := routes(r.cfg) // this region's logs and mirrors
	// Whoever follows is asked before what it follows, so that one who seems to
	// be ahead really is: state, then mirrors, then their logs.
	vector := events.VectorOf(r.shards.states())
	ends := r.ownEnds(ctx, local)
	sources := r.sourceEnds(ctx)
	lag := &api.Lag{Region: r.cfg.Region, Folds: []api.LagRow{}, Links: []api.LagRow{}}
	for _, rt := range local {
		for p := range r.cfg.Partitions {
			log := rt.log(p)
			lag.Folds = append(lag.Folds, lagRow(log, ends[log], offset{n: vector[log]}))
		}
	}
	for log, end := range sources {
		lag.Links = append(lag.Links, lagRow(log, end, ends[log]))
	}
	for _, rows := range [][]api.LagRow{lag.Folds, lag.Links} {
		slices.SortFunc(rows, func(a, b api.LagRow) int { return a.Log.Compare(b.Log) })
	}
	return lag, nil
}

// ownEnds asks the region's own cluster, and leaves the others their time.
func (r *Region) ownEnds(ctx context.Context, topics map[string]route) map[events.Log]offset {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout/2)
	defer cancel()
	return r.endsOf(ctx, r.cfg.Region, topics)
}

// offset is an offset, or why it is not known.
type offset struct {
	n   int64
	err error
}

func lagRow(log events.Log, end, next offset) api.LagRow {
	row := api.LagRow{Log: log}
	if end.err == nil {
		row.End = &end.n
	}
	if next.err == nil {
		row.Next = &next.n
	}
	switch {
	case end.err != nil:
		row.Error = end.err.Error()
	case next.err != nil:
		row.Error = next.err.Error()
	case next.n > end.n:
		row.Error = fmt.Sprintf("stands at offset %d, behind which the log already ends at %d: the log was truncated or re-created", next.n, end.n)
	default:
		behind := end.n - next.n
		row.Records = &behind
	}
	return row
}

// sourceEnds asks every other region where its own logs end.
func (r *Region) sourceEnds(ctx context.Context) map[events.Log]offset {
	peers := r.cfg.Peers()
	found := make([]map[events.Log]offset, len(peers))
	var g errgroup.Group
	for i, peer := range peers {
		g.Go(func() error {
			topics := map[string]route{}
			for name, s := range r.cfg.Streams {
				topics[s.Topic] = route{r.cfg.Origin(peer), name}
			}
			found[i] = r.endsOf(ctx, peer, topics)
			return nil
		})
	}
	_ = g.Wait() // what failed is in the offsets
	all := map[events.Log]offset{}
	for _, m := range found {
		for log, o := range m {
			all[log] = o
		}
	}
	return all
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

// endsOf asks a region's cluster where topics end.
func (r *Region) endsOf(ctx context.Context, region events.Region, topics map[string]route) map[events.Log]offset {
	admin, err := r.adminOf(ctx, region)
	if err != nil {
		return r.unknown(topics, err)
	}
	defer admin.Close()
	listed, err := admin.ListEndOffsets(ctx, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		return r.unknown(topics, err)
	}
	ends := map[events.Log]offset{}
	for topic, rt := range topics {
		for p := range r.cfg.Partitions {
			o, ok := listed.Lookup(topic, p)
			switch {
			case !ok:
				o.Err = fmt.Errorf("topic %s has no partition %d", topic, p)
			case o.Err != nil:
				o.Err = fmt.Errorf("topic %s, partition %d: %w", topic, p, o.Err)
			}
			ends[rt.log(p)] = offset{o.Offset, o.Err}
		}
	}
	return ends
}

func (r *Region) unknown(topics map[string]route, err error) map[events.Log]offset {
	ends := map[events.Log]offset{}
	for _, rt := range topics {
		for p := range r.cfg.Partitions {
			ends[rt.log(p)] = offset{err: err}
		}
	}
	return ends
}
