package timeline

import (
	"context"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// ReadShards is Read for one who asks of some shards only: of others nothing is known.
func ReadShards(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shards int32, only []int32) (*Timeline, error) {
	return read(ctx, bucket, opener, r, shards, only)
}

// Reach is how much of a log is archived: the offsets from From to below Next, but for
// gaps. They begin in the segment with the number Segment.
type Reach struct{ From, Next, Segment int64 }

// Reach tells how much of a log is archived; false: nothing.
func (t *Timeline) Reach(ctx context.Context, l events.Log) (Reach, bool, error) {
	a := t.archives[l.Partition]
	newest, err := a.newest(ctx)
	if err != nil || newest == nil {
		return Reach{}, false, err
	}
	end, known := newest.End(l)
	if !known {
		return Reach{}, false, nil
	}
	first, err := a.search(ctx, a.lastRun(), func(s *format.Segment) bool { _, known := s.End(l); return known })
	if err != nil {
		return Reach{}, false, err
	}
	s, err := a.header(ctx, first)
	if err != nil {
		return Reach{}, false, err
	}
	begin, _ := s.End(l)
	if p := s.Part(l); p != nil {
		begin.Next = p.From
	}
	return Reach{From: begin.Next, Next: end.Next, Segment: s.Number}, true, nil
}

// Logs are the logs of a shard of which something is archived.
func (t *Timeline) Logs(ctx context.Context, shard int32) (logs []events.Log, err error) {
	newest, err := t.archives[shard].newest(ctx)
	if err != nil || newest == nil {
		return nil, err
	}
	for _, end := range newest.Ends {
		logs = append(logs, end.Log)
	}
	return logs, nil
}

// Came is the offset of the first record of a log that came after a time, as far as the
// archive tells, or its end. A *MissingError says that it is not archived.
func (t *Timeline) Came(ctx context.Context, l events.Log, at time.Time) (int64, error) {
	return t.archives[l.Partition].offsetAt(ctx, t.opener, l, at, 0)
}

// SegmentOf is the number of the first segment that has something of a log at or behind
// an offset; 0: none has.
func (t *Timeline) SegmentOf(ctx context.Context, l events.Log, offset int64) (int64, error) {
	a := t.archives[l.Partition]
	i, err := a.search(ctx, a.lastRun(), func(s *format.Segment) bool { end, _ := s.End(l); return end.Next > offset })
	if err != nil || i == len(a.objects) {
		return 0, err
	}
	return a.objects[i].Number, nil
}

// lastRun is where the run of numbers begins that ends with the newest segment. What is
// before it is left over, or a part of it is lost.
func (a *archive) lastRun() int {
	i, newest := len(a.objects)-1, &format.Segment{Void: a.void}
	for i > 0 && segment.Adjoin(a.objects[i-1].Number, a.objects[i].Number, newest) {
		i--
	}
	return max(0, i)
}
