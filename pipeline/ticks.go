package pipeline

import (
	"context"
	"iter"
	"time"
)

// ticks yields once in each interval, from the first one's end on, until the context
// ends. What takes longer than an interval delays the next.
func ticks(ctx context.Context, every time.Duration) iter.Seq[struct{}] {
	return func(yield func(struct{}) bool) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if !yield(struct{}{}) {
				return
			}
		}
	}
}
