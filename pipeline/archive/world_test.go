package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/archive"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	us         = events.Region("us-east-1")
	partitions = 2
	limit      = 4 * time.Second
	patience   = 10 * time.Minute // simulated
)

var streams = map[events.Stream]time.Duration{"session": limit, "secrets": time.Second}

// world is a Kafka cluster and a bucket, in a bubble.
type world struct {
	*testing.T
	net    kfake.VirtualNetwork
	kafka  *kfake.Cluster
	memory *objstore.Memory
	bucket *faults.Bucket
	rng    *rand.Rand
	client *kgo.Client
	number int // of the next record

	processes []*process

	batchBytesMost int64 // of processes that are started
}

func simulate(t *testing.T, seed uint64, test func(w *world)) {
	t.Helper()
	simulateBrokers(t, 1, seed, test)
}

// simulateBrokers is for tests in which no partition changes its leader: a client that reads others of the same broker asks
// it again at once, until it has heard of the new leader, and as long as somebody is busy no time passes here.
func simulateBrokers(t *testing.T, brokers int, seed uint64, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, batchBytesMost: 32 << 20, memory: objstore.NewMemory("bucket"), rng: rand.New(rand.NewPCG(seed, seed))}
		w.bucket = faults.NewSeed(w.memory, seed)
		var err error
		w.kafka, err = kfake.NewCluster(kfake.NumBrokers(brokers), kfake.Ports([]int{9001, 9002}[:brokers]...), kfake.ListenFn(w.net.Listen), kfake.SeedTopics(partitions, "session", "secrets"))
		if err != nil {
			t.Fatal(err)
		}
		defer w.kafka.Close()
		if w.client, err = kgo.NewClient(append(w.opts(), kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
			t.Fatal(err)
		}
		defer w.client.Close()
		defer func() {
			for _, p := range w.processes {
				p.end()
			}
		}()
		test(w)
		for _, v := range w.memory.Violations() {
			t.Errorf("bucket: %s", v)
		}
	})
}

func (w *world) opts() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers("127.0.0.1:9001"), kgo.Dialer(w.net.DialContext), kgo.MetadataMinAge(10 * time.Millisecond)}
}

// produce writes so many records.
func (w *world) produce(stream events.Stream, shard int32, n int) {
	w.Helper()
	for range n {
		r := &kgo.Record{
			Topic: string(stream), Partition: shard, Key: fmt.Appendf(nil, "key-%d", w.number%7), Value: fmt.Appendf(nil, "value-%d", w.number),
			Headers: []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, w.number)}, {Key: "empty", Value: []byte{}}, {Key: "null"}},
		}
		if w.number%5 == 0 {
			r.Value = nil
		}
		w.number++
		if err := w.client.ProduceSync(w.Context(), r).FirstErr(); err != nil {
			w.Fatal(err)
		}
	}
}

func logOf(stream events.Stream, shard int32) events.Log {
	return events.Log{Origin: events.FirstOrigin(us), Stream: stream, Partition: shard}
}

// read reads a log from an offset to its end.
func (w *world) read(l events.Log, from int64) (records []*kgo.Record) {
	w.Helper()
	topic := string(l.Stream)
	client, err := kgo.NewClient(append(w.opts(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {l.Partition: kgo.NewOffset().At(from)}}))...)
	if err != nil {
		w.Fatal(err)
	}
	defer client.Close()
	for next := from; next < w.end(l); {
		fetches := client.PollFetches(w.Context())
		if err := fetches.Err(); err != nil {
			w.Fatalf("read %s: %v", l, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
		})
	}
	return records
}

func (w *world) end(l events.Log) int64 {
	return w.kafka.PartitionInfo(string(l.Stream), l.Partition).HighWatermark
}

// cutOff deletes the records of a log below an offset.
func (w *world) cutOff(l events.Log, below int64) {
	w.Helper()
	var offsets kadm.Offsets
	offsets.AddOffset(string(l.Stream), l.Partition, below, -1)
	if _, err := kadm.NewClient(w.client).DeleteRecords(w.Context(), offsets); err != nil {
		w.Fatal(err)
	}
}

