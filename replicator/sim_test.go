package replicator_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
)

var countFlag = flag.Int("link.n", 24, "how many seeds are simulated")

const (
	compacted = "compacted"

	// Of a link's memory. kfake leaves out which transactions are aborted where it
	// cuts an answer at the size of the whole, so the small one is for logs without.
	smallWindow = 3 << 20
	largeWindow = 64 << 20
)

// sim is three regions with links between them, in which anything happens that
// must not matter.
type sim struct {
	*world
	rng     *rand.Rand
	regions []events.Region
	links   []*runningLink
	gates   []*gate // of instances that run besides the links, by mistake
	written int
	window  int64
	codecs  []kgo.CompressionCodec
}

var everyCodec = []kgo.CompressionCodec{
	kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
}

// TestSim runs a random history for each seed. At its end every mirror is its log's
// committed records, all of them, at the offsets that the mapping says.
func TestSim(t *testing.T) {
	first, n := uint64(1), *countFlag
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	for seed := first; seed < first+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("replay: go test ./replicator -run 'TestSim$' -link.seed %d -link.rounds %d", seed, *roundsFlag)
				}
			}()
			regions := []events.Region{us, eu, ap}
			rng := rand.New(rand.NewPCG(seed, 1))
			second := seed%2 == 1
			simulate(t, 1+rng.IntN(2), regions, func(w *world) {
				s := &sim{world: w, rng: rng, regions: regions, codecs: everyCodec, window: largeWindow}
				if seed%3 == 0 {
					s.window = smallWindow
				}
				s.run(second)
			})
		})
	}
}

// run lets a history happen, with a second instance of every link if so wanted.
func (s *sim) run(second bool) {
	for _, r := range s.regions {
		c := s.clusters[r]
		c.create(compacted, "cleanup.policy", "compact", "segment.bytes", "3000")
		for p := range int32(partitions) { // or compaction would move the log's start, as no real one does
			once := &kgo.Record{Topic: compacted, Partition: p, Key: []byte("written once")}
			c.produce(once)
			c.note(once)
		}
	}
	for _, ends := range [][2]events.Region{{us, eu}, {eu, us}, {us, ap}, {ap, eu}} {
		cfg := replicator.Config{Topics: patterns(s.T, topic, compacted), WindowBytes: s.window}
		s.links = append(s.links, s.linkOf(ends[0], ends[1], cfg))
		if second {
			l := s.instance(s.clusters[ends[0]], s.clusters[ends[1]], cfg)
			s.links = append(s.links, l)
			s.gates = append(s.gates, l.toSource, l.toDest)
		}
	}
	for range *roundsFlag {
		if len(s.gates) > 0 {
			s.hinder()
		}
		s.event()
		s.remember()
		time.Sleep(time.Duration(s.rng.Int64N(int64(time.Millisecond << s.rng.IntN(13)))))
		s.remember()
	}
	for _, c := range s.clusters {
		c.gate.Open()
		c.gate.Slow(0)
	}
	for _, g := range s.gates {
		g.Open()
		g.Slow(0)
	}
	for _, l := range s.links {
		l.start()
	}
	for _, l := range s.links {
		s.settled(l)
	}
}

// settled is the checker.
func (s *sim) settled(l *runningLink) {
	s.Helper()
	for _, name := range []string{topic, compacted} {
		l.awaitView(name)
	}
	l.awaitRunning()
	l.awaitNoLag()
	d := l.Details()
	if len(d.Stopped) > 0 {
		s.Fatalf("stopped: %q", d.Stopped)
	}
	s.await("memory is given back", func() error {
		if n := l.Details().Memory; n != 0 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	for _, p := range d.Partitions {
		for from := int64(0); ; {
			var v *replicator.Verified
			s.await("verify", func() (err error) { // a fault may be left
				v, err = l.Verify(context.Background(), p.Topic, p.Partition, from)
				return err
			})
			if v.Difference != nil || v.Next < v.End && v.Next <= from {
				s.Fatalf("verify topic %s, partition %d from %d: %+v, %+v", p.Topic, p.Partition, from, v, v.Difference)
			}
			if from = v.Next; from >= v.End {
				break
			}
		}
	}
}

// remember checks what must hold at any time.
func (s *sim) remember() {
	s.Helper()
	for _, l := range s.links {
		d := l.Details()
		// One answer that was reserved for and is held besides, and what one
		// batch may be larger, for each broker.
		if most := s.window + int64(s.brokers)*(s.window+2<<20); d.Memory < 0 || d.Memory > most {
			s.Fatalf("link %s→%s has %d bytes in memory, the window is %d", d.Origin, d.Destination, d.Memory, s.window)
		}
		if len(d.Stopped) > 0 {
			s.Fatalf("stopped: %q", d.Stopped)
		}
	}
}

func (s *sim) any() *cluster      { return s.clusters[s.regions[s.rng.IntN(len(s.regions))]] }
func (s *sim) link() *runningLink { return s.links[s.rng.IntN(len(s.links))] }

// event does one thing.
func (s *sim) event() {
	c := s.any()
	switch s.rng.IntN(16) {
	case 0:
		c.gate.Cut()
	case 1:
		c.gate.Hold()
	case 2, 3:
		c.gate.Open()
	case 4:
		c.gate.Slow(time.Duration(s.rng.Int64N(int64(30 * time.Millisecond))))
	case 5:
		c.down()
		if s.rng.IntN(2) == 0 {
			time.Sleep(time.Duration(s.rng.Int64N(int64(20 * time.Second))))
		}
		c.up()
	case 6:
		s.fault(c)
	case 7:
		s.move(c)
	case 8:
		l := s.link()
		if l.running() {
			l.stop()
		} else {
			l.remake()
		}
	case 9:
		s.link().remake()
	case 10:
		s.expire(c)
	case 11:
		c.Compact()
	case 12:
		if n := len(c.PartitionInfos(topic)); n < partitions+2 && s.rng.IntN(3) == 0 {
			c.grow(topic, n+1)
		}
	}
	for range s.rng.IntN(3) {
		s.produce(s.any())
	}
}

// hinder holds one of the second instances up, or lets it go on.
func (s *sim) hinder() {
	g := s.gates[s.rng.IntN(len(s.gates))]
	switch s.rng.IntN(8) {
	case 0:
		g.Cut()
	case 1:
		g.Hold()
	case 2, 3, 4:
		g.Stall()
	case 5, 6:
		g.Open()
	case 7:
		g.Slow(time.Duration(s.rng.Int64N(int64(30 * time.Millisecond))))
	}
}

// fault makes a few of the links' requests fail.
func (s *sim) fault(c *cluster) {
	errs := []*kerr.Error{
		kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.KafkaStorageError,
		kerr.OutOfOrderSequenceNumber, kerr.NotEnoughReplicas,
	}
	count := 1 + s.rng.IntN(4)
	o := s.any().region
	switch s.rng.IntN(3) {
	case 0:
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: mirror(o, topic), Err: errs[s.rng.IntN(len(errs))], Count: count})
	case 1:
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: errs[2+s.rng.IntN(3)], Count: count, When: func(r kmsg.Request) bool {
			return r.(*kmsg.FetchRequest).MaxWaitMillis < 1000 // the checker's client has more patience
		}})
	case 2:
		name := topic
		if s.rng.IntN(2) == 0 {
			name = mirror(o, topic)
		}
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: name, Err: kerr.UnknownServerError, Count: count})
	}
}

