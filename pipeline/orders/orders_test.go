package orders_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/pipeline/orders"
)

// poller polls as a worker does; a poll lasts until it is interrupted.
type poller struct {
	*orders.Queue
	polls   atomic.Int64
	polling atomic.Bool
	ended   chan struct{}
}

func startPoller(ctx context.Context, most int) *poller {
	p := &poller{Queue: orders.New(most), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		defer p.End()
		for ctx.Err() == nil {
			p.Obey()
			p.Poll(ctx, func(ctx context.Context) kgo.Fetches {
				p.polls.Add(1)
				p.polling.Store(true)
				<-ctx.Done()
				p.polling.Store(false)
				return nil
			})
		}
	}()
	return p
}

// An order interrupts the poll, is done while none is under way, and is done once it
// returns; so with many at once, more than the queue takes.
func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := startPoller(ctx, 2)
		synctest.Wait()
		busy, done := atomic.Int64{}, 0
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				did := false
				p.Do(func() {
					if p.polling.Load() {
						t.Error("an order is done while a poll is under way")
					}
					if busy.Add(1) != 1 {
						t.Error("two orders at a time")
					}
					did = true
					done++ // by one goroutine
					busy.Add(-1)
				})
				if !did {
					t.Error("an order was not done when Do returned")
				}
			})
		}
		all.Wait()
		if done != 50 {
			t.Errorf("%d orders were done", done)
		}
		stop()
		<-p.ended
	})
}

// An order that comes just between two looks is not slept over.
func TestNoOrderIsSleptOver(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			p := startPoller(ctx, 1)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					begun := time.Now()
					for range 5 {
						p.Do(func() {})
					}
					if waited := time.Since(begun); waited > 0 {
						t.Errorf("orders waited for %s", waited)
					}
				})
			}
			all.Wait()
			stop()
			<-p.ended
		})
	}
}

// A nudge ends the poll and does nothing else; with the queue full it does not wait.
func TestNudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := startPoller(ctx, 1)
		synctest.Wait()
		for want := int64(2); want < 10; want++ {
			p.Nudge()
			synctest.Wait()
			if got := p.polls.Load(); got != want {
				t.Errorf("%d polls, want %d", got, want)
			}
		}
		stop()
		<-p.ended
		idle := orders.New(1)
		idle.Nudge()
		idle.Nudge()
	})
}

// When the polling has ended orders are done all the same, those that waited and those
// that come.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := startPoller(ctx, 1)
		stop()
		var all sync.WaitGroup
		var done atomic.Int64
		for range 20 {
			all.Go(func() { p.Do(func() { done.Add(1) }) })
		}
		all.Wait()
		<-p.ended
		p.Do(func() { done.Add(1) })
		if done.Load() != 21 {
			t.Errorf("%d orders were done", done.Load())
		}
	})
}
