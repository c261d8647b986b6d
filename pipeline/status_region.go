package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// nodeShown is for how long a node is shown that does not answer and owns nothing.
const nodeShown = time.Hour

// Status implements api.Node: of the whole region, or of this node alone if another
// node asks.
func (r *Region) Status(ctx context.Context) (*api.Status, error) {
	s, err := r.localStatus()
	if err != nil {
		return nil, err
	}
	if _, forwarded := api.ForwardedFrom(ctx); forwarded {
		return s, nil
	}
	nodes, statuses := r.askNodes(ctx)
	s.Nodes = append(nodes, nodeStatus(r.name, r.parts.Address, s))
	slices.SortFunc(s.Nodes, func(a, b api.NodeStatus) int { return cmp.Compare(a.Node, b.Node) })
	for _, other := range statuses {
		addNode(s, other)
	}
	r.checkArchive(s)
	for _, n := range s.Nodes {
		if n.Error != "" {
			s.Problems = append(s.Problems, fmt.Sprintf("node %s: %s", n.Node, n.Error))
		}
	}
	r.addMissing(s)
	slices.SortFunc(s.Logs, func(a, b events.LogState) int { return a.Log.Compare(b.Log) })
	sumUp(s)
	r.addLinks(s)
	return s, nil
}

func nodeStatus(node, address string, s *api.Status) api.NodeStatus {
	n := api.NodeStatus{Node: node, Address: address, Ready: s.Ready, Software: s.Software, Started: &s.Started, Shards: []int32{}}
	for _, row := range s.Shards {
		if row.State == shardOpen {
			n.Shards = append(n.Shards, row.Partition)
		}
	}
	return n
}

// askNodes asks the region's other nodes for what they are and do.
func (r *Region) askNodes(ctx context.Context) (nodes []api.NodeStatus, answers []*api.Status) {
	owners := map[string]bool{}
	for _, p := range r.cfg.Shards() {
		c, _ := r.claims.Of(claims.ShardKey(p))
		owners[c.Node] = true
	}
	var mu sync.Mutex
	var asked sync.WaitGroup
	places := make(chan struct{}, parallelPeers)
	for name, known := range r.claims.Nodes() {
		if name == r.name || known.Stopped && !owners[name] {
			continue
		}
		asked.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			s, err := r.askNode(ctx, name, known.Address)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				nodes, answers = append(nodes, nodeStatus(name, known.Address, s)), append(answers, s)
			case owners[name] || time.Since(known.Seen) < nodeShown:
				nodes = append(nodes, api.NodeStatus{Node: name, Address: known.Address, Error: err.Error(), Shards: []int32{}})
			}
		})
	}
	asked.Wait()
	return nodes, answers
}

func (r *Region) askNode(ctx context.Context, name, address string) (*api.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, peers.Patience)
	defer cancel()
	c, err := r.peers.At(name, address)
	if err != nil {
		return nil, err
	}
	s, err := c.Status(ctx)
	if err == nil && s.Node != name {
		err = events.Errorf(events.KindNotReady, "at %s is node %s of %s now", address, s.Node, s.Region)
	}
	return s, err
}

// addNode adds what another node says of its shards and links. While a shard
// moves two nodes may have it; the one with the later claim counts.
func addNode(s, other *api.Status) {
	for _, row := range other.Shards {
		i := slices.IndexFunc(s.Shards, func(have api.ShardStatus) bool { return have.Partition == row.Partition })
		switch {
		case i < 0:
			s.Shards = append(s.Shards, row)
		case row.State == shardOpen && (s.Shards[i].State != shardOpen || s.Shards[i].Epoch < row.Epoch):
			s.Logs = slices.DeleteFunc(s.Logs, func(l events.LogState) bool { return l.Log.Partition == row.Partition })
			s.Shards[i] = row
		default:
			continue // and its logs are left out
		}
		for _, l := range other.Logs {
			if l.Log.Partition == row.Partition {
				s.Logs = append(s.Logs, l)
			}
		}
	}
	s.Links = append(s.Links, other.Links...)
	addArchive(s, other.Archive)
	for _, p := range other.Problems {
		s.Problems = append(s.Problems, fmt.Sprintf("node %s: %s", other.Node, p))
	}
	s.Examples = append(s.Examples, other.Examples...)
	s.Examples = s.Examples[:min(len(s.Examples), shownParked)]
}

// addMissing adds the shards that no node has told of.
func (r *Region) addMissing(s *api.Status) {
	for _, p := range r.cfg.Shards() {
		if slices.ContainsFunc(s.Shards, func(have api.ShardStatus) bool { return have.Partition == p }) {
			continue
		}
		row := api.ShardStatus{Partition: p, State: "unknown"}
		if c, ok := r.claims.Of(claims.ShardKey(p)); ok {
			row.Node, row.Epoch = c.Node, c.Epoch
			row.Error = fmt.Sprintf("its owner, node %s, does not have it open, or does not answer", c.Node)
		} else {
			row.Error = "it has no owner at present"
		}
		s.Shards = append(s.Shards, row)
	}
	slices.SortFunc(s.Shards, func(a, b api.ShardStatus) int { return cmp.Compare(a.Partition, b.Partition) })
}

// sumUp makes the sums, unless anything that belongs to them is not known.
func sumUp(s *api.Status) {
	s.Events, s.Keys, s.Parked = new(int64), new(int64), new(int64)
	for _, row := range s.Shards {
		if row.Events == nil {
			s.Events, s.Keys, s.Parked, s.Ready = nil, nil, nil, false
			if row.Error != "" {
				s.Problems = append(s.Problems, fmt.Sprintf("shard %d: %s", row.Partition, row.Error))
			}
			continue
		}
		s.Events, s.Keys, s.Parked = sum(s.Events, row.Events), sum(s.Keys, row.Keys), sum(s.Parked, row.Parked)
	}
	if s.Events != nil {
		s.Digest = new(digest.Total(s.Logs))
	}
}

func sum(a, b *int64) *int64 { return api.Combine(a, b, func(a, b int64) int64 { return a + b }) }

// addLinks adds the links of which no node has told, and puts all in order.
func (r *Region) addLinks(s *api.Status) {
	all, missing := r.links.Complete(s.Links)
	s.Links = all
	for _, l := range missing {
		s.Problems = append(s.Problems, linkProblems(l)...)
	}
}
