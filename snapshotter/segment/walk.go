package segment

import (
	"context"
	"iter"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Walk opens the segments of a shard behind a number, one after the other, and makes
// sure that each follows the one before. An error is yielded once and ends it.
func Walk(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shard int32, number int64) iter.Seq2[*Segment, error] {
	return func(yield func(*Segment, error) bool) {
		numbers, err := NumbersBehind(ctx, bucket, r, shard, number)
		if err != nil {
			yield(nil, err)
			return
		}
		var last *Segment
		for _, number := range numbers {
			s, err := Open(ctx, bucket, opener, r, shard, number)
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
