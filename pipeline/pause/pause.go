// Package pause waits, and no longer than it is wanted.
package pause

import (
	"context"
	"iter"
	"time"
)

// For waits for a time, or for the end of the context.
func For(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Ticks yields once in each interval, from the first one's end on, until the context
// ends. What takes longer than an interval delays the next.
func Ticks(ctx context.Context, every time.Duration) iter.Seq[struct{}] {
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
