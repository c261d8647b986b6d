package linkbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// One read fills at most proxyBufferBytes and at least proxyReadBytesMin if
	// there is as much; small ones share a buffer.
	proxyBufferBytes  = 256 << 10
	proxyReadBytesMin = 64 << 10
	// proxyQueueChunks bounds what is under way in one direction of a connection:
	// 128 MB or more of a busy stream, three times what one that runs at 1 GB/s has
	// under way for 40 ms, and never more than 512 MB. Then the sender is held up.
	proxyQueueChunks = 2048
)

// Proxy passes TCP connections on to one address and holds every byte back by a
// delay, each way; so does it the end of a stream. The order of bytes is kept and
// their rate is not limited.
type Proxy struct {
	listener net.Listener
	target   string
	delay    time.Duration
	done     chan struct{}
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil when closed
}

// StartProxy listens at an address and passes on to target. Close ends it.
func StartProxy(ctx context.Context, address, target string, delay time.Duration) (*Proxy, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("proxy of %s: %w", target, err)
	}
	p := &Proxy{listener: l, target: target, delay: delay, done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.wg.Go(p.accept)
	return p, nil
}

// Address is where it listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Close ends all connections, at once, and returns when nothing of the proxy runs
// any more. It may be called from any goroutine, and more than once.
func (p *Proxy) Close() {
	p.mu.Lock()
	if p.conns != nil {
		close(p.done)
		p.listener.Close()
		for c := range p.conns {
			c.Close()
		}
		p.conns = nil
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.serve(near) })
	}
}

// adopt makes Close end a connection too; it refuses one that comes too late.
func (p *Proxy) adopt(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) serve(near net.Conn) {
	if !p.adopt(near) {
		return
	}
	defer p.drop(near)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
	if err != nil || !p.adopt(far) {
		return // the client sees its connection end, as with a broker that is gone
	}
	defer p.drop(far)
	p.join(near.(halfCloser), far.(halfCloser))
}

// halfCloser is a connection of which one direction can end alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// join passes bytes both ways until both directions have ended, or one has failed.
func (p *Proxy) join(near, far halfCloser) {
	var wg sync.WaitGroup
	pass := func(dst, src halfCloser) {
		if err := delayed(dst, src, p.delay, p.done); err != nil {
			near.Close()
			far.Close()
		}
	}
	wg.Go(func() { pass(far, near) })
	pass(near, far)
	wg.Wait()
}

// chunk is what one read gave; its last one is io.EOF's or another error's.
type chunk struct {
	due   time.Time
	bytes []byte
	err   error
}

// delayed copies src to dst with a delay, and then src's end.
func delayed(dst, src halfCloser, delay time.Duration, done <-chan struct{}) error {
	queue := make(chan chunk, proxyQueueChunks)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		var buf []byte
		for {
			if len(buf) < proxyReadBytesMin {
				buf = make([]byte, proxyBufferBytes)
			}
			n, err := src.Read(buf)
			select {
			case queue <- chunk{time.Now().Add(delay), buf[:n:n], err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
			buf = buf[n:]
		}
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for c := range queue {
		timer.Reset(time.Until(c.due))
		select {
		case <-timer.C:
		case <-done:
			return net.ErrClosed
		}
		if _, err := dst.Write(c.bytes); err != nil {
			src.Close() // the reader waits for it
			return err
		}
		switch {
		case errors.Is(c.err, io.EOF):
			return dst.CloseWrite()
		case c.err != nil:
			return c.err
		}
	}
	return nil
}
