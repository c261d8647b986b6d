package replicator_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

// What every test uses unless it says otherwise.
const (
	topic      = "session"
	partitions = 3
	patience   = 5 * time.Minute // simulated
)

var (
	us = events.Region("us")
	eu = events.Region("eu")
	ap = events.Region("ap")
)

// world is some regions' Kafka clusters behind one virtual network, in one
// bubble. Its methods fail the test by themselves, so that tests read as a story.
type world struct {
	*testing.T
	brokers  int                   // of each cluster
	net      *kfake.VirtualNetwork // nil: loopback
	clusters map[events.Region]*cluster
	stops    []func()
}

// cluster is one region's Kafka. Its data outlive down and up.
type cluster struct {
	*kfake.Cluster
	w      *world
	region events.Region
	dir    string
	ports  []int
	gate   *gate       // between the links and the cluster
	client *kgo.Client // for whatever the test does by itself

	journal map[spot]*kgo.Record // all committed records that were ever in logs that are compacted
}

// spot is where a record is in a cluster.
type spot struct {
	topic     string
	partition int32
	offset    int64
}

// simulate runs a test in a bubble, with one cluster for each region that has
// its log. Mirrors are the links' business.
//
// Clusters have one broker unless the test needs leaders to move: a client that
// waits for a producer id holds a lock meanwhile, and a second sender that waits
// for that lock keeps a bubble's time from passing.
func simulate(t *testing.T, brokers int, regions []events.Region, test func(w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, brokers: brokers, net: &kfake.VirtualNetwork{}, clusters: map[events.Region]*cluster{}}
		w.run(regions, dir, test)
	})
}

func (w *world) run(regions []events.Region, dir string, test func(w *world)) {
	w.Helper()
	defer w.close()
	for i, r := range regions {
		c := &cluster{w: w, region: r, dir: filepath.Join(dir, r.String()), gate: newGate(w.dial), journal: map[spot]*kgo.Record{}}
		for b := range w.brokers {
			c.ports = append(c.ports, 9000+10*i+b)
		}
		w.clusters[r] = c
		c.up()
		c.create(topic)
	}
	test(w)
}

// two runs a test with a source and a destination.
func two(t *testing.T, test func(w *world, source, dest *cluster)) {
	t.Helper()
	simulate(t, 1, []events.Region{us, eu}, func(w *world) { test(w, w.clusters[us], w.clusters[eu]) })
}

// dial reaches the brokers of any cluster.
func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if w.net == nil {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return w.net.DialContext(ctx, network, address)
}

func mirror(o events.Region, topic string) string { return events.FirstOrigin(o).MirrorTopic(topic) }

// close stops everything, last things first: a bubble must be empty at its end.
func (w *world) close() {
	for _, stop := range slices.Backward(w.stops) {
		stop()
	}
	for _, c := range w.clusters {
		c.down()
	}
	if w.net != nil {
		time.Sleep(time.Minute) // answers on their way
		synctest.Wait()
	}
}

// await waits, in simulated time, until the condition holds.
func (w *world) await(what string, condition func() error) {
	w.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(50 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	w.Fatalf("not after %s: %s: %v", patience, what, err)
}

// up starts the cluster on the data that it has.
func (c *cluster) up() {
	c.w.Helper()
	opts := []kfake.Opt{
		kfake.NumBrokers(c.w.brokers), kfake.ClusterID(c.region.String()),
		kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": "2000000000"}), // logs are compacted when the test says so
	}
	if c.w.net != nil {
		opts = append(opts, kfake.Ports(c.ports...), kfake.ListenFn(c.w.net.Listen), kfake.DataDir(c.dir))
	}
	kafka, err := kfake.NewCluster(opts...)
	if err != nil {
		c.w.Fatalf("cluster of %s: %v", c.region, err)
	}
	c.Cluster = kafka
	c.client = c.dial()
}

// down stops the cluster; nothing to do if it is.
func (c *cluster) down() {
	if c.Cluster == nil {
		return
	}
	c.client.Close()
	c.Cluster.Close()
	c.Cluster = nil
}

// opts are the options of a link's clients of the cluster.
func (c *cluster) opts() []kgo.Opt { return c.through(c.gate) }

// through is opts by way of a gate.
func (c *cluster) through(g *gate) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(c.addresses()...), kgo.Dialer(g.Dial)}
}

func (c *cluster) addresses() (addresses []string) {
	if c.w.net == nil {
		return c.ListenAddrs()
	}
	for _, p := range c.ports {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", p))
	}
	return addresses
}

