package replicator

import (
	"context"
	"sync"
	"time"
)

// limiter keeps a link to so many bytes a second, as a pause after what was
// read: the bytes of a fetch are known only when it has been answered.
type limiter struct {
	bytesPerSecond int64 // 0: no limit

	mu   sync.Mutex
	free time.Time // when the next fetch may be made
}

// wait counts bytes and waits until the next may be read.
func (l *limiter) wait(ctx context.Context, bytes int) error {
	if l.bytesPerSecond <= 0 || bytes == 0 {
		return nil
	}
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(bytes) / float64(l.bytesPerSecond) * float64(time.Second)))
	pause := l.free.Sub(now)
	l.mu.Unlock()
	sleep(ctx, pause)
	return ctx.Err()
}
