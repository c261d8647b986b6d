// Package orders lets others have the goroutine that polls a Kafka client do
// something between two polls, when nothing that was fetched is on its way: what was
// read before an order and what is read after it cannot be mixed up.
package orders

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Queue is what the polling goroutine is to do. It calls Obey and Poll in turn, and at
// the end End; the rest may be called from any goroutine.
type Queue struct {
	orders chan func()

	mu        sync.Mutex
	interrupt func() // of the poll that is under way
}

// New makes a queue of so many orders; further ones wait for their place.
func New(most int) *Queue {
	return &Queue{orders: make(chan func(), most), interrupt: func() {}}
}

// Do has an order done, and returns once it is. When the polling has ended it is done
// by the caller: it changes nothing any more.
func (q *Queue) Do(order func()) {
	done := make(chan struct{})
	q.orders <- func() {
		defer close(done)
		order()
	}
	q.wake()
	<-done
}

// Nudge ends the poll that is under way.
func (q *Queue) Nudge() {
	select {
	case q.orders <- func() {}:
	default: // there are orders, so it ends
	}
	q.wake()
}

func (q *Queue) wake() {
	q.mu.Lock()
	interrupt := q.interrupt
	q.mu.Unlock()
	interrupt()
}

// Poll waits for records, or for an order.
func (q *Queue) Poll(ctx context.Context, poll func(context.Context) kgo.Fetches) kgo.Fetches {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q.mu.Lock()
	q.interrupt = cancel
	q.mu.Unlock()
	if len(q.orders) > 0 { // it may have come before there was something to interrupt
		return nil
	}
	return poll(ctx)
}

// Obey does what was ordered.
func (q *Queue) Obey() {
	for {
		select {
		case order := <-q.orders:
			order()
		default:
			return
		}
	}
}

// End has the orders done that are still to come.
func (q *Queue) End() {
	q.mu.Lock()
	q.interrupt = q.Obey
	q.mu.Unlock()
	q.Obey()
}