// dial makes a client of the test's own, which no gate concerns.
func (c *cluster) dial(more ...kgo.Opt) *kgo.Client {
	c.w.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.addresses()...), kgo.Dialer(c.w.dial),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.WithDecompressor(decompressor{kgo.DefaultDecompressor()}),
	}, more...)...)
	if err != nil {
		c.w.Fatalf("client of %s: %v", c.region, err)
	}
	return client
}

// wipe deletes all that a cluster has; it must be down.
func (c *cluster) wipe() {
	c.w.Helper()
	c.do(os.RemoveAll(c.dir))
}

// create makes a topic, with pairs of a config's name and value.
func (c *cluster) create(topic string, configs ...string) {
	c.w.Helper()
	m := map[string]string{}
	for pair := range slices.Chunk(configs, 2) {
		m[pair[0]] = pair[1]
	}
	if err := c.CreateTopic(topic, partitions, m); err != nil {
		c.w.Fatalf("create %s in %s: %v", topic, c.region, err)
	}
}

// do is for what cannot fail unless the test is wrong.
func (c *cluster) do(err error) {
	c.w.Helper()
	if err != nil {
		c.w.Fatalf("%s: %v", c.region, err)
	}
}

// runningLink is a link under test and the means to stop it.
type runningLink struct {
	*replicator.Link
	source, dest *cluster

	toSource, toDest *gate // the clusters' own, or the link's

	cfg      replicator.Config
	registry *prometheus.Registry
	w        *world
	cancel   context.CancelFunc
	ended    chan struct{}
}

// link starts a link of the topics (by default the usual one).
func (w *world) link(from, to events.Region, topics ...string) *runningLink {
	w.Helper()
	if len(topics) == 0 {
		topics = []string{topic}
	}
	return w.linkOf(from, to, replicator.Config{Topics: patterns(w.T, topics...)})
}

// linkOf starts a link with a configuration, to which its ends are added.
func (w *world) linkOf(from, to events.Region, cfg replicator.Config) *runningLink {
	w.Helper()
	cfg.Origin, cfg.Destination = events.FirstOrigin(from), to
	l := &runningLink{w: w, source: w.clusters[from], dest: w.clusters[to], cfg: cfg}
	l.toSource, l.toDest = l.source.gate, l.dest.gate
	w.stops = append(w.stops, func() { l.stop() })
	l.remake()
	return l
}

// remake starts the link anew, as another process would.
func (l *runningLink) remake() {
	if l.running() {
		l.stop()
	}
	l.registry = prometheus.NewRegistry()
	l.Link = replicator.NewLink(l.source.through(l.toSource), l.dest.through(l.toDest), l.cfg, replicator.NewMetrics(l.registry), slog.New(slog.DiscardHandler))
	l.start()
}

func patterns(t *testing.T, names ...string) follow.Patterns {
	t.Helper()
	p, err := follow.NewPatterns(names, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start runs the link, if it does not run.
func (l *runningLink) start() {
	if l.running() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	l.cancel, l.ended = cancel, ended
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
}

func (l *runningLink) running() bool {
	if l.ended == nil {
		return false
	}
	select {
	case <-l.ended:
		return false
	default:
		return true
	}
}

// stop ends the link and checks that it ends soon.
func (l *runningLink) stop() {
	l.w.Helper()
	l.cancel()
	select {
	case <-l.ended:
	case <-time.After(time.Minute):
		l.w.Errorf("the link does not end")
		for _, c := range l.w.clusters {
			c.gate.Open()
			if c.Cluster == nil {
				c.up()
			}
		}
		<-l.ended
	}
}

// awaitRunning waits until the link says that it runs.
func (l *runningLink) awaitRunning() {
	l.w.Helper()
	l.w.await("link runs", func() error {
		if s := l.Status(); !s.Running {
			return fmt.Errorf("status: %+v", s)
		}
		return nil
	})
}

// awaitStopped waits until n partitions are stopped and returns why.
func (l *runningLink) awaitStopped(n int) []string {
	l.w.Helper()
	l.w.await(fmt.Sprintf("%d partitions stopped", n), func() error {
		if s := l.Status(); len(s.Stopped) < n {
			return fmt.Errorf("status: %+v", s)
		}
		return nil
	})
	if s := l.Status(); len(s.Stopped) > n {
		l.w.Fatalf("stopped: %q, want %d", s.Stopped, n)
	}
	return l.Status().Stopped
}
