package replicator_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
)

// Records whose parts are easily lost on the way.
var oddRecords = []struct {
	name   string
	record kgo.Record
}{
	{"no key", kgo.Record{Value: []byte("v")}},
	{"empty key", kgo.Record{Key: []byte{}, Value: []byte("v")}},
	{"tombstone", kgo.Record{Key: []byte("k")}},
	{"empty value", kgo.Record{Key: []byte("k"), Value: []byte{}}},
	{"nothing at all", kgo.Record{}},
	{"headers in order, one twice", kgo.Record{Headers: []kgo.RecordHeader{
		{Key: "b", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "b", Value: []byte("3")},
	}}},
	{"header without value", kgo.Record{Headers: []kgo.RecordHeader{{Key: "h"}}}},
	{"header with empty value", kgo.Record{Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{}}}}},
	{"header without name", kgo.Record{Headers: []kgo.RecordHeader{{Value: []byte("v")}}}},
	{"bytes that are no text", kgo.Record{Key: []byte{0, 255, 10}, Value: []byte{0xc3, 0x28}, Headers: []kgo.RecordHeader{{Key: "\xff", Value: []byte{0}}}}},
	{"timestamp zero", kgo.Record{Timestamp: time.UnixMilli(0)}},
	{"no timestamp", kgo.Record{Timestamp: time.UnixMilli(-1)}},
	{"negative timestamp", kgo.Record{Timestamp: time.UnixMilli(-86_400_001)}},
	{"timestamp before the last one", kgo.Record{Timestamp: time.UnixMilli(1)}},
	{"timestamp in 2200", kgo.Record{Timestamp: time.Date(2200, 1, 1, 0, 0, 0, 7e6, time.UTC)}},
	{"large value", kgo.Record{Value: bytes.Repeat([]byte("large "), 150_000)}},
	{"value that does not compress", kgo.Record{Value: noise(900_000)}},
	{"after a large one", kgo.Record{Value: []byte("v")}},
}

func noise(n int) []byte {
	b := make([]byte, n)
	x := uint64(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// Every odd record arrives as it was, whether it is in a batch of its own or
// among others.
func TestExactCopyOfOddRecords(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		var all []*kgo.Record
		for _, odd := range oddRecords {
			alone, among := odd.record, odd.record
			alone.Topic, among.Topic, alone.Partition, among.Partition = topic, topic, 0, 1
			source.produce(&alone)
			all = append(all, &among)
		}
		source.produce(all...)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		for i, r := range dest.read(mirror(us, topic), 0) {
			want := oddRecords[i].record
			want.Offset = int64(i)
			if want.Timestamp.IsZero() {
				want.Timestamp = r.Timestamp // the producer's clock
			}
			if err := compare(&want, r); err != nil {
				t.Errorf("%s: %v", oddRecords[i].name, err)
			}
		}
		if end := dest.end(mirror(us, topic), 2); end != 0 {
			t.Errorf("the mirror of the empty partition ends at %d", end)
		}
		if s := l.Status(); !s.Running || s.Error != "" || len(s.Stopped) > 0 {
			t.Errorf("status: %+v", s)
		}
	})
}

// A backlog of more than one round of the link, then a trickle.
func TestBacklogThenTrickle(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		var backlog []*kgo.Record
		for i := range 50_000 {
			backlog = append(backlog, record(int32(i%2), i/2))
		}
		source.produce(backlog...)
		producers := dest.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Observe: true, Count: -1})
		w.link(us, eu)
		awaitMirrored(source, dest)
		began := producers.Hits()
		for range 20 {
			source.write(1)
			time.Sleep(time.Second)
		}
		awaitMirrored(source, dest)
		if n := producers.Hits(); n != began || n != partitions {
			t.Errorf("%d producer ids were asked for, and %d more later; want one for each mirror", began, n-began)
		}
	})
}

// Every codec passes. This one is on loopback and in real time: the decoder of
// zstd is closed by a finalizer, which bubbles do not allow.
func TestEveryCodec(t *testing.T) {
	w := &world{T: t, brokers: 1, clusters: map[events.Region]*cluster{}}
	w.run([]events.Region{us, eu}, "", func(w *world) {
		source, dest := w.clusters[us], w.clusters[eu]
		for _, codec := range []kgo.CompressionCodec{
			kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
		} {
			source.client.Close()
			source.client = source.dial(kgo.ProducerBatchCompression(codec))
			source.write(50)
		}
		w.link(us, eu)
		awaitMirrored(source, dest)
	})
}

// Three regions mirror each other all ways at once: every mirror is exact, and
// nothing comes back to where it was written.
func TestThreeRegionsNeverLoop(t *testing.T) {
	regions := []events.Region{us, eu, ap}
	simulate(t, 1, regions, func(w *world) {
		for _, from := range regions {
			for _, to := range regions {
				if from != to {
					w.link(from, to)
				}
			}
		}
		const rounds, each = 5, 30
		for range rounds {
			for _, r := range regions {
				w.clusters[r].write(each)
			}
			time.Sleep(time.Second)
		}
		for _, from := range regions {
			for _, to := range regions {
				if from != to {
					awaitMirrored(w.clusters[from], w.clusters[to])
				}
			}
		}
		time.Sleep(time.Minute) // a loop would go on
		for _, r := range regions {
			for p := range int32(partitions) {
				if end := w.clusters[r].end(topic, p); end != rounds*each {
					t.Errorf("log of %s, partition %d: %d records, %d were written", r, p, end, rounds*each)
				}
				for _, o := range regions {
					if o != r && w.clusters[r].end(mirror(o, topic), p) != rounds*each {
						t.Errorf("mirror of %s in %s, partition %d: %d records", o, r, p, w.clusters[r].end(mirror(o, topic), p))
					}
				}
			}
			if n := len(w.clusters[r].topics()); n != len(regions)+1 { // the link topic
				t.Errorf("%s has %d topics: %v", r, n, w.clusters[r].topics())
			}
		}
	})
}

// Several topics in one link keep apart.
func TestSeveralTopics(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		var topics []string
		for i := range 3 {
			name := fmt.Sprintf("topic.%d", i)
			topics = append(topics, name)
			source.create(name)
			for n := range 10 * (i + 1) {
				r := record(int32(n%partitions), n)
				r.Topic = name
				source.produce(r)
			}
		}
		w.link(us, eu, topics...)
		awaitMirrored(source, dest, topics...)
	})
}
