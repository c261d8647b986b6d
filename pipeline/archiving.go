package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/archive"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// newArchiver makes the node's part of the continuous backup; nil: there is none.
func (r *Region) newArchiver(own []kgo.Opt) (*archive.Archiver, error) {
	limits := r.cfg.SegmentLimits()
	if r.backups == nil || limits == nil {
		return nil, nil
	}
	cfg := archive.Config{
		Region: r.cfg.Region, Partitions: r.cfg.Partitions, Software: api.Software, Topics: r.cfg.Routes(), Sealer: r.backups.sealer, Limits: limits, NewChain: digest.NewChain,
		BatchBytesMost: r.cfg.Limits.MaxBatchBytes,
	}
	return archive.New(own, cfg, r.parts.Bucket, archiveNode{r}, r.worker.mirrors, archive.NewMetrics(r.parts.Registry), r.log)
}

// archiveNode is a node as its archiver sees it.
type archiveNode struct{ region *Region }

var _ archive.Node = archiveNode{}

// Archives implements archive.Node: the owner of a shard archives it; and so does a node
// that is to own it, until it does. To bring the shard to where it begins may take long,
// or fail again and again, and the owner before may be dead. If it is not, two archivers
// take turns. A shard that is open here, or about to be closed, and claimed by another
// node is archived by that one.
func (n archiveNode) Archives(shard int32) bool {
	r := n.region
	if c, ok := r.claims.Of(claims.ShardKey(shard)); ok && c.Node == r.name {
		return true
	}
	if !r.member.Has(shard) {
		return false
	}
	state := r.keeper.stateOf(shard).state
	return state == shardOpening || state == shardClosed
}

// Sure implements archive.Node.
func (n archiveNode) Sure() error { return n.region.claims.Lapsed() }

// Epoch implements archive.Node.
func (n archiveNode) Epoch(shard int32) events.Epoch {
	if c, ok := n.region.claims.Of(claims.ShardKey(shard)); ok && c.Node == n.region.name {
		return c.Epoch
	}
	return 0
}

// Folded implements archive.Node.
func (n archiveNode) Folded(ctx context.Context, shard int32, cut events.Vector) {
	open, release := n.region.shards.use([]int32{shard})
	defer release()
	if s := open[shard]; s != nil {
		_ = s.Wait(ctx, cut) // what it has not folded by then has no mark
	}
}

// Mark implements archive.Node.
func (n archiveNode) Mark(l events.Log, offset int64) (events.Mark, bool) {
	open, release := n.region.shards.use([]int32{l.Partition})
	defer release()
	s := open[l.Partition]
	if s == nil {
		return events.Mark{}, false
	}
	m, err := s.At(l, offset)
	return m, err == nil
}

// HasRead implements archive.Node.
func (n archiveNode) HasRead(ctx context.Context, l events.Log, from, to int64) (bool, error) {
	if n.region.worker.placeOf(l, from) >= to {
		return true, nil
	}
	read, err := n.region.keeper.begin.emptied(ctx, l.Partition, events.Vector{l: from}, events.Vector{l: to})
	return read.place(l, from) >= to, err
}

// Touched implements archive.Node.
func (n archiveNode) Touched(shard int32) archive.Touched {
	if n.region.cfg.Backup.Schedule.Delta == 0 {
		return nil
	}
	return n.region.touched.of(shard)
}

// archivePoints is what the bucket lacks of the shards that this node archives.
func (r *Region) archivePoints() []api.ArchivePoint {
	points := []api.ArchivePoint{}
	if r.archiver == nil {
		return points
	}
	for _, p := range r.archiver.Points() {
		point := api.ArchivePoint{Stream: p.Stream, Limit: p.Limit.Seconds(), Records: p.Records, Newest: p.Newest, Error: p.Error}
		if p.Age != nil {
			point.Age = new(p.Age.Seconds())
		}
		points = append(points, point)
	}
	return points
}

// addArchive adds what another node says of the shards that it archives.
func addArchive(s *api.Status, others []api.ArchivePoint) {
	for _, o := range others {
		i := slices.IndexFunc(s.Archive, func(p api.ArchivePoint) bool { return p.Stream == o.Stream })
		if i < 0 {
			s.Archive = append(s.Archive, o)
			continue
		}
		p := &s.Archive[i]
		p.Records, p.Age = sum(p.Records, o.Records), api.Combine(p.Age, o.Age, func(a, b float64) float64 { return max(a, b) })
		p.Error = cmp.Or(p.Error, o.Error)
		if o.Newest.After(p.Newest) {
			p.Newest = o.Newest
		}
	}
}

// checkArchive takes back what is said of the archive while a shard has no owner that
// tells of it.
func (r *Region) checkArchive(s *api.Status) {
	for _, shard := range r.cfg.Shards() {
		if slices.ContainsFunc(s.Shards, func(row api.ShardStatus) bool { return row.Partition == shard && row.State == shardOpen }) {
			continue
		}
		for i := range s.Archive {
			p := &s.Archive[i]
			p.Records, p.Age = nil, nil
			p.Error = cmp.Or(p.Error, fmt.Sprintf("shard %d: no owner tells of it", shard))
		}
	}
}
