package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// ErrBusy says that a call was turned away before anything was done, because there
// is too much to do already. It is wrapped in errors of the kind not ready; the
// answer is HTTP 429.
var ErrBusy = errors.New("the node has too much to do already, try again")

// retryAfter is when a caller that was turned away may try again.
const retryAfter = time.Second

func setRetryAfter(h http.Header, err error) {
	if errors.Is(err, ErrBusy) {
		h.Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
}

// class bounds the calls of one sort: so many are worked on at one time, so many
// others wait, and the rest is turned away.
type class struct {
	name   string
	queue  chan struct{} // those who wait, and those who are worked on
	places chan struct{} // those who are worked on
	turned atomic.Int64  // away
}

func newClass(name string, places, waiting int) *class {
	return &class{name: name, places: make(chan struct{}, places), queue: make(chan struct{}, places+waiting)}
}

// enter waits for a place, if there is room to wait.
func (c *class) enter(ctx context.Context) (leave func(), err error) {
	select {
	case c.queue <- struct{}{}:
	default:
		c.turned.Add(1)
		return nil, events.Errorf(events.KindNotReady, "%d %s are under way or wait: %w", cap(c.queue), c.name, ErrBusy)
	}
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		<-c.queue
		return nil, ctx.Err()
	}
	return func() {
		<-c.places
		<-c.queue
	}, nil
}

// Admission tells how many calls of a class there are.
type Admission struct {
	Class      string
	Running    int
	Waiting    int
	TurnedAway int64 // since the start
}

// Admissions tells how many calls there are, by class.
func (h *Handler) Admissions() []Admission {
	c := h.calls
	var all []Admission
	for _, class := range []*class{c.reads, c.writes, c.searches, c.admin, c.watches, c.waits} {
		running := len(class.places)
		all = append(all, Admission{
			Class: class.name, Running: running, Waiting: max(0, len(class.queue)-running), TurnedAway: class.turned.Load(),
		})
	}
	return all
}

// place is what a call has of its class. The call's goroutines share it.
type place struct {
	of    *class
	waits *class

	mu    sync.Mutex
	leave func() // nil: it has none
}

type placeKey struct{}

func (p *place) take(ctx context.Context) error {
	leave, err := p.of.enter(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave = leave
	return err
}

// give gives the place back; not ok if the call has none at present.
func (p *place) give() (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leave == nil {
		return false
	}
	p.leave()
	p.leave = nil
	return true
}

func (p *place) isTaken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leave != nil
}

// Aside does something that may take long and costs nothing but time. The call
// whose context it is given gives its place to others meanwhile. Of several goroutines of
// one call that are aside at the same time the first one does so for all.
func Aside(ctx context.Context, wait func() error) error {
	p, ok := ctx.Value(placeKey{}).(*place)
	if !ok || !p.isTaken() {
		return wait()
	}
	leave, err := p.waits.enter(ctx)
	if err != nil {
		return err
	}
	gave := p.give()
	err = wait()
	leave()
	if gave {
		err = errors.Join(err, p.take(ctx))
	}
	return err
}
