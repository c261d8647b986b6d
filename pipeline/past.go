package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// moment is a point in a region's past, of one stream, and what it is made from.
type moment struct {
	stream events.Stream
	target string // for people
	vector events.Vector
	chain  catalog.Chain   // empty: nothing but segments
	spans  []timeline.Span // of the shards that are looked at
	lacks  []string
}

// base is the backup that a moment begins with; nil: none.
func (m *moment) base() *format.Manifest {
	if len(m.chain) == 0 {
		return nil
	}
	return m.chain.Newest()
}

// segmentBytes is the size of the segments that lie behind the backup.
func (m *moment) segmentBytes() (n int64) {
	for _, s := range m.spans {
		n += s.Bytes
	}
	return n
}

// describe says for people what a moment is made from.
func (m *moment) describe() string {
	var segments int64
	for _, s := range m.spans {
		segments += s.Segments()
	}
	switch base := m.base(); {
	case base == nil:
		return fmt.Sprintf("%d segments", segments)
	case segments == 0:
		return fmt.Sprintf("backup %s of %s", base.ID, base.Created.Format(time.RFC3339))
	default:
		return fmt.Sprintf("backup %s of %s and %d segments", base.ID, base.Created.Format(time.RFC3339), segments)
	}
}

// GetAt reads a key as it was, out of the bucket: of each shard the few parts of tables in
// which the key would be, by way of a database in memory that refers to them, and
// of the segments between that backup and the point the blocks of the stream's logs.
func (b Backups) GetAt(ctx context.Context, p api.GetAtParams) (*api.EntryAt, error) {
	if len(p.Key) == 0 || len(p.Key) > events.MaxKeyBytes {
		return nil, events.Errorf(events.KindInvalid, "get: want a key of 1 to %d bytes", events.MaxKeyBytes)
	}
	entity := projections.Entity{Stream: p.Stream, Key: string(p.Key)}
	only := func(key string) bool { return key == string(p.Key) }
	m, point, err := b.inPast(ctx, p.Stream, asked(p.Stream, p.PastTarget), only, func(shards []*projections.Shard) error {
		for _, s := range shards {
			e, err := projections.EntityOf([]*projections.Shard{s}, p.Stream, string(p.Key))
			if err != nil {
				return err
			}
			entity.Slices = append(entity.Slices, e.Slices...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entity.Slices, func(a, b merge.Slice) int { return a.Log.Compare(b.Log) })
	rule, err := projections.LookupRule(b.Config.Streams[p.Stream].Merge)
	if err != nil {
		return nil, err
	}
	e, err := entity.Join(rule)
	if err != nil {
		return nil, err
	}
	if !e.Exists {
		return nil, events.Errorf(events.KindNotFound, "stream %s of %s had no key %q at %s, as %s say; its vector is %s",
			p.Stream, b.Config.Region, p.Key, m.target, m.describe(), m.vector)
	}
	at := &api.EntryAt{Entry: api.EntryOf(e), PastPoint: *point}
	at.Context = m.vector
	return at, nil
}

// maxScanAtBytes bounds the segments that are folded for a scan, since what they
// change is in memory. They are those since the backup before.
const maxScanAtBytes = 1 << 30

// ScanAt lists the keys of a stream as they were, as GetAt reads one.
func (b Backups) ScanAt(ctx context.Context, p api.ScanAtParams) (*api.ScanAtResult, error) {
	limit, err := api.Limit("scan", p.Limit, api.DefaultScanEntries, api.MaxScanEntries)
	if err != nil {
		return nil, err
	}
	result := &api.ScanAtResult{ScanResult: api.ScanResult{Entries: []api.Entry{}}}
	wanted := func(key string) bool {
		return len(key) >= len(p.Prefix) && key[:len(p.Prefix)] == string(p.Prefix) && (len(p.After) == 0 || key > string(p.After))
	}
	find := func(ctx context.Context, b Backups) (*moment, error) {
		m, err := b.moment(ctx, p.Stream, p.PastTarget)
		if err != nil {
			return nil, err
		}
		if n := m.segmentBytes(); n > maxScanAtBytes {
			return nil, events.Errorf(events.KindRefused, "scan: %d MiB of segments lie between %s and %s, which is too much to be folded in memory; restore that point with: evenkeel restore run",
				n>>20, m.describe(), m.target)
		}
		return m, nil
	}
	m, point, err := b.inPast(ctx, p.Stream, find, wanted, func(shards []*projections.Shard) error {
		size := 0
		for e, err := range projections.Scan(shards, p.Stream, string(p.Prefix), string(p.After)) {
			if err != nil {
				return err
			}
			if len(result.Entries) == limit || size > api.MaxScanBytes {
				result.More = true
				return nil
			}
			result.Entries = append(result.Entries, api.EntryOf(e))
			size += len(e.Key) + len(e.Value)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	result.PastPoint, result.Context = *point, m.vector
	return result, nil
}

// finder finds a point in the past of a region.
type finder func(context.Context, Backups) (*moment, error)

// inPast has a point in the past read: shards as they were then, as far as the stream and
// the keys that are wanted are concerned.
func (b Backups) inPast(ctx context.Context, stream events.Stream, find finder, wanted func(key string) bool, read func([]*projections.Shard) error) (*moment, *api.PastPoint, error) {
	if err := b.Config.CheckStream(stream); err != nil {
		return nil, nil, err
	}
	meter := &meter{Bucket: b.Bucket}
	b.Bucket = meter
	m, err := find(ctx, b)
	if err != nil {
		return nil, nil, err
	}
	t, err := b.newTraveller(m, wanted)
	if err != nil {
		return nil, nil, err
	}
	do := func() error { return t.travel(ctx, read) }
	if base := m.base(); base != nil {
		_, err = t.src.Pinned(ctx, base, do)
	} else {
		err = do()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s, out of %s: %w", m.target, m.describe(), err)
	}
	point := &api.PastPoint{
		Target: m.target, Backups: len(m.chain), Segments: t.segments, Records: t.looked, Found: t.found,
		Requests: meter.requests.Load(), Bytes: meter.bytes.Load(), Lacks: m.lacks,
	}
	if base := m.base(); base != nil {
		point.Backup, point.Created = base.ID, base.Created
	}
	return m, point, nil
}

// asked finds the point that somebody asks for.
func asked(stream events.Stream, at api.PastTarget) finder {
	return func(ctx context.Context, b Backups) (*moment, error) { return b.moment(ctx, stream, at) }
}

func (b Backups) moment(ctx context.Context, stream events.Stream, at api.PastTarget) (*moment, error) {
	set := 0
	for _, is := range []bool{at.Backup != "", at.Time != nil, len(at.Vector) > 0} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return nil, events.Errorf(events.KindInvalid, "a backup, a time or a vector, not several of them")
	case at.Time != nil:
		return b.between(ctx, stream, timeline.Target{Time: *at.Time})
	case len(at.Vector) == 0:
		return b.asBackedUp(ctx, stream, at.Backup)
	}
	v := events.Vector{}
	var shards []int32 // of others nothing is meant to be there
	for l, next := range at.Vector {
		if l.Stream != stream {
			continue
		}
		if v[l] = next; !slices.Contains(shards, l.Partition) {
			shards = append(shards, l.Partition)
		}
	}
	if len(v) == 0 {
		return nil, events.Errorf(events.KindInvalid, "the vector %s has no log of stream %s", at.Vector, stream)
	}
	return b.between(ctx, stream, timeline.Target{Vector: v}, shards...)
}

// asBackedUp is where a backup was made; an empty id is that of the newest.
func (b Backups) asBackedUp(ctx context.Context, stream events.Stream, id string) (*moment, error) {
	base, err := findManifest(ctx, b.Bucket, b.Config.Region, id)
	if err == nil {
		err = checkFits(b.Config, base)
	}
	if err != nil {
		return nil, err
	}
	m := &moment{stream: stream, target: "backup " + base.ID, vector: events.Vector{}, lacks: []string{}}
	for _, s := range base.Shards {
		m.spans = append(m.spans, timeline.Span{Shard: s.Partition})
	}
	for _, st := range base.States() {
		if st.Log.Stream == stream {
			m.vector[st.Log] = st.Next
		}
	}
	m.chain, err = catalog.LoadChain(ctx, b.Bucket, base)
	return m, err
}

// between is a point anywhere, as a restore would come to it; of all shards, unless some
// are given.
func (b Backups) between(ctx context.Context, stream events.Stream, target timeline.Target, shards ...int32) (*moment, error) {
	req := timeline.Request{Target: target, Streams: []events.Stream{stream}, Shards: shards}
	job := RestoreJob{Config: b.Config, Bucket: b.Bucket, Opener: b.Opener, Request: req}
	_, plan, err := job.find(ctx)
	if events.KindOf(err) == events.KindNotFound {
		err = events.Errorf(events.KindNotFound, "%w; to look into a backup: --at ID", err)
	}
	if err != nil {
		return nil, err
	}
	m := &moment{stream: stream, target: plan.Target, vector: plan.Vector, chain: plan.Chain, lacks: plan.Lacks}
	for _, s := range plan.Shards {
		m.spans = append(m.spans, s.Span)
	}
	return m, nil
}

// GetAt implements api.Node.
func (r *Region) GetAt(ctx context.Context, p api.GetAtParams) (*api.EntryAt, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.GetAt(ctx, p)
}

// ScanAt implements api.Node.
func (r *Region) ScanAt(ctx context.Context, p api.ScanAtParams) (*api.ScanAtResult, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	return b.ScanAt(ctx, p)
}