// move gives partitions other leaders.
func (s *sim) move(c *cluster) {
	for _, name := range c.topics() {
		for p := range int32(len(c.PartitionInfos(name))) {
			if s.rng.IntN(2) == 0 {
				c.do(c.MoveTopicPartition(name, p, s.rng.Int32N(int32(s.brokers))))
			}
		}
	}
}

// expire deletes records of a log that all of its mirrors have.
func (s *sim) expire(c *cluster) {
	p := s.rng.Int32N(partitions)
	least := int64(-1)
	for _, l := range s.links {
		if l.source != c {
			continue
		}
		if l.dest.PartitionInfo(mirror(c.region, topic), p) == nil {
			return
		}
		// What a link made anew knows of: markers after the last record are noted
		// now and then only.
		next, ok := mapOf(c, l.dest, topic, p).Source(l.dest.end(mirror(c.region, topic), p))
		if !ok {
			return
		}
		if least < 0 || next < least {
			least = next
		}
	}
	if start := c.PartitionInfo(topic, p).LogStartOffset; least > start {
		c.do(c.DeleteRecords(topic, p, start+1+s.rng.Int64N(least-start)))
	}
}

// produce writes some records, in one of the ways in which that is done.
func (s *sim) produce(c *cluster) {
	if s.rng.IntN(4) == 0 {
		s.produceTo(c, compacted, s.rng.Int32N(partitions))
		return
	}
	s.produceTo(c, topic, s.rng.Int32N(int32(len(c.PartitionInfos(topic)))))
}

func (s *sim) produceTo(c *cluster, name string, p int32) {
	codec := s.codecs[s.rng.IntN(len(s.codecs))]
	if name == compacted {
		codec = s.codecs[s.rng.IntN(4)] // clusters compact, and their decoder of zstd is the client's: see decompressor
	}
	opts := []kgo.Opt{kgo.ProducerBatchCompression(codec)}
	way := s.rng.IntN(4)
	if s.window == smallWindow {
		way = 3 * s.rng.IntN(2)
	}
	switch way {
	case 0:
		opts = append(opts, kgo.DisableIdempotentWrite())
	case 1, 2:
		opts = append(opts, kgo.TransactionalID(fmt.Sprint("producer ", s.rng.IntN(2))))
	}
	client := c.dial(opts...)
	defer client.Close()
	ctx := context.Background()
	if way == 1 || way == 2 {
		c.do(client.BeginTransaction())
	}
	var written []*kgo.Record
	write := func(client *kgo.Client, batch []*kgo.Record) {
		c.do(client.ProduceSync(ctx, batch...).FirstErr())
		if client == c.client || way != 2 {
			written = append(written, batch...)
		}
	}
	for range 1 + s.rng.IntN(4) {
		batch := s.records(name, p)
		write(client, batch)
		if name == compacted && s.rng.IntN(4) == 0 { // as a producer does that has not heard of it
			write(client, repeated(batch))
		}
		if s.rng.IntN(4) == 0 {
			write(c.client, s.records(name, p))
		}
	}
	if way == 1 || way == 2 {
		c.do(client.EndTransaction(ctx, kgo.TransactionEndTry(way == 1)))
	}
	if name == compacted {
		c.note(written...)
	}
}

// repeated is the same records once more.
func repeated(batch []*kgo.Record) (copies []*kgo.Record) {
	for _, r := range batch {
		copies = append(copies, &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp})
	}
	return copies
}

func (s *sim) records(name string, p int32) (list []*kgo.Record) {
	n, size := 1+s.rng.IntN(8), 20
	switch s.rng.IntN(12) {
	case 0:
		size = 40_000
	case 1:
		n, size = 1, 900_000
	case 2:
		n = 200
	}
	for range n {
		s.written++
		r := record(p, s.written)
		r.Topic, r.Key = name, fmt.Appendf(nil, "key %d", s.rng.IntN(20))
		r.Value = append(r.Value, bytes.Repeat([]byte{byte('a' + s.written%26)}, s.rng.IntN(size))...)
		list = append(list, r)
	}
	return list
}
