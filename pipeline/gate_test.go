package pipeline_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// gate is the network between a node and a cluster. While it is frozen nothing
// passes in either direction, and nobody is told: as with a machine that has
// lost its power, or a broker that is stopped in mid-air.
type gate struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	address string // of the cluster; connections to others go past the gate

	mu    sync.Mutex
	thaw  chan struct{} // closed unless frozen
	conns []net.Conn
	pumps sync.WaitGroup
}

// gated puts a gate between a node and its region's cluster.
func (r *region) gated() *gate {
	g := &gate{dial: r.w.net.DialContext, address: r.address(), thaw: make(chan struct{})}
	close(g.thaw)
	r.opts = []kgo.Opt{kgo.Dialer(g.Dial), kgo.DisableClientMetrics()}
	r.w.Cleanup(g.close)
	return g
}

// Dial is for kgo.Dialer.
func (g *gate) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !strings.HasSuffix(address, g.address[strings.Index(g.address, ":"):]) {
		return g.dial(ctx, network, address)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // as that of a Kafka client's own dialer
	defer cancel()
	select {
	case <-g.open():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	far, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	near, client := net.Pipe()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, near, far)
	g.pumps.Go(func() { g.pump(near, far) })
	g.pumps.Go(func() { g.pump(far, near) })
	return client, nil
}

func (g *gate) open() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.thaw
}

// pump copies one direction of a connection. What is on the way is held in
// between, as by a network: the sender does not see that it does not arrive.
func (g *gate) pump(from, to net.Conn) {
	defer to.Close()
	onTheWay := make(chan []byte, 1_000)
	g.pumps.Go(func() {
		defer close(onTheWay)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				onTheWay <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	})
	for chunk := range onTheWay {
		<-g.open()
		if _, err := to.Write(chunk); err != nil {
			break
		}
	}
	for range onTheWay { // until the other end is closed too
	}
}

// freeze stops everything on the way.
func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.thaw = make(chan struct{})
}

// melt lets everything go on.
func (g *gate) melt() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.thaw:
	default:
		close(g.thaw)
	}
}

// close ends what is left of the connections.
func (g *gate) close() {
	g.melt()
	g.mu.Lock()
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.mu.Unlock()
	g.pumps.Wait()
}