// node is what an archiver believes of its node.
type node struct {
	mu      sync.Mutex
	shards  map[int32]bool
	unsure  error
	touched archive.Touched
	marks   map[events.Log]map[int64]events.Mark
}

func (n *node) Archives(p int32) bool { n.mu.Lock(); defer n.mu.Unlock(); return n.shards[p] }
func (n *node) Sure() error           { n.mu.Lock(); defer n.mu.Unlock(); return n.unsure }
func (n *node) Epoch(int32) events.Epoch {
	return 7
}
func (n *node) Folded(context.Context, int32, events.Vector) {}
func (n *node) Mark(l events.Log, offset int64) (events.Mark, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m, ok := n.marks[l][offset]
	return m, ok
}
func (n *node) HasRead(context.Context, events.Log, int64, int64) (bool, error) { return false, nil }
func (n *node) Touched(int32) archive.Touched                                   { return n.touched }

// set says which shards are the node's.
func (n *node) set(shards ...int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shards = map[int32]bool{}
	for _, p := range shards {
		n.shards[p] = true
	}
}

// own is how offsets of a region's own logs are translated.
type own struct{}

func (own) Begin(_ context.Context, _ events.Log, next int64) (int64, error)   { return next, nil }
func (own) InTopic(_ context.Context, _ events.Log, next int64) (int64, error) { return next, nil }
func (own) InLog(_ context.Context, _ events.Log, offset int64) (int64, error) { return offset, nil }
func (own) ToLog(context.Context, events.Log, []*kgo.Record, int64) error      { return nil }

// process is a process with an archiver.
type process struct {
	*archive.Archiver
	node     *node
	registry *prometheus.Registry
	gate     *gate
	stop     context.CancelFunc
	done     chan struct{}
}

// gate is a process's way to the bucket; it closes when the process is killed.
type gate struct {
	objstore.Bucket
	mu     sync.Mutex
	closed bool
}

var errKilled = errors.New("the process is dead")

func (g *gate) Create(ctx context.Context, name string, body []byte) error {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed {
		return errKilled
	}
	return g.Bucket.Create(ctx, name, body)
}

// start starts a process that archives some shards.
func (w *world) start(shards ...int32) *process {
	n := &node{}
	n.set(shards...)
	return w.startNode(n)
}

func (w *world) startNode(n *node) *process {
	w.Helper()
	topics := map[string]config.Route{}
	for stream := range streams {
		topics[string(stream)] = config.Route{Origin: events.FirstOrigin(us), Stream: stream}
	}
	p := &process{node: n, registry: prometheus.NewRegistry(), gate: &gate{Bucket: w.bucket}, done: make(chan struct{})}
	cfg := archive.Config{
		Region: us, Partitions: partitions, Software: "test 1", Topics: topics, Sealer: seal.None(), Limits: streams, NewChain: digest.NewChain,
		BatchBytesMost: w.batchBytesMost,
	}
	var err error
	p.Archiver, err = archive.New(w.opts(), cfg, p.gate, n, own{}, archive.NewMetrics(p.registry), slog.New(slog.NewTextHandler(w.Output(), nil)).With("process", len(w.processes)))
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	w.processes = append(w.processes, p)
	go func() {
		defer close(p.done)
		p.Run(ctx)
	}()
	return p
}

// end stops a process as SIGTERM does.
func (p *process) end() {
	p.stop()
	<-p.done
}

// kill ends a process without another word to the bucket.
func (p *process) kill() {
	p.gate.mu.Lock()
	p.gate.closed = true
	p.gate.mu.Unlock()
	p.end()
}

