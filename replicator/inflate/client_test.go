package inflate

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rig is a Kafka cluster with the partitions of a topic.
type rig struct {
	*testing.T
	net        kfake.VirtualNetwork
	kafka      *kfake.Cluster
	partitions int32
}

func simulate(t *testing.T, brokers int, partitions int32, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, partitions: partitions}
		ports := []int{9001, 9002, 9003}[:brokers]
		var err error
		r.kafka, err = kfake.NewCluster(kfake.NumBrokers(brokers), kfake.Ports(ports...), kfake.ListenFn(r.net.Listen), kfake.SeedTopics(partitions, "t"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.kafka.Close()
		test(r)
	})
}

func (r *rig) client(opts ...kgo.Opt) *kgo.Client {
	r.Helper()
	c, err := kgo.NewClient(append(opts, kgo.SeedBrokers("127.0.0.1:9001"), kgo.Dialer(r.net.DialContext), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		r.Fatal(err)
	}
	return c
}

// reader reads all partitions from their beginnings.
func (r *rig) reader(opts ...kgo.Opt) *kgo.Client {
	from := map[int32]kgo.Offset{}
	for p := range r.partitions {
		from[p] = kgo.NewOffset().At(0)
	}
	return r.client(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": from}), kgo.MaxConcurrentFetches(3), kgo.FetchMaxWait(500*time.Millisecond))...)
}

// put writes records to a partition, each a batch.
func (r *rig) put(p int32, values ...[]byte) {
	r.Helper()
	c := r.client(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(0))
	defer c.Close()
	for _, v := range values {
		if err := c.ProduceSync(r.Context(), &kgo.Record{Topic: "t", Partition: p, Value: v}).FirstErr(); err != nil {
			r.Fatal(err)
		}
	}
}

// fill writes so many records of 10,000 bytes to each partition, batches of 4, that compress about ten to one.
func (r *rig) fill(perPartition int) (compressed int64) {
	r.Helper()
	wire := &wire{key: kmsg.Produce}
	c := r.client(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(time.Millisecond), kgo.WithHooks(wire))
	defer c.Close()
	rng := rand.NewChaCha8([32]byte{1})
	for range perPartition / 4 {
		var batch []*kgo.Record
		for p := range r.partitions {
			for range 4 {
				value := make([]byte, 10_000)
				_, _ = rng.Read(value[:1_000])
				batch = append(batch, &kgo.Record{Topic: "t", Partition: p, Value: value})
			}
		}
		if err := c.ProduceSync(r.Context(), batch...).FirstErr(); err != nil {
			r.Fatal(err)
		}
	}
	return wire.bytes.Load()
}

func (r *rig) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), d)
}

func zerosOf(records, bytes int) [][]byte {
	values := make([][]byte, records)
	for i := range values {
		values[i] = make([]byte, bytes)
	}
	return values
}

// wire counts what goes over it.
type wire struct {
	key   kmsg.Key
	bytes atomic.Int64
	calls atomic.Int64
}

func (w *wire) OnBrokerRead(_ kgo.BrokerMetadata, key int16, n int, _, _ time.Duration, _ error) {
	if kmsg.Key(key) == w.key && w.key == kmsg.Fetch {
		w.bytes.Add(int64(n))
		w.calls.Add(1)
	}
}

func (w *wire) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, n int, _, _ time.Duration, _ error) {
	if kmsg.Key(key) == w.key && w.key == kmsg.Produce {
		w.bytes.Add(int64(n))
	}
}

// readAll polls until so many records have come, each once and in order, and says what was held at most.
func (r *rig) readAll(c *kgo.Client, records int) (held int64) {
	r.Helper()
	next, ctx := map[int32]int64{}, r.Context()
	for read := 0; read < records; {
		synctest.Wait() // until nothing more is fetched
		held = max(held, c.BufferedFetchBytes())
		fetches := c.PollRecords(ctx, 50)
		if err := fetches.Err(); err != nil {
			r.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset != next[rec.Partition] {
				r.Fatalf("partition %d: offset %d, want %d", rec.Partition, rec.Offset, next[rec.Partition])
			}
			next[rec.Partition]++
			read++
		})
	}
	return held
}

