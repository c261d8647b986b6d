package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// long leaves a test to those who have minutes: it takes seconds, most of them for days of
// simulated time, or for a crash at every step. It runs beside others, each in a world of its own: one alone
// does not keep two processors busy.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
}

const (
	us = events.Region("us-east-1")
	eu = events.Region("eu-central-1")

	partitions = 3
	dataDir    = "/data"
	patience   = 5 * time.Minute // simulated
)

// world is some regions in one bubble: Kafka clusters behind a virtual network,
// nodes on disks in memory. A test says what is different before it starts a
// node. A goroutine that outlives the test fails it: the bubble is not empty.
type world struct {
	*testing.T
	net     kfake.VirtualNetwork
	regions []*region
}

// region is one region. Its fields may be changed until its node is started.
type region struct {
	*pipeline.Region // the node; nil: it does not run

	w        *world
	cfg      *config.Config
	disk     vfs.FS
	bucket   objstore.Bucket
	copies   map[string]objstore.Bucket
	opts     []kgo.Opt // of its Kafka clients
	dialOpts []kgo.Opt // of the test's own
	log      *logBuffer
	registry *prometheus.Registry // of the node that runs
	dir      string               // of Kafka's data
	port     int
	kafka    *kfake.Cluster

	kafkaOpts []kfake.Opt // of the cluster, besides those that all have
}

// simulate runs a test in a bubble, with a cluster up for each region and no
// node running.
func simulate(t *testing.T, test func(w *world), names ...events.Region) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t}
		for i, name := range names {
			w.regions = append(w.regions, &region{
				w: w, disk: vfs.NewCrashableMem(), bucket: objstore.NewMemory("bucket-" + name.String()),
				opts: []kgo.Opt{kgo.Dialer(w.net.DialContext), kgo.DisableClientMetrics()}, log: &logBuffer{},
				dir: filepath.Join(dir, name.String()), port: 9001 + i,
			})
		}
		for i, r := range w.regions {
			r.cfg = w.config(names, i)
			r.up()
		}
		defer w.close()
		test(w)
	})
}

// one runs a test with a single region.
func one(t *testing.T, test func(r *region)) {
	t.Helper()
	simulate(t, func(w *world) { test(w.regions[0]) }, us)
}

// two runs a test with two regions.
func two(t *testing.T, test func(a, b *region)) {
	t.Helper()
	simulate(t, func(w *world) { test(w.regions[0], w.regions[1]) }, us, eu)
}

func (w *world) close() {
	for _, r := range w.regions {
		r.stop()
		r.down()
	}
}

func (w *world) config(names []events.Region, own int) *config.Config {
	c := config.Default()
	c.Region, c.DataDir, c.Partitions = names[own], dataDir, partitions
	c.Streams = map[events.Stream]config.Stream{"session": {Topic: "session", Merge: "lww"}, "config": {Topic: "config", Merge: "lww"}}
	c.Limits.MinFreeBytes = 0 // memory has no free space to ask for
	c.Backup = sealedBackups()
	c.Regions = map[events.Region]config.Region{}
	for i, name := range names {
		c.Regions[name] = config.Region{Incarnation: 1, Kafka: config.Kafka{Seeds: []string{w.regions[i].address()}}}
	}
	return &c
}

// keys are those that backups are sealed for: operating and recovery.
var keys = func() (keys [2]struct{ identity, recipient string }) {
	for i := range keys {
		var err error
		if keys[i].identity, keys[i].recipient, err = seal.Generate(false, time.Unix(1, 0)); err != nil {
			panic(err)
		}
	}
	return keys
}()

// sealedBackups is a configuration whose node has the operating key.
func sealedBackups() *config.Backup {
	return &config.Backup{
		Bucket: "bucket", Encryption: "age", Recipients: []string{keys[0].recipient, keys[1].recipient},
		IdentityEnv: "IDENTITY", Identity: config.Secret(keys[0].identity), KeepLast: 1,
	}
}

func (r *region) address() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// up starts the region's Kafka on the data that it has.
func (r *region) up() {
	r.w.Helper()
	kafka, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.Ports(r.port), kfake.ListenFn(r.w.net.Listen),
		kfake.DataDir(r.dir), kfake.ClusterID(r.cfg.Region.String()),
	}, r.kafkaOpts...)...)
	if err != nil {
		r.w.Fatalf("%s: %v", r.cfg.Region, err)
	}
	r.kafka = kafka
}

// down stops the region's Kafka, if it is up.
func (r *region) down() {
	if r.kafka != nil {
		r.kafka.Close()
		r.kafka = nil
	}
}

func (r *region) parts() pipeline.Parts {
	r.registry = prometheus.NewRegistry()
	return pipeline.Parts{
		FS: r.disk, Bucket: r.bucket, Copies: r.copies, Registry: r.registry,
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), KafkaOpts: r.opts,
	}
}

// tryStart starts the node; if that fails it does not run.
func (r *region) tryStart() error { return r.startIn(r.w.Context()) }

