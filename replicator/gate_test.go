package replicator_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// gate is the network between a link and one cluster. It can be cut, and it can
// hold back the cluster's answers: requests arrive and are carried out, but
// nobody hears of it.
type gate struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex
	latency time.Duration // of each part of an answer
	cut     bool
	held    chan struct{} // not nil: answers wait until it is closed
	conns   map[*gatedConn]bool
}

func newGate(dial func(ctx context.Context, network, address string) (net.Conn, error)) *gate {
	return &gate{dial: dial, conns: map[*gatedConn]bool{}}
}

// Dial is for kgo.Dialer.
func (g *gate) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.mu.Lock()
	cut := g.cut
	g.mu.Unlock()
	if cut {
		return nil, errors.New("the network is cut")
	}
	conn, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &gatedConn{Conn: conn, gate: g, closed: make(chan struct{}), moved: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = true
	return c, nil
}

// Cut closes all connections and refuses new ones until Open.
func (g *gate) Cut() {
	g.mu.Lock()
	g.cut = true
	conns := g.conns
	g.conns = map[*gatedConn]bool{}
	g.mu.Unlock()
	for c := range conns {
		_ = c.Close() // the client sees it
	}
}

// Hold holds back every answer until Open; Cut loses those that are held.
func (g *gate) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(chan struct{})
	}
}

// Slow delays every part of an answer.
func (g *gate) Slow(latency time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.latency = latency
}

// Open makes everything well again.
func (g *gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = false
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
}

type gatedConn struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}

	mu       sync.Mutex
	deadline time.Time     // of reads
	moved    chan struct{} // closed when the deadline moves
}

func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		return n, err
	}
	c.gate.mu.Lock()
	held, latency := c.gate.held, c.gate.latency
	c.gate.mu.Unlock()
	if latency > 0 {
		time.Sleep(latency)
	}
	for held != nil {
		deadline, moved := c.readDeadline()
		select {
		case <-held:
			return n, nil
		case <-c.closed:
			return 0, net.ErrClosed
		case <-deadline:
			return 0, os.ErrDeadlineExceeded
		case <-moved:
		}
	}
	return n, nil
}

// readDeadline returns channels that tell when it has come and that it moved.
func (c *gatedConn) readDeadline() (come <-chan time.Time, moved <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.deadline.IsZero() {
		come = time.After(time.Until(c.deadline))
	}
	return come, c.moved
}

func (c *gatedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	close(c.moved)
	c.moved = make(chan struct{})
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

func (c *gatedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
