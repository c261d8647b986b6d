package restore

import (
	"context"
	"runtime"
	"slices"
	"sync"
)

// parallelTables is how many tables are fetched at a time, of all shards together. A store gives more to
// several requests than to one; but what all share comes to none of them soon.
func parallelTables() int { return max(4, 2*runtime.GOMAXPROCS(0)) }

// Line is where the tables of all shards of a restore wait to be fetched: those of earlier shards go first. So the first shard is
// proved while the next ones are fetched; if all came at the same time, the bucket would have nothing to do after that, and the processors
// nothing before. It is safe for concurrent use.
type Line struct {
	mu      sync.Mutex
	free    int
	waiting []waiter // those whose turn is first come first
}

// waiter is a table that waits.
type waiter struct {
	turn int32
	come chan struct{} // closed once it is fetched
}

// NewLine is an empty line.
func NewLine() *Line { return &Line{free: parallelTables()} }

// enter waits until a table is fetched whose turn is a number. The caller calls leave then.
func (l *Line) enter(ctx context.Context, turn int32) error {
	l.mu.Lock()
	if l.free > 0 {
		l.free--
		l.mu.Unlock()
		return nil
	}
	w := waiter{turn, make(chan struct{})}
	at := slices.IndexFunc(l.waiting, func(other waiter) bool { return other.turn > turn })
	if at < 0 {
		at = len(l.waiting)
	}
	l.waiting = slices.Insert(l.waiting, at, w)
	l.mu.Unlock()
	select {
	case <-w.come:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	at = slices.Index(l.waiting, w)
	if at >= 0 {
		l.waiting = slices.Delete(l.waiting, at, at+1)
	}
	l.mu.Unlock()
	if at < 0 { // its turn came meanwhile
		l.leave()
	}
	return ctx.Err()
}

func (l *Line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.free++
		return
	}
	close(l.waiting[0].come)
	l.waiting = slices.Delete(l.waiting, 0, 1)
}
