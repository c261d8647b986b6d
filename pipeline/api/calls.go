package api

import (
	"context"
	"sync"

	"github.com/creachadair/jrpc2"
	"golang.org/x/sync/semaphore"
)

// calls keeps account of the requests under way and their places.
type calls struct {
	requests
	reads, writes, searches, admin *class
	watches, waits                 *class
	inner                          *class              // calls that other nodes have forwarded: two nodes that wait for each other's places would wait for ever
	bodies                         *semaphore.Weighted // bytes of request bodies in memory
}

// requests are those of one sort that are under way. The zero value is ready.
type requests struct {
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	last   int
	ends   map[int]context.CancelFunc // by number
}

// bodyBytesLeast is how much memory bodies have at least, all together.
const bodyBytesLeast = 64 << 20

func newCalls(maxBodyBytes int64) *calls {
	return &calls{
		reads:    newClass("reads", 32, 256),
		writes:   newClass("writes", 32, 256),
		searches: newClass("searches of logs", 4, 16),
		admin:    newClass("commands", 8, 64),
		watches:  newClass("watches", 256, 0),
		waits:    newClass("reads that wait", 1_000, 0),
		inner:    newClass("calls of other nodes", 32, 256),
		bodies:   semaphore.NewWeighted(max(bodyBytesLeast, 4*maxBodyBytes)),
	}
}

// begin makes the context of a request, which ends with the caller's or by
// close. If ok, the request calls end when it is answered.
func (r *requests) begin(caller context.Context) (ctx context.Context, end func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, false
	}
	ctx, cancel := context.WithCancel(caller)
	if r.ends == nil {
		r.ends = map[int]context.CancelFunc{}
	}
	r.last++
	number := r.last
	r.ends[number] = cancel
	r.running.Add(1)
	return ctx, func() {
		cancel()
		r.mu.Lock()
		delete(r.ends, number)
		r.mu.Unlock()
		r.running.Done()
	}, true
}

// close ends the requests under way and returns when they have ended; later
// ones do not begin.
func (r *requests) close() {
	r.mu.Lock()
	r.closed = true
	for _, end := range r.ends {
		end()
	}
	r.mu.Unlock()
	r.running.Wait()
}

// bounded makes calls of a method take a place of a class.
func (c *calls) bounded(class *class, m jrpc2.Handler) jrpc2.Handler {
	return func(ctx context.Context, req *jrpc2.Request) (any, error) {
		own := class
		if _, forwarded := ForwardedFrom(ctx); forwarded {
			own = c.inner
		}
		p := &place{of: own, waits: c.waits}
		if err := p.take(ctx); err != nil {
			return nil, jrpc2.Errorf(codeOfError(err), "%s: %s", req.Method(), err)
		}
		defer p.give()
		return m(context.WithValue(ctx, placeKey{}, p), req)
	}
}
