package batch

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const fakeTopic, fakeCopy = "log", "copy"

// A broker that judges as Kafka does takes what was stamped, merged and split,
// and an ordinary client reads the same records from it.
func TestBrokerTakesWhatIsMade(t *testing.T) {
	ways := map[string]func(*Recoder, []Batch) ([]Dense, error){
		"stamp": func(_ *Recoder, batches []Batch) (made []Dense, err error) {
			for _, b := range batches {
				made = append(made, Dense{Raw: b.Raw, Count: b.Count})
			}
			return made, nil
		},
		"merge": func(r *Recoder, batches []Batch) ([]Dense, error) {
			d, err := r.Merge(batches)
			return []Dense{d}, err
		},
		"split": func(r *Recoder, batches []Batch) (made []Dense, err error) {
			for _, b := range batches {
				parts, err := r.Split(b, 2000)
				if err != nil {
					return nil, err
				}
				made = append(made, parts...)
			}
			return made, nil
		},
	}
	compression := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for name, way := range ways {
		for _, codec := range codecs {
			t.Run(name+"/"+codec.String(), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				client := fakeBroker(t, compression[codec])
				want := produceLog(ctx, t, client)
				made, err := way(NewRecoder(), fetchBatches(ctx, t, client, codec))
				if err != nil {
					t.Fatal(err)
				}
				next := int64(0)
				for _, d := range made {
					appendStamped(ctx, t, client, d, next)
					next += int64(d.Count)
				}
				if got := consumed(t, fetchRaw(ctx, t, client, fakeCopy)); !same(got, want) {
					t.Fatalf("%d records were read, of %d", len(got), len(want))
				}
			})
		}
	}
}

func fakeBroker(t *testing.T, codec kgo.CompressionCodec) *kgo.Client {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, fakeTopic, fakeCopy))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(fakeTopic), kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// produceLog writes batches of some records each, and gives all of them.
func produceLog(ctx context.Context, t *testing.T, client *kgo.Client) (all []Record) {
	t.Helper()
	for batch := range 5 {
		var some []*kgo.Record
		for i := range 20 {
			n := len(all)
			r := Record{Offset: int64(n), Timestamp: 1700000000000 + int64(n)*7, Key: fmt.Appendf(nil, "key %d", n), Value: fmt.Appendf(nil, "value %0*d", 20*i+batch, n)}
			switch n % 7 {
			case 3:
				r.Value = nil
			case 5:
				r.Key, r.Headers = nil, []RecordHeader{{"h", nil}, {"h", []byte("x")}}
			}
			all = append(all, r)
			k := &kgo.Record{Timestamp: time.UnixMilli(r.Timestamp), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				k.Headers = append(k.Headers, kgo.RecordHeader(h))
			}
			some = append(some, k)
		}
		if err := client.ProduceSync(ctx, some...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func fetchBatches(ctx context.Context, t *testing.T, client *kgo.Client, codec Codec) (batches []Batch) {
	t.Helper()
	for rest := fetchRaw(ctx, t, client, fakeTopic); len(rest) > 0; {
		b, after, err := Read(rest)
		if err == nil {
			err = b.Verify()
		}
		if err != nil {
			t.Fatal(err)
		}
		if b.Codec() != codec || !b.Dense() {
			t.Fatalf("the broker's batch is %+v", b.Header)
		}
		batches, rest = append(batches, b), after
	}
	if len(batches) < 2 {
		t.Fatalf("%d batches are too few to prove anything", len(batches))
	}
	return batches
}

func fetchRaw(ctx context.Context, t *testing.T, client *kgo.Client, topic string) []byte {
	t.Helper()
	p := kmsg.NewFetchRequestTopicPartition()
	p.PartitionMaxBytes = 10 << 20
	top := kmsg.NewFetchRequestTopic()
	top.Topic, top.Partitions = topic, []kmsg.FetchRequestTopicPartition{p}
	top.TopicID = topicID(ctx, t, client, topic)
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.Topics = 10<<20, []kmsg.FetchRequestTopic{top}
	resp, err := req.RequestWith(ctx, client.Broker(0))
	if err != nil {
		t.Fatal(err)
	}
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		t.Fatal(err)
	}
	return got.RecordBatches
}

func appendStamped(ctx context.Context, t *testing.T, client *kgo.Client, d Dense, next int64) {
	t.Helper()
	id, epoch, err := client.ProducerID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	Stamp(d.Raw, id, epoch, int32(next))
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = d.Raw
	top := kmsg.NewProduceRequestTopic()
	top.Topic, top.Partitions = fakeCopy, []kmsg.ProduceRequestTopicPartition{p}
	top.TopicID = topicID(ctx, t, client, fakeCopy)
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 5000, []kmsg.ProduceRequestTopic{top}
	resp, err := req.RequestWith(ctx, client.Broker(0))
	if err != nil {
		t.Fatal(err)
	}
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil || got.BaseOffset != next {
		t.Fatalf("appended at %d, want %d: %v", got.BaseOffset, next, err)
	}
}

func topicID(ctx context.Context, t *testing.T, client *kgo.Client, topic string) [16]byte {
	t.Helper()
	top := kmsg.NewMetadataRequestTopic()
	top.Topic = kmsg.StringPtr(topic)
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{top}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].TopicID
}
