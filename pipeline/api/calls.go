package api

import (
	"context"
	"sync"

	"github.com/creachadair/jrpc2"
)

// concurrentCalls bounds the calls that a node works on at one time; others
// wait.
const concurrentCalls = 32

// calls keeps account of the requests under way.
type calls struct {
	places  chan struct{} // one for each call that is worked on
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	last   int
	ends   map[int]context.CancelFunc // of the requests under way, by number
}

func newCalls() *calls {
	return &calls{places: make(chan struct{}, concurrentCalls), ends: map[int]context.CancelFunc{}}
}

// begin makes the context of a request, which ends with the caller's or by
// close. If ok, the request calls end when it is answered.
func (c *calls) begin(caller context.Context) (ctx context.Context, end func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, false
	}
	ctx, cancel := context.WithCancel(caller)
	c.last++
	number := c.last
	c.ends[number] = cancel
	c.running.Add(1)
	return ctx, func() {
		cancel()
		c.mu.Lock()
		delete(c.ends, number)
		c.mu.Unlock()
		c.running.Done()
	}, true
}

// close ends the requests under way and returns when they have ended; later
// ones do not begin.
func (c *calls) close() {
	c.mu.Lock()
	c.closed = true
	for _, end := range c.ends {
		end()
	}
	c.mu.Unlock()
	c.running.Wait()
}

// bounded makes calls of a method wait for a place.
func (c *calls) bounded(m jrpc2.Handler) jrpc2.Handler {
	return func(ctx context.Context, req *jrpc2.Request) (any, error) {
		select {
		case c.places <- struct{}{}:
		case <-ctx.Done():
			return nil, jrpc2.Errorf(codeOf(kindOfAnswer(ctx.Err())), "%s: %s", req.Method(), ctx.Err())
		}
		defer func() { <-c.places }()
		return m(ctx, req)
	}
}
