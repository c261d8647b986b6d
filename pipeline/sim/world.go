package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// partitions of every stream in a simulated world.
const partitions = 3

// firstPort of the virtual network's Kafka brokers.
const firstPort = 9001

// firstNodePort of the APIs of nodes.
const firstNodePort = 8001

// World is a few regions that know each other.
type World struct {
	Rand    *rand.Rand
	Regions []*Region

	t      testing.TB
	seed   uint64
	net    *network
	log    *logBuffer
	ledger ledger
	shape  Shape

	written map[events.Log][]*kgo.Record // what is in the logs, of a world without Kafka; else nil
}

// Region is one region of a world: a Kafka cluster, a bucket, and nodes.
type Region struct {
	Name   events.Region
	Bucket *objstore.Memory
	Nodes  []*Node

	world *World
	port  int
	dir   string // of Kafka's data, which outlives a loss of power
	kafka *kfake.Cluster

	noBackups bool // any more

	torn     atomic.Pointer[string]       // the name of an object of which the bucket has a part
	folded   map[string][]events.LogState // what the logs come to at the vectors of backups, by their ids
	pins     map[string]pin               // by the ids of backups
	sessions *sessions                    // of the region's group
	client   *kgo.Client                  // of writers who write past the nodes; nil: the region has no power
}

// New makes a world of the named regions with one node each and streams of all rules, all
// of them up and ready. It must be called inside a synctest bubble; everything is stopped when the
// test ends.
func New(t testing.TB, seed uint64, names ...events.Region) *World {
	t.Helper()
	return NewShaped(t, seed, Shape{Nodes: 1, AllRules: true}, names...)
}

// Shape is what regions are like.
type Shape struct {
	Nodes         int      // of each region
	GroupProtocol string   // empty: the default
	Models        []string // read models; nil: the default
	AllRules      bool     // streams of the rules multivalue, fieldmap and append besides the one of lww

	NoBackups bool // nor an archive

	BackupsOf events.Region // which alone has backups; empty: all have

	// Tombstones is their least age before they are collected; 0: the default. Else there is no stream
	// of append, which has no deletes: nothing of it would ever go.
	Tombstones time.Duration

	Deltas time.Duration // how often what has changed is backed up; 0: never, and nothing else by itself
	Keep   *config.Keep  // what a prune keeps, and buckets take a while to answer; nil: nothing is pruned
}

// NewShaped is New with regions of another shape.
func NewShaped(t testing.TB, seed uint64, shape Shape, names ...events.Region) *World {
	t.Helper()
	w := &World{Rand: rand.New(rand.NewPCG(seed, seed)), t: t, seed: seed, net: newNetwork(), log: &logBuffer{}, shape: shape}
	for i, name := range names {
		r := &Region{
			Name: name, Bucket: objstore.NewMemory("bucket-" + name.String()),
			world: w, port: firstPort + i, dir: filepath.Join(t.TempDir(), name.String()),
			folded: map[string][]events.LogState{}, pins: map[string]pin{},
		}
		w.net.homes[r.port] = name
		for n := range shape.Nodes {
			r.Nodes = append(r.Nodes, &Node{region: r, number: n, port: firstNodePort + i*shape.Nodes + n, disk: vfs.NewCrashableMem()})
		}
		w.Regions = append(w.Regions, r)
	}
	for _, r := range w.Regions {
		r.Start()
	}
	return w
}

// Close stops every region that is up. The bubble must be empty when it ends, so
// scenarios call it last.
func (w *World) Close() {
	w.t.Helper()
	for _, r := range w.Regions {
		r.stop()
		for _, violation := range r.Bucket.Violations() {
			w.t.Errorf("%s: bucket: %s", r.Name, violation)
		}
	}
	if w.t.Failed() {
		w.t.Logf("the last that nodes have logged:\n%s", w.log.tail(20_000))
	}
}

func (r *Region) config() *config.Config {
	c := config.Default()
	c.Region, c.DataDir, c.Partitions = r.Name, "/data", partitions
	c.Streams = map[events.Stream]config.Stream{}
	for stream, rule := range r.world.streams() {
		c.Streams[stream] = config.Stream{Topic: stream.String(), Merge: rule}
	}
	c.GroupProtocol = cmp.Or(r.world.shape.GroupProtocol, c.GroupProtocol)
	if r.world.shape.Models != nil {
		c.Models = r.world.shape.Models
	}
	c.Tombstones.Keep = cmp.Or(r.world.shape.Tombstones, c.Tombstones.Keep)
	c.Limits.MinFreeBytes = 0 // memory has no free space to ask for
	c.Backup = &config.Backup{Bucket: "bucket", Encryption: "none", KeepLast: 1, Schedule: config.Schedule{Segment: segmentEvery}}
	if !r.hasBackups() {
		c.Backup = nil
	}
	if every := r.world.shape.Deltas; every > 0 {
		c.Backup.MaxChain = 48
		c.Backup.Schedule = config.Schedule{Full: 24 * time.Hour, Delta: every, Segment: 2 * time.Second}
	}
	if keep := r.world.shape.Keep; keep != nil {
		c.Backup.Keep = *keep
	}
	c.Regions = map[events.Region]config.Region{}
	for _, o := range r.world.Regions {
		c.Regions[o.Name] = config.Region{
			Incarnation: 1,
			Kafka:       config.Kafka{Seeds: []string{fmt.Sprintf("127.0.0.1:%d", o.port)}},
		}
	}
	return &c
}

