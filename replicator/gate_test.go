package replicator_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// gate is the network between a link and one cluster. It can be cut. It can hold
// back the cluster's answers: requests arrive and are carried out, but nobody hears
// of it. And it can hold back requests, which arrive late then, even if the link has
// given them up and closed the connection meanwhile.
type gate struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex
	latency time.Duration // of each part of an answer
	cut     bool
	held    chan struct{} // not nil: answers wait until it is closed
	stalled bool          // requests wait
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
		c.lose()
		_ = c.Close() // the client sees it
	}
}

// Stall holds back every request until Open; Cut loses those that are held.
func (g *gate) Stall() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stalled = true
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
	g.cut, g.stalled = false, false
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
	for c := range g.conns {
		if len(c.late) > 0 && !c.delivering {
			c.delivering = true
			go c.deliver()
		}
	}
}

type gatedConn struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}

	// The gate's lock guards these.
	late       [][]byte // requests held back
	delivering bool
	ending     bool // closed, once they have arrived

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

func (c *gatedConn) Write(p []byte) (int, error) {
	c.gate.mu.Lock()
	if c.gate.stalled || len(c.late) > 0 {
		c.late = append(c.late, bytes.Clone(p))
		c.gate.mu.Unlock()
		return len(p), nil
	}
	c.gate.mu.Unlock()
	return c.Conn.Write(p)
}

// deliver lets the requests arrive that were held back.
func (c *gatedConn) deliver() {
	for {
		c.gate.mu.Lock()
		if len(c.late) == 0 || c.gate.stalled {
			ending := c.ending && len(c.late) == 0
			c.delivering = false
			c.gate.mu.Unlock()
			if ending {
				time.Sleep(time.Second) // for the cluster to carry them out
				c.lose()
				_ = c.Close() // nobody is there to see it
			}
			return
		}
		next := c.late[0]
		c.gate.mu.Unlock()
		_, err := c.Conn.Write(next)
		c.gate.mu.Lock()
		if len(c.late) > 0 {
			c.late = c.late[1:]
		}
		if err != nil {
			c.late = nil
		}
		c.gate.mu.Unlock()
	}
}

// lose gives up what was held back.
func (c *gatedConn) lose() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.late, c.ending = nil, false
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.gate.mu.Lock()
	if len(c.late) > 0 {
		c.ending = true
		c.gate.mu.Unlock()
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // whoever reads is to stop
		return nil
	}
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