// A client with many partitions whose answers do not fit by far reads all as fast as one that has room for
// everything, fetches little of it more than once, and can be told at any time what else to read.
func TestManyPartitions(t *testing.T) {
	const (
		partitions = 240
		each       = 16
		most       = 2 << 20
	)
	for _, brokers := range []int{1, 3} {
		simulate(t, brokers, partitions, func(r *rig) {
			data := r.fill(each)
			fetched := &wire{key: kmsg.Fetch}
			c := r.reader(append(Opts(most, 8<<20), kgo.WithHooks(fetched))...)
			defer c.Close()
			time.Sleep(100 * time.Millisecond)
			begun := time.Now()
			c.RemoveConsumePartitions(map[string][]int32{"t": {0}})
			c.AddConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(0)}})
			if took := time.Since(begun); took > 100*time.Millisecond {
				r.Errorf("%d brokers: what is read was changed after %s", brokers, took)
			}
			fetched.bytes.Store(0)
			held := r.readAll(c, partitions*each)
			took := time.Since(begun)
			r.Logf("%d brokers: %d KiB of batches, %d KiB fetched in %d answers, at most %d KiB held, %s", brokers, data>>10, fetched.bytes.Load()>>10, fetched.calls.Load(), held>>10, took)
			if took > 5*time.Second {
				r.Errorf("%d brokers: it took %s", brokers, took)
			}
			if n := fetched.bytes.Load(); n > 2*data {
				r.Errorf("%d brokers: %d bytes were fetched of %d", brokers, n, data)
			}
			if held > most+int64(brokers)*2*40_000+1_000 {
				r.Errorf("%d brokers: %d bytes were held", brokers, held)
			}
		})
	}
}

// What fills the room and is thrown away, as its partitions are paused or not read any more, or have moved, does not
// keep anybody waiting.
func TestWhatIsThrownAway(t *testing.T) {
	for how, leave := range map[string]func(*rig, *kgo.Client){
		"paused":  func(_ *rig, c *kgo.Client) { c.PauseFetchPartitions(map[string][]int32{"t": {0}}) },
		"removed": func(_ *rig, c *kgo.Client) { c.RemoveConsumePartitions(map[string][]int32{"t": {0}}) },
		"moved": func(r *rig, c *kgo.Client) {
			if err := r.kafka.MoveTopicPartition("t", 0, 0); err != nil {
				r.Fatal(err)
			}
			c.ForceMetadataRefresh()
			time.Sleep(5 * time.Second)
		},
	} {
		for _, polled := range []int{0, 1} {
			simulate(t, 3, 2, func(r *rig) {
				for p := range int32(2) {
					if err := r.kafka.MoveTopicPartition("t", p, 1+p); err != nil {
						r.Fatal(err)
					}
				}
				r.put(0, zerosOf(16, 900_000)...)
				c := r.reader(Opts(4<<20, 8<<20)...)
				defer c.Close()
				time.Sleep(2 * time.Second)
				if n := c.BufferedFetchBytes(); n < 4<<20 {
					r.Fatalf("%d bytes are held", n)
				}
				if polled > 0 {
					c.PollRecords(r.Context(), polled)
				}
				leave(r, c)
				r.put(1, bytes.Repeat([]byte("live"), 100))
				begun := time.Now()
				for seen := false; !seen; {
					c.PollRecords(r.Context(), 10_000).EachRecord(func(rec *kgo.Record) { seen = seen || rec.Partition == 1 })
				}
				if took := time.Since(begun); took > time.Second {
					r.Errorf("%s, %d polled: a record of another broker came after %s", how, polled, took)
				}
			})
		}
	}
}