func (r *region) startIn(ctx context.Context) error {
	node := pipeline.NewRegion(r.cfg, r.parts())
	if err := node.Start(ctx); err != nil {
		return err
	}
	r.Region = node
	return nil
}

// start starts the node and waits until it serves.
func (r *region) start() {
	r.w.Helper()
	if err := r.tryStart(); err != nil {
		r.w.Fatalf("%s: %v", r.cfg.Region, err)
	}
	r.await("ready", func() error { return r.Ready(r.w.Context()) })
}

func (r *region) stop() {
	r.w.Helper()
	if r.Region == nil {
		return
	}
	if err := r.Stop(); err != nil {
		r.w.Errorf("%s: stop: %v", r.cfg.Region, err)
	}
	r.Region = nil
}

// await waits, in simulated time, until the condition holds.
func (r *region) await(what string, condition func() error) {
	r.w.Helper()
	r.awaitEvery(50*time.Millisecond, what, condition)
}

func (r *region) awaitEvery(pause time.Duration, what string, condition func() error) {
	r.w.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(pause) {
		if err = condition(); err == nil {
			return
		}
	}
	r.w.Fatalf("%s: not %s after %s: %v", r.cfg.Region, what, patience, err)
}

// put writes a value that is acknowledged.
func (r *region) put(key, value string) events.Position {
	r.w.Helper()
	res, err := r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value)})
	if err != nil {
		r.w.Fatalf("put %s: %v", key, err)
	}
	return res.Position
}

// has waits until the node has the value.
func (r *region) has(key, value string) {
	r.w.Helper()
	r.await(fmt.Sprintf("%.20q = %.20q", key, value), func() error {
		e, err := r.Get(r.w.Context(), api.GetParams{Stream: "session", Key: []byte(key)})
		switch {
		case events.KindOf(err) == events.KindNotFound:
			return errors.New("it is not there")
		case err == nil && string(e.Value) != value:
			return fmt.Errorf("it is %.20q", e.Value)
		}
		return err
	})
}

func (r *region) status() *api.Status {
	r.w.Helper()
	s, err := r.Status(r.w.Context())
	if err != nil {
		r.w.Fatalf("%s: status: %v", r.cfg.Region, err)
	}
	return s
}

// troubled waits until the node is not ready for a reason that has all parts,
// and says so in its status too.
func (r *region) troubled(parts ...string) {
	r.w.Helper()
	r.await("not ready", func() error {
		err := r.Ready(r.w.Context())
		if err == nil {
			return errors.New("it is ready")
		}
		s := r.status()
		for _, text := range []string{err.Error(), strings.Join(s.Problems, "\n")} {
			for _, part := range parts {
				if !strings.Contains(text, part) {
					return fmt.Errorf("%q does not say %q", text, part)
				}
			}
		}
		if s.Ready {
			return errors.New("status says that it is ready")
		}
		return nil
	})
}

// dial makes a client of the region's Kafka that has nothing to do with the node.
func (r *region) dial(opts ...kgo.Opt) *kgo.Client {
	r.w.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(r.address()), kgo.Dialer(r.w.net.DialContext),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10 * time.Millisecond),
	}, append(opts, r.dialOpts...)...)...)
	if err != nil {
		r.w.Fatalf("client of %s: %v", r.cfg.Region, err)
	}
	return client
}

// produce writes records as any Kafka client may.
func (r *region) produce(records ...*kgo.Record) {
	r.w.Helper()
	client := r.dial()
	defer client.Close()
	if err := client.ProduceSync(r.w.Context(), records...).FirstErr(); err != nil {
		r.w.Fatalf("produce in %s: %v", r.cfg.Region, err)
	}
}

// read reads a partition of a topic from the beginning to the end.
func (r *region) read(topic string, partition int32) (records []*kgo.Record) {
	r.w.Helper()
	client := r.dial(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	for end := r.end(topic, partition); int64(len(records)) < end; {
		fetches := client.PollFetches(r.w.Context())
		if err := fetches.Err(); err != nil {
			r.w.Fatalf("read %s of %s: %v", topic, r.cfg.Region, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func (r *region) end(topic string, partition int32) int64 {
	r.w.Helper()
	return r.kafka.PartitionInfo(topic, partition).HighWatermark
}

// wantKind checks an error's kind and parts of its text.
func wantKind(t testing.TB, err error, kind events.Kind, parts ...string) {
	t.Helper()
	if got := events.KindOf(err); got != kind {
		t.Errorf("error %v is of kind %q, want %q", err, got, kind)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// within fails the test if do takes longer, in simulated time.
func (r *region) within(limit time.Duration, what string, do func()) {
	r.w.Helper()
	begun := time.Now()
	do()
	took := time.Since(begun)
	r.w.Logf("%s took %s", what, took)
	if took > limit {
		r.w.Errorf("%s took %s, want at most %s", what, took, limit)
	}
}