// hasBackups tells whether nodes that are started now make backups, and an archive.
func (r *Region) hasBackups() bool {
	shape := r.world.shape
	return !shape.NoBackups && !r.noBackups && (shape.BackupsOf == "" || shape.BackupsOf == r.Name)
}

// EndBackups has the region's nodes make no backups from their next start on.
func (r *Region) EndBackups() { r.noBackups = true }

// Start brings the region up on what its disks hold and waits until it serves.
func (r *Region) Start() {
	t := r.world.t
	t.Helper()
	kafka, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.Ports(r.port), kfake.ListenFn(r.world.net.virtual.Listen),
		kfake.DataDir(r.dir), kfake.ClusterID(r.Name.String()),
	)
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	r.kafka = kafka
	if r.sessions, err = newSessions(r); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	if r.client, err = r.dial(); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	for _, n := range r.Nodes {
		n.Start()
	}
	for _, n := range r.Nodes {
		n.AwaitReady()
	}
}

// await waits, in simulated time, until a condition holds.
func (r *Region) await(what string, condition func() error) {
	t := r.world.t
	t.Helper()
	const patience = 5 * time.Minute
	var err error
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(100 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	t.Fatalf("%s is not %s after %s: %v\n%s", r.Name, what, patience, err, r.world.log.tail(20_000))
}

// Up reports whether the region has power.
func (r *Region) Up() bool { return r.kafka != nil }

// PowerLoss takes the region's power away: what its nodes had not synced to disk
// is lost, down to a random part; its Kafka keeps what it acknowledged, as a
// replicated cluster does, and cannot be reached until Start.
func (r *Region) PowerLoss() {
	for _, n := range r.Nodes {
		n.PowerLoss()
	}
	r.stop()
}

// DiskLoss is a loss of power after which the nodes' disks are empty.
func (r *Region) DiskLoss() {
	for _, n := range r.Nodes {
		n.DiskLoss()
	}
	r.stop()
}

// Restore brings the newest backup onto the empty disks of a region without
// power; Start then replays the rest.
func (r *Region) Restore() {
	t := r.world.t
	t.Helper()
	for _, n := range r.Nodes {
		cfg := n.config()
		if err := n.disk.MkdirAll(cfg.DataDir, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := pipeline.Restore(context.Background(), pipeline.RestoreJob{
			Config: cfg, Bucket: r.Bucket, FS: n.disk, Log: slog.New(slog.DiscardHandler), Dir: pipeline.StateDir(cfg),
		})
		if err != nil {
			t.Fatalf("%s: restore: %v", n, err)
		}
	}
}

// Rest has all regions without power for a while, which takes no time to simulate.
func (w *World) Rest(long time.Duration) {
	w.t.Helper()
	for _, r := range w.Regions {
		r.stop()
	}
	time.Sleep(long)
	for _, r := range w.Regions {
		r.Start()
	}
}

func (r *Region) stop() {
	for _, n := range r.Nodes {
		n.end()
	}
	if r.kafka != nil {
		r.sessions.close()
		r.client.Close()
		r.kafka.Close()
		r.kafka, r.client = nil, nil
	}
}

// Put writes a value through any of the nodes that run.
func (r *Region) Put(ctx context.Context, key, value string) error {
	for _, n := range r.Nodes {
		if n.Up() {
			return n.Put(ctx, key, value)
		}
	}
	return errors.New("no node runs")
}

// Produce writes records into the region's Kafka, as any client may.
func (r *Region) Produce(records ...*kgo.Record) {
	t := r.world.t
	t.Helper()
	client, err := r.dial(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
}

// dial makes a client of the region's Kafka that has nothing to do with its nodes.
func (r *Region) dial(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(opts, kgo.SeedBrokers(fmt.Sprintf("127.0.0.1:%d", r.port)), kgo.Dialer(r.world.net.virtual.DialContext))...)
}

// Node is the first node that runs, nil if none does.
func (r *Region) Node() *pipeline.Region {
	for _, n := range r.Nodes {
		if node := n.node; node != nil {
			return node.Region
		}
	}
	return nil
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *logBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text[max(0, len(b.text)-n):])
}
