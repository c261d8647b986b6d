package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// partitions of every stream in a simulated world.
const partitions = 3

// firstPort of the virtual network's Kafka brokers.
const firstPort = 9001

// World is a few regions that know each other.
type World struct {
	Rand    *rand.Rand
	Regions []*Region

	t      testing.TB
	net    kfake.VirtualNetwork
	ledger ledger
}

// Region is one region of a world.
type Region struct {
	Name   events.Region
	Bucket *objstore.Memory

	world   *World
	port    int
	dir     string     // of Kafka's data, which outlives a loss of power
	disk    *vfs.MemFS // of the node
	node    *pipeline.Region
	metrics *prometheus.Registry
	kafka   *kfake.Cluster
}

// New makes a world of the named regions, all of them up and ready. It must be
// called inside a synctest bubble; everything is stopped when the test ends.
func New(t testing.TB, seed uint64, names ...events.Region) *World {
	t.Helper()
	w := &World{Rand: rand.New(rand.NewPCG(seed, seed)), t: t}
	for i, name := range names {
		w.Regions = append(w.Regions, &Region{
			Name: name, Bucket: objstore.NewMemory("bucket-" + name.String()),
			world: w, port: firstPort + i, dir: filepath.Join(t.TempDir(), name.String()), disk: vfs.NewCrashableMem(),
		})
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
}

func (r *Region) config() *config.Config {
	c := config.Default()
	c.Region, c.DataDir, c.Partitions = r.Name, "/data", partitions
	c.Streams = map[events.Stream]config.Stream{"session": {Topic: "session", Merge: "lww"}}
	c.Limits.MinFreeBytes = 0 // memory has no free space to ask for
	c.Backup = &config.Backup{Bucket: "bucket", Encryption: "none", KeepLast: 1}
	c.Regions = map[events.Region]config.Region{}
	for _, o := range r.world.Regions {
		c.Regions[o.Name] = config.Region{
			Incarnation: 1,
			Kafka:       config.Kafka{Seeds: []string{fmt.Sprintf("127.0.0.1:%d", o.port)}},
		}
	}
	return &c
}

// Start brings the region up on what its disks hold and waits until it serves.
func (r *Region) Start() {
	t := r.world.t
	t.Helper()
	kafka, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.Ports(r.port), kfake.ListenFn(r.world.net.Listen),
		kfake.DataDir(r.dir), kfake.ClusterID(r.Name.String()),
	)
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	r.kafka, r.metrics = kafka, prometheus.NewRegistry()
	r.node = pipeline.NewRegion(r.config(), pipeline.Parts{
		FS: r.disk, Bucket: r.Bucket, Registry: r.metrics, Log: slog.New(slog.DiscardHandler),
		KafkaOpts: []kgo.Opt{kgo.Dialer(r.world.net.DialContext)},
	})
	if err := r.node.Start(context.Background()); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	r.await("ready", func() error { return r.node.Ready(context.Background()) })
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
	t.Fatalf("%s is not %s after %s: %v", r.Name, what, patience, err)
}

// Up reports whether the region has power.
func (r *Region) Up() bool { return r.node != nil }

// PowerLoss takes the region's power away: what its node had not synced to disk
// is lost, down to a random part; its Kafka keeps what it acknowledged, as a
// replicated cluster does, and cannot be reached until Start.
func (r *Region) PowerLoss() {
	rng := r.world.Rand
	crashed := r.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	r.stop() // what it still does goes to the old disk, which is forgotten
	r.disk = crashed
}

// DiskLoss is a loss of power after which the node's disk is empty.
func (r *Region) DiskLoss() {
	r.stop()
	r.disk = vfs.NewCrashableMem()
}

// Restore brings the newest backup onto the empty disk of a region without
// power; Start then replays the rest.
func (r *Region) Restore() {
	t := r.world.t
	t.Helper()
	cfg := r.config()
	if err := r.disk.MkdirAll(cfg.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := pipeline.Restore(context.Background(), pipeline.RestoreJob{
		Config: cfg, Bucket: r.Bucket, FS: r.disk, Log: slog.New(slog.DiscardHandler), Dir: pipeline.StateDir(cfg),
	})
	if err != nil {
		t.Fatalf("%s: restore: %v", r.Name, err)
	}
}

func (r *Region) stop() {
	if r.node == nil {
		return
	}
	r.kafka.Close()
	if err := r.node.Stop(); err != nil {
		r.world.t.Errorf("%s: stop: %v", r.Name, err)
	}
	r.node, r.kafka = nil, nil
}

// Put writes a value through the region's node and notes in the ledger what was
// acknowledged. An error means that it may or may not have been written.
func (r *Region) Put(ctx context.Context, key, value string) error {
	res, err := r.node.Put(ctx, api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value)})
	if err != nil {
		return err
	}
	r.world.ledger.add(res.Position, key, value)
	return nil
}

// Node is the running node, nil if the region has no power.
func (r *Region) Node() *pipeline.Region { return r.node }