// A log that is far behind, and polled slowly, does not hold up another broker's.
func TestLiveBesideBehind(t *testing.T) {
	simulate(t, 3, 2, func(r *rig) {
		for p := range int32(2) {
			if err := r.kafka.MoveTopicPartition("t", p, p); err != nil {
				r.Fatal(err)
			}
		}
		r.put(0, zerosOf(200, 900_000)...)
		c := r.reader(append(Opts(16<<20, 8<<20), kgo.FetchMaxBytes(16<<20))...)
		defer c.Close()
		live := r.client(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(0))
		defer live.Close()
		var worst time.Duration
		for behind := 0; behind < 200; {
			live.Produce(r.Context(), &kgo.Record{Topic: "t", Partition: 1, Value: bytes.Repeat([]byte("live"), 100)}, nil)
			folded := 0
			c.PollRecords(r.Context(), 10_000).EachRecord(func(rec *kgo.Record) {
				if rec.Partition == 1 {
					worst = max(worst, time.Since(rec.Timestamp))
				} else {
					folded++
				}
			})
			behind += folded
			time.Sleep(time.Duration(folded) * 20 * time.Millisecond) // folded at 50 MiB/s
		}
		if worst > 2*time.Second {
			r.Errorf("a record came after %s", worst)
		}
	})
}

// The client refuses some batches after they were decompressed. Nothing of those is held.
func TestRefusedAfterwards(t *testing.T) {
	r := newRoom(64<<10, 8<<20)
	plain := bytes.Repeat(record(make([]byte, 1000), 0), 20)
	b := kmsg.RecordBatch{Magic: 2, Attributes: 4, LastOffsetDelta: 19, NumRecords: -1, ProducerID: -1, Records: compress(t, kgo.ZstdCompression(), plain)}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	for range 10 {
		fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t"}, &kmsg.FetchResponseTopicPartition{RecordBatches: raw}, r, func(m kgo.FetchBatchMetrics) {
			r.OnFetchBatchRead(kgo.BrokerMetadata{NodeID: 1}, "t", 0, m)
		})
		if fp.Err == nil || fmt.Sprint(fp.Err) == fmt.Sprint(errNoRoom) || r.held() != 0 {
			t.Fatalf("%v, and %d bytes are held", fp.Err, r.held())
		}
	}
}

// Of an answer whose records are not kept it may never be told that it is not worked on any more.
func TestWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(1_000, 2_000)
		r.OnFetchBatchRead(kgo.BrokerMetadata{NodeID: 7}, "t", 0, kgo.FetchBatchMetrics{NumRecords: 5, UncompressedBytes: 500})
		if r.admits() {
			t.Error("there is room for more than the room has")
		}
		r.OnBrokerRead(kgo.BrokerMetadata{NodeID: 8}, int16(kmsg.Fetch), 100, 0, 0, nil)
		if !r.admits() || r.admits() {
			t.Error("not one batch is owed to an answer of which nothing was accepted")
		}
		time.Sleep(workMost + time.Second)
		if !r.admits() {
			t.Error("an answer is worked on for ever")
		}
	})
}

func compress(t testing.TB, codec kgo.CompressionCodec, plain []byte) []byte {
	t.Helper()
	c, err := kgo.DefaultCompressor(codec)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := c.Compress(new(bytes.Buffer), plain)
	return bytes.Clone(out)
}

// What a batch decompresses to has no more memory than it needs, and it takes as long as with the client's own.
func BenchmarkDecompress(b *testing.B) {
	var plain []byte
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 2_000 {
		plain = append(plain, record(fmt.Appendf(nil, `{"id":%d,"name":"session-%d","state":"running","r":"%x"}`, i, rng.IntN(1000), rng.Int64()), 5)...)
	}
	for name, codec := range map[string]kgo.CompressionCodec{"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		src := compress(b, codec, plain)
		number := map[string]kgo.CompressionCodecType{"gzip": kgo.CodecGzip, "snappy": kgo.CodecSnappy, "lz4": kgo.CodecLz4, "zstd": kgo.CodecZstd}[name]
		for whose, d := range map[string]kgo.Decompressor{"client": kgo.DefaultDecompressor(), "room": newRoom(1<<40, 128<<20)} {
			b.Run(name+"/"+whose, func(b *testing.B) {
				b.SetBytes(int64(len(plain)))
				b.ReportAllocs()
				for b.Loop() {
					if out, err := d.Decompress(src, number); err != nil || len(out) != len(plain) {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
