package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// Node is one node of a region.
type Node struct {
	Models []string // read models from its next start on; nil: those of the world's shape

	region *Region
	number int
	port   int        // of its API
	disk   *vfs.MemFS // which outlives its process
	frozen bool       // guarded by the network

	node *pipeline.Node // its process; nil: it does not run
	card *card
}

func (n *Node) String() string { return fmt.Sprintf("%s node %d", n.region.Name, n.number) }

func (n *Node) address() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }

func (n *Node) config() *config.Config {
	c := n.region.config()
	c.API.Listen = n.address()
	if n.Models != nil {
		c.Models = n.Models
	}
	return c
}

// Up reports whether the node's process runs.
func (n *Node) Up() bool { return n.node != nil }

// Start starts the node's process on what its disk holds.
func (n *Node) Start() {
	t := n.region.world.t
	t.Helper()
	if err := n.TryStart(); err != nil {
		t.Fatalf("%s: %v", n, err)
	}
}

// TryStart is Start, if that may fail.
func (n *Node) TryStart() error {
	w := n.region.world
	card := newCard(n)
	w.net.change(func() { n.card, w.net.nodes[n.port] = card, n })
	node, err := pipeline.StartNode(context.Background(), n.config(), pipeline.Parts{
		FS: n.disk, Bucket: n.bucket(card), Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", n.String()),
		Listen: w.net.virtual.Listen, Dial: card.dial, KafkaOpts: []kgo.Opt{kgo.Dialer(card.dial), kgo.DisableClientMetrics()},
	})
	if err != nil {
		card.end()
		return err
	}
	n.node = node
	return nil
}

// bucket is a process's way to the bucket of its region. What it asks is held back while the node
// is frozen.
func (n *Node) bucket(c *card) objstore.Bucket {
	w := n.region.world
	if !n.region.hasBackups() {
		return nil
	}
	c.way = &mortalBucket{Bucket: n.region.Bucket, region: n.region, died: c.kill, passes: func(ctx context.Context) error {
		if err := w.net.await(ctx.Done(), n, 0); err != nil || !c.isDead() {
			return err
		}
		return errDead
	}}
	if w.shape.Keep != nil {
		c.way.Bucket = faults.NewSeed(c.way.Bucket, w.seed+uint64(n.port),
			faults.Rule{Probability: 0.3, Delay: 7 * time.Millisecond}, faults.Rule{Probability: 0.05, Delay: 900 * time.Millisecond})
	}
	return c.way
}

// AwaitReady waits until the node serves.
func (n *Node) AwaitReady() {
	n.region.world.t.Helper()
	n.region.await(fmt.Sprintf("ready (node %d)", n.number), func() error { return n.node.Ready(context.Background()) })
}

// Stop stops the node's process as SIGTERM does.
func (n *Node) Stop() {
	n.region.world.t.Helper()
	n.end()
}

// Kill ends the node's process without a word to anybody, as kill -9 does.
func (n *Node) Kill() {
	n.card.kill()
	n.end()
}

// PowerLoss kills the node, and what it had not synced to disk is lost, down to a
// random part.
func (n *Node) PowerLoss() {
	rng := n.region.world.Rand
	crashed := n.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	n.Kill() // what it still does goes to the old disk, which is forgotten
	n.disk = crashed
}

// DiskLoss is a loss of power after which the node's disk is empty.
func (n *Node) DiskLoss() {
	n.Kill()
	n.disk = vfs.NewCrashableMem()
}

func (n *Node) end() {
	if n.node == nil {
		return
	}
	n.Thaw() // or it would never end
	node := n.node
	n.node = nil
	err := node.Stop()
	n.card.end()
	if err != nil {
		n.region.world.t.Errorf("%s: stop: %v", n, err)
	}
}

// Put writes a value through the node and notes in the ledger what was
// acknowledged. An error means that it may or may not have been written.
func (n *Node) Put(ctx context.Context, key, value string) error {
	return n.Write(ctx, api.PutParams{Stream: "session", Key: api.Bytes(key), Value: api.Bytes(value)})
}

// Write is Put, of anything.
func (n *Node) Write(ctx context.Context, p api.PutParams) error {
	node := n.node
	if node == nil {
		return errors.New("the node does not run")
	}
	res, err := node.Put(ctx, p)
	if err != nil {
		return err
	}
	n.region.world.ledger.add(res.Position, string(p.Key), string(p.Value))
	return nil
}

// Process is the node's process, nil if it does not run.
func (n *Node) Process() *pipeline.Node { return n.node }

// Own asks the node what it has itself, past all faults of the network.
func (n *Node) Own() (*api.Status, error) {
	c, err := api.NewPeerClient("http://"+n.address(), "checker", n.region.world.net.virtual.DialContext)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Status(context.Background())
}