// await waits until a condition holds.
func (w *world) await(what string, condition func() error) {
	w.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(50 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	w.Fatalf("not %s after %s: %v", what, patience, err)
}

// archived waits until every log is in the bucket up to its end, and checks that the
// archive is what the logs are.
func (w *world) archived() {
	w.Helper()
	for p := range int32(partitions) {
		for stream := range streams {
			w.await("archived", func() error { return w.isArchived(stream, p) })
		}
	}
	w.check()
}

// isArchived says whether a log is in the bucket up to its end.
func (w *world) isArchived(stream events.Stream, p int32) error {
	newest, err := segment.Newest(w.Context(), w.memory, us, p)
	if err != nil {
		return err
	}
	l, next := logOf(stream, p), int64(0)
	if newest != nil {
		end, _ := newest.End(l)
		next = end.Next
	}
	if end := w.end(l); next < end {
		return fmt.Errorf("%s ends at %d, its archive at %d", l, end, next)
	}
	if newest == nil {
		return nil
	}
	return w.isWhole(p, newest.After())
}

// isWhole says whether all can be read of the segments behind one: what is stored in part says of itself what it should have.
func (w *world) isWhole(shard int32, after int64) error {
	for s, err := range segment.Walk(w.Context(), w.memory, nil, us, shard, after) {
		if err != nil {
			return err
		}
		for _, part := range s.Parts {
			for _, err := range s.Records(part.Log, 0) {
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// check compares the whole archive with the logs.
func (w *world) check() {
	w.Helper()
	for p := range int32(partitions) {
		got := map[events.Log][]*kgo.Record{}
		ends := map[events.Log]events.Digest{}
		number := int64(0)
		for s, err := range segment.Walk(w.Context(), w.memory, nil, us, p, 0) {
			if err != nil {
				w.Fatal(err)
			}
			if s.After() != number {
				w.Fatalf("shard %d: segment %d follows %d, and stands behind %d", p, s.Number, s.After(), number)
			}
			number = s.Number
			for _, part := range s.Parts {
				if part.Gap != nil {
					w.Fatalf("segment %d has a gap: %+v", s.Number, part.Gap)
				}
				for r, err := range s.Records(part.Log, 0) {
					if err != nil {
						w.Fatal(err)
					}
					got[part.Log] = append(got[part.Log], r)
				}
				end, _ := s.End(part.Log)
				ends[part.Log] = end.Chain
			}
		}
		for stream := range streams {
			l := logOf(stream, p)
			want := w.read(l, 0)
			w.same(l, want, got[l])
			chain, sum := digest.NewChain(), events.Digest{}
			for _, r := range want {
				sum = chain(sum, r)
			}
			if len(want) > 0 && ends[l] != sum {
				w.Errorf("chain of the archive of %s is %s, want %s", l, ends[l], sum)
			}
		}
	}
}

func (w *world) same(l events.Log, want, got []*kgo.Record) {
	w.Helper()
	if len(got) != len(want) {
		w.Errorf("archive of %s has %d records, the log %d", l, len(got), len(want))
		return
	}
	for i := range want {
		if text(got[i]) != text(want[i]) || (got[i].Value == nil) != (want[i].Value == nil) {
			w.Errorf("archive of %s, record %d:\n%s, want\n%s", l, i, text(got[i]), text(want[i]))
			return
		}
	}
}

func text(r *kgo.Record) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %d %q %q", r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value)
	for _, h := range r.Headers {
		fmt.Fprintf(&b, " %s=%q/%t", h.Key, h.Value, h.Value == nil)
	}
	return b.String()
}

// counter reads a metric.
func (p *process) counter(t *testing.T, name string) float64 {
	t.Helper()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// says waits until a process tells of a problem.
func (w *world) says(p *process, parts ...string) {
	w.Helper()
	w.await("told", func() error {
		all := strings.Join(p.Problems(), "\n")
		if slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(all, part) }) {
			return fmt.Errorf("it says %q", all)
		}
		return nil
	})
}

// recreate deletes a topic and makes it anew.
func (w *world) recreate(topic string) {
	w.Helper()
	admin := kadm.NewClient(w.client)
	if _, err := admin.DeleteTopic(w.Context(), topic); err != nil {
		w.Fatal(err)
	}
	w.client.PurgeTopicsFromClient(topic)
	if _, err := admin.CreateTopic(w.Context(), partitions, 1, nil, topic); err != nil {
		w.Fatal(err)
	}
}
