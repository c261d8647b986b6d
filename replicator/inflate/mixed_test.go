package inflate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fillMixed writes batches of all codecs and sizes to each partition, some of them in transactions. It returns the
// values.
func (r *rig) fillMixed(rng *rand.Rand, batches int) (want map[int32][][]byte) {
	r.Helper()
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	var plain, transactional []*kgo.Client
	for i, codec := range codecs {
		opts := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(time.Millisecond)}
		plain = append(plain, r.client(opts...))
		transactional = append(transactional, r.client(append(opts, kgo.TransactionalID(fmt.Sprint("t-", i)))...))
		defer plain[i].Close()
		defer transactional[i].Close()
	}
	want = map[int32][][]byte{}
	for number := range batches {
		var records []*kgo.Record
		for p := range r.partitions {
			for range 1 + rng.IntN(20) {
				value := binary.BigEndian.AppendUint64(nil, rng.Uint64())
				value = append(value, make([]byte, rng.IntN(6_000))...)
				records = append(records, &kgo.Record{Topic: "t", Partition: p, Value: value})
			}
		}
		c := plain[rng.IntN(len(codecs))]
		if number%3 == 0 {
			c = transactional[rng.IntN(len(codecs))]
			if err := c.BeginTransaction(); err != nil {
				r.Fatal(err)
			}
		}
		err := c.ProduceSync(r.Context(), records...).FirstErr()
		if number%3 == 0 {
			err = errors.Join(err, c.EndTransaction(r.Context(), kgo.TransactionEndTry(rng.IntN(2) == 0)))
		}
		if err != nil {
			r.Fatal(err)
		}
		for _, record := range records {
			want[record.Partition] = append(want[record.Partition], record.Value)
		}
	}
	return want
}

// Whatever is refused, cut off, paused, taken away and given again, and wherever partitions move: each record
// comes, once and in order.
func TestNothingIsLeftOut(t *testing.T) {
	for seed := range uint64(3) {
		simulate(t, 3, 24, func(r *rig) {
			rng := rand.New(rand.NewPCG(seed, 1))
			want := r.fillMixed(rng, 40)
			cut := rand.New(rand.NewPCG(seed, 2))
			r.kafka.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
				r.kafka.KeepControl()
				if cut.IntN(50) == 0 {
					return nil, errors.New("the connection is cut"), true
				}
				return nil, nil, false
			})
			opts := append(Opts(256<<10, 8<<20), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxBytes(1<<20), kgo.FetchMaxPartitionBytes(64<<10))
			if seed%2 == 0 {
				opts = append(opts, kgo.KeepControlRecords())
			}
			c := r.reader(opts...)
			defer c.Close()
			left, next, begun := 0, map[int32]int64{}, time.Now()
			for _, values := range want {
				left += len(values)
			}
			for left > 0 {
				if time.Since(begun) > time.Hour {
					r.Fatalf("%d records are left after an hour", left)
				}
				ctx, cancel := r.within(100 * time.Millisecond)
				fetches := c.PollRecords(ctx, 1+rng.IntN(300))
				cancel()
				fetches.EachRecord(func(record *kgo.Record) {
					p := record.Partition
					if record.Offset < next[p] {
						r.Fatalf("partition %d: offset %d, want at least %d", p, record.Offset, next[p])
					}
					if next[p] = record.Offset + 1; record.Attrs.IsControl() {
						return
					}
					if len(want[p]) == 0 || !bytes.Equal(record.Value, want[p][0]) {
						r.Fatalf("partition %d, offset %d: not the record that was written", p, record.Offset)
					}
					want[p], left = want[p][1:], left-1
				})
				r.disturb(rng, c, next)
			}
			r.Logf("seed %d: %s", seed, time.Since(begun))
		})
	}
}

// disturb does to a client, between two polls, what a node may.
func (r *rig) disturb(rng *rand.Rand, c *kgo.Client, next map[int32]int64) {
	p := rng.Int32N(r.partitions)
	one := map[string][]int32{"t": {p}}
	switch rng.IntN(12) {
	case 0:
		c.PauseFetchPartitions(one)
	case 1, 2:
		c.ResumeFetchPartitions(c.PauseFetchPartitions(nil))
	case 3:
		c.RemoveConsumePartitions(one)
		c.ResumeFetchPartitions(one)
		c.AddConsumePartitions(map[string]map[int32]kgo.Offset{"t": {p: kgo.NewOffset().At(next[p])}})
	case 4:
		if err := r.kafka.MoveTopicPartition("t", p, rng.Int32N(3)); err != nil {
			r.Fatal(err)
		}
	}
}
