package sim

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/evenkeel/evenkeel/events"
)

// network is what nodes and clusters are connected by. What cannot pass is held
// back, and nobody is told: as with a process that is frozen, or a cable that is cut.
type network struct {
	virtual kfake.VirtualNetwork

	mu      sync.Mutex
	changed chan struct{}             // closed when more may pass
	homes   map[int]events.Region     // of the clusters, by port
	nodes   map[int]*Node             // by port
	cut     map[[2]events.Region]bool // pairs of regions that do not reach each other
}

func newNetwork() *network {
	return &network{
		changed: make(chan struct{}), homes: map[int]events.Region{}, nodes: map[int]*Node{}, cut: map[[2]events.Region]bool{},
	}
}

// card is a process's access to the network; it dies with the process.
type card struct {
	node *Node
	way  *mortalBucket // to the bucket; nil: there is none

	mu    sync.Mutex
	dead  bool
	conns map[net.Conn]bool
	pumps sync.WaitGroup
}

func newCard(n *Node) *card { return &card{node: n, conns: map[net.Conn]bool{}} }

// end waits for what is left of the connections of a process that has ended.
func (c *card) end() {
	c.kill()
	c.pumps.Wait()
}

var errDead = errors.New("the process is dead")

// dial is for clients of a process.
func (c *card) dial(ctx context.Context, network, address string) (net.Conn, error) {
	_, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // as that of a Kafka client's own dialer
	defer cancel()
	w := c.node.region.world.net
	if err := w.await(ctx.Done(), c.node, port); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	far, err := w.virtual.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	near, client := net.Pipe()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil, errors.Join(errDead, far.Close(), near.Close(), client.Close())
	}
	c.conns[near], c.conns[far] = true, true
	c.pumps.Go(func() { c.pump(near, far, port) })
	c.pumps.Go(func() { c.pump(far, near, port) })
	return client, nil
}

// pump copies one direction of a connection. What is on the way is held in between,
// as by a network: the sender does not see that it does not arrive.
func (c *card) pump(from, to net.Conn, port int) {
	ended := make(chan struct{})
	onTheWay := make(chan []byte, 1_000)
	c.pumps.Go(func() {
		defer close(onTheWay)
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case onTheWay <- bytes.Clone(buf[:n]):
				case <-ended:
				}
			}
			if err != nil {
				return
			}
		}
	})
	for chunk := range onTheWay {
		if c.node.region.world.net.await(nil, c.node, port) != nil {
			break
		}
		if _, err := to.Write(chunk); err != nil {
			break
		}
	}
	close(ended)
	_, _ = to.Close(), from.Close()
	for range onTheWay { // until the other end is closed too
	}
	c.mu.Lock()
	delete(c.conns, from)
	c.mu.Unlock()
}

// kill ends everything on the way, as the end of a process does.
func (c *card) kill() {
	c.mu.Lock()
	c.dead = true
	for conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.node.region.world.net.change(func() {})
}

func (c *card) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// await waits until bytes pass between a node and a port.
func (n *network) await(done <-chan struct{}, from *Node, port int) error {
	for {
		n.mu.Lock()
		passes, changed := n.passes(from, port), n.changed
		n.mu.Unlock()
		if from.card.isDead() {
			return errDead
		}
		if passes {
			return nil
		}
		select {
		case <-changed:
		case <-done:
			return errors.New("the network does not answer")
		}
	}
}

func (n *network) passes(from *Node, port int) bool {
	to, isNode := n.nodes[port]
	region := n.homes[port]
	if isNode {
		region = to.region.Name
	}
	return !from.frozen && (!isNode || !to.frozen) && !n.cut[pair(from.region.Name, region)]
}

func pair(a, b events.Region) [2]events.Region {
	if a > b {
		a, b = b, a
	}
	return [2]events.Region{a, b}
}

// change changes what passes.
func (n *network) change(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Cut keeps two regions from reaching each other.
func (w *World) Cut(a, b *Region) {
	w.net.change(func() { w.net.cut[pair(a.Name, b.Name)] = true })
}

// Mend lets two regions reach each other again.
func (w *World) Mend(a, b *Region) {
	w.net.change(func() { delete(w.net.cut, pair(a.Name, b.Name)) })
}

// Freeze holds back everything between the node and the rest of the world, as if its
// process had been stopped in mid-air.
func (n *Node) Freeze() { n.region.world.net.change(func() { n.frozen = true }) }

// Thaw lets the node go on.
func (n *Node) Thaw() { n.region.world.net.change(func() { n.frozen = false }) }
