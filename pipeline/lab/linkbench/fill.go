package linkbench

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

const (
	fillClients    = 4 // a broker takes one request at a time from a connection
	fillPipelining = 3 // so the next one is there when it has finished
	// A request holds at most one batch a partition, and so few bytes of large ones
	// that a broker of 512 MB does not feel them.
	fillRequestBytes = 4 * megabyte
	fillRequestParts = 50
)

// fill writes a case's log: batches of the pool in turn, spread evenly over the
// partitions. It returns how many records there are then, the case's number
// rounded up to whole batches.
func fill(ctx context.Context, c *cluster, topic string, partitions int32, records int, pool []batch) (int64, error) {
	id, err := topicID(ctx, c, topic)
	if err != nil {
		return 0, err
	}
	work := make(chan *kmsg.ProduceRequest)
	g, ctx := errgroup.WithContext(ctx)
	for range fillClients {
		client, err := kgo.NewClient(kgo.SeedBrokers(c.address))
		if err != nil {
			return 0, err
		}
		defer client.Close()
		if err := client.Ping(ctx); err != nil {
			return 0, err
		}
		for range fillPipelining {
			g.Go(func() error {
				for req := range work {
					if err := produce(ctx, client, req); err != nil {
						return fmt.Errorf("filling topic %s at %s: %w", topic, c.address, err)
					}
				}
				return nil
			})
		}
	}
	f := filler{topic: topic, id: id, partitions: int(partitions), pool: pool}
	g.Go(func() error {
		defer close(work)
		for f.records < int64(records) {
			select {
			case work <- f.request(int64(records)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return f.records, nil
}

// filler deals the pool's batches out.
type filler struct {
	topic      string
	id         [16]byte
	partitions int
	pool       []batch

	batches int   // dealt out so far
	records int64 // in them
}

// request makes the next one; the last one ends where there are enough records.
func (f *filler) request(records int64) *kmsg.ProduceRequest {
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = f.topic, f.id
	parts := min(f.partitions, fillRequestParts)
	for size := 0; len(t.Partitions) < parts && size < fillRequestBytes && f.records < records; f.batches++ {
		b := f.pool[f.batches%len(f.pool)]
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = int32(f.batches%f.partitions), b.bytes
		t.Partitions = append(t.Partitions, p)
		size += len(b.bytes)
		f.records += int64(b.records)
	}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 30_000
	req.Topics = append(req.Topics, t)
	return req
}

func produce(ctx context.Context, client *kgo.Client, req *kmsg.ProduceRequest) error {
	answer, err := client.Broker(brokerID).Request(ctx, req)
	if err != nil {
		return err
	}
	for _, t := range answer.(*kmsg.ProduceResponse).Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}

func topicID(ctx context.Context, c *cluster, topic string) ([16]byte, error) {
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, t)
	answer, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return [16]byte{}, err
	}
	if len(answer.Topics) != 1 {
		return [16]byte{}, errors.New("no answer about topic " + topic)
	}
	return answer.Topics[0].TopicID, kerr.ErrorForCode(answer.Topics[0].ErrorCode)
}
