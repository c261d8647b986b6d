// Package peers are the other nodes of a region: clients of their APIs, and how a node asks them for what it
// does not have itself.
//
// What another node has forwarded is answered from what is here, or refused, and never forwarded
// again: two nodes could otherwise wait for each other for ever.
package peers

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/pause"
)

const (
	// Patience is how long another node is waited for that is asked what it does.
	Patience = time.Second

	// movePatience is how long a read waits for shards that are moving.
	movePatience = 3 * time.Second
	movePause    = 100 * time.Millisecond
)

// Peers are clients of the region's other nodes, by address.
type Peers struct {
	self string // name of this node
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex
	clients map[string]*api.Client
}

// New makes the peers of a node; dial is the network between the nodes, nil: the system's.
func New(self string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Peers {
	return &Peers{self: self, dial: dial, clients: map[string]*api.Client{}}
}

// At is a client of the node at an address.
func (p *Peers) At(node, address string) (*api.Client, error) {
	if address == "" {
		return nil, events.Errorf(events.KindNotReady, "node %s does not say where it can be reached; set api.advertise there", node)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.clients[address]; ok {
		return c, nil
	}
	c, err := api.NewPeerClient(address, p.self, p.dial)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node, err)
	}
	p.clients[address] = c
	return c, nil
}

// Close ends the clients.
func (p *Peers) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.Close()
	}
	clear(p.clients)
}

// RefuseForward refuses what another node has forwarded and this one would have to
// forward again.
func RefuseForward(ctx context.Context, what string) error {
	if from, is := api.ForwardedFrom(ctx); is {
		return events.Errorf(events.KindNotReady, "%s: node %s asks this node, and it is not here either; it is moving", what, from)
	}
	return nil
}

// WhileMoving does something again and again while it is not ready, for as long
// as a shard takes to move. What another node has forwarded it does once: that node
// asks again.
func WhileMoving(ctx context.Context, do func() error) error {
	_, forwarded := api.ForwardedFrom(ctx)
	begun := time.Now()
	for {
		err := do()
		if forwarded || events.KindOf(err) != events.KindNotReady || time.Since(begun) >= movePatience {
			return err
		}
		if pause.For(ctx, movePause); ctx.Err() != nil {
			return err
		}
	}
}
