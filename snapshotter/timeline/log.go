package timeline

import (
	"context"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Reach says which offsets of a log a region's archive has: from first to below next, but
// for gaps that show when they are come to. None: both are the same.
func Reach(ctx context.Context, bucket objstore.Reader, r events.Region, l events.Log) (first, next int64, err error) {
	a, err := listArchive(ctx, bucket, r, l.Partition)
	if err != nil {
		return 0, 0, err
	}
	newest, err := a.newest(ctx)
	if err != nil || newest == nil {
		return 0, 0, err
	}
	end, _ := newest.End(l)
	i, err := a.search(ctx, 0, func(s *format.Segment) bool { _, ok := s.End(l); return ok })
	if err != nil || i == len(a.objects) {
		return 0, 0, err
	}
	oldest, err := a.header(ctx, i)
	if err != nil {
		return 0, 0, err
	}
	begun, _ := oldest.End(l)
	first = begun.Next
	if p := oldest.Part(l); p != nil {
		first = p.From
	}
	return first, end.Next, nil
}

// Holding is the number of the first segment that has come past an offset of a log; 0: there
// is none. Whether it has the offset, or a gap there, is for it to say.
func Holding(ctx context.Context, bucket objstore.Reader, r events.Region, l events.Log, offset int64) (number int64, err error) {
	a, err := listArchive(ctx, bucket, r, l.Partition)
	if err != nil {
		return 0, err
	}
	i, err := a.search(ctx, 0, func(s *format.Segment) bool { end, _ := s.End(l); return end.Next > offset })
	if err != nil || i == len(a.objects) {
		return 0, err
	}
	return a.objects[i].number, nil
}
