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
// numbers that ends with the newest. An error is yielded once and ends it.
func Walk(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shard int32, number int64) iter.Seq2[*Segment, error] {
	return func(yield func(*Segment, error) bool) {
		numbers, err := NumbersBehind(ctx, bucket, r, shard, number)
		if err != nil {
			yield(nil, err)
			return
		}
		if run := lastRun(numbers); number == 0 {
			numbers = run
		} else if len(numbers) > 0 && (len(run) < len(numbers) || run[0] != number+1) {
			yield(nil, events.Errorf(events.KindInconsistent, "shard %d of %s: segments from number %d on are missing", shard, r, number+1))
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

// lastRun is the end of some ascending numbers that has no hole.
func lastRun(numbers []int64) []int64 {
	i := len(numbers) - 1
	for i > 0 && numbers[i-1] == numbers[i]-1 {
		i--
	}
	return numbers[max(0, i):]
}
