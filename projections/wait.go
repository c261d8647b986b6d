package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/evenkeel/evenkeel/events"
)

// BehindError says that a shard had not folded a log far enough when it was looked at,
// or when the one who waited for it gave up.
type BehindError struct {
	Want events.Position // next offset that was waited for
	Next int64           // next offset that the shard would fold
	Err  error           // why it was not waited for, or no longer: the context's error, or what has stopped the log
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("%s is folded up to offset %d, %d short of %d: %s", e.Want.Log, e.Next, e.Want.Offset-e.Next, e.Want.Offset, e.Err)
}

func (e *BehindError) Unwrap() error { return e.Err }

// Wait returns once the shard has folded everything before the cut. Logs of other
// shards in it are not looked at. A log whose fold has stopped is not waited for.
// The error is a *BehindError.
func (s *Shard) Wait(ctx context.Context, cut events.Vector) error {
	moved := make(chan struct{}, 1)
	s.listeners.add(moved) // before the state is looked at, so that no step is missed
	defer s.listeners.remove(moved)
	for {
		behind := s.behind(cut)
		if behind == nil {
			return nil
		}
		if behind.Err != nil {
			return behind
		}
		select {
		case <-moved:
		case <-ctx.Done():
			behind.Err = ctx.Err()
			return behind
		}
	}
}

var errCatchingUp = errors.New("it is still being folded")

// Reached says of a shard that has not folded everything before the cut, in a
// *BehindError, what it lacks. What is read of one that has is at least as new as the
// cut. Logs of other shards in it are not looked at.
func (s *Shard) Reached(cut events.Vector) error {
	behind := s.behind(cut)
	if behind == nil {
		return nil
	}
	behind.Err = cmp.Or(behind.Err, errCatchingUp)
	return behind
}

// behind finds a log that has not come to the cut, best one that never will.
func (s *Shard) behind(cut events.Vector) (found *BehindError) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for log, want := range cut {
		if log.Partition != s.cfg.Partition {
			continue
		}
		next := int64(0)
		if m, ok := s.logs[log]; ok {
			next = m.meta.next
		}
		if next >= want {
			continue
		}
		found = &BehindError{Want: log.At(want), Next: next, Err: cmp.Or(s.fence, s.blocked[log])}
		if found.Err != nil {
			return found
		}
	}
	return found
}

// listeners are those who want to know when a shard has made a step. The zero
// value is ready.
type listeners struct {
	mu  sync.Mutex
	all map[chan struct{}]struct{}
}

// add has a channel with room for one woken, until it is removed.
func (l *listeners) add(ch chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[chan struct{}]struct{}{}
	}
	l.all[ch] = struct{}{}
}

func (l *listeners) remove(ch chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, ch)
}

// wake never blocks: one that was woken before and has not looked yet will see
// this step too.
func (l *listeners) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ch := range l.all {
		signal(ch)
	}
}

// signal wakes whoever listens to a channel with room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
