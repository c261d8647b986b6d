package segment

import (
	"context"
	"iter"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Walk opens the segments of a shard behind a number, one after the other, and makes
// sure that each follows the one before; without a number (0) all that the archive has: the run of
// numbers that ends with the newest. Those that are void are left out. An error is yielded once and ends it.
func Walk(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shard int32, number int64) iter.Seq2[*Segment, error] {
	return func(yield func(*Segment, error) bool) {
		all, newest, err := ListBehind(ctx, bucket, r, shard, number)
		if err != nil {
			yield(nil, err)
			return
		}
		run := Run(all, newest)
		if number > 0 && len(run) > 0 && !Adjoin(number, run[0].Number, newest) {
			yield(nil, events.Errorf(events.KindInconsistent, "shard %d of %s: segments from number %d on are missing", shard, r, number+1))
			return
		}
		var last *Segment
		for _, at := range run {
			s, err := Open(ctx, bucket, opener, r, shard, at.Number)
			if err == nil && last != nil {
				err = s.Follows(last.Segment)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(s, nil) {
				return
			}
			last = s
		}
	}
}
