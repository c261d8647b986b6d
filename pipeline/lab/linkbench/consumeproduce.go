package linkbench

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const loopPollRecords = 10_000

// bufferBytes is how much a producer may hold of records without an ack: two
// batches a partition, so that each can fill one while another is under way, and no
// less than keeps a broker busy.
func bufferBytes(partitions int32) int { return max(64<<20, int(partitions)*2<<20) }

// consumeProduce is the loop that anyone writes first: each record that is
// consumed is produced into the same partition. It keeps keys, values, headers,
// timestamps and order; nothing keeps it from writing twice after a restart.
func consumeProduce(ctx context.Context, cfg MirrorConfig) error {
	offsets := map[int32]kgo.Offset{}
	for i := range cfg.Partitions {
		offsets[i] = kgo.NewOffset().AtStart()
	}
	source, err := kgo.NewClient(
		kgo.SeedBrokers(cfg.Source),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{cfg.Topic: offsets}),
		// As much as MirrorMaker 2 is given: a far source answers with a lot at once.
		kgo.FetchMaxBytes(50<<20), kgo.FetchMaxPartitionBytes(8<<20), kgo.BrokerMaxReadBytes(256<<20),
	)
	if err != nil {
		return err
	}
	defer source.Close()
	codec, err := codecNamed(cfg.Codec)
	if err != nil {
		return err
	}
	linger := 10 * time.Millisecond // fuller batches compress better and cost the broker less
	if cfg.Latency {
		linger = 0
	}
	dest, err := kgo.NewClient(
		kgo.SeedBrokers(cfg.Dest),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(1_000_000), // the broker takes 1,048,588 with framing
		kgo.ProducerLinger(linger),
		kgo.MaxBufferedRecords(bufferBytes(cfg.Partitions)/100), kgo.MaxBufferedBytes(bufferBytes(cfg.Partitions)),
	)
	if err != nil {
		return err
	}
	defer dest.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	produced := func(_ *kgo.Record, err error) {
		if err != nil {
			cancel(fmt.Errorf("producing into %s: %w", cfg.Dest, err))
		}
	}
	topic := mirrorTopic(cfg.Topic)
	for {
		fetches := source.PollRecords(ctx, loopPollRecords)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("consuming topic %s, partition %d, from %s: %w", e.Topic, e.Partition, cfg.Source, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			r.Topic = topic // the record is reused, which saves the loop an allocation each
			dest.Produce(ctx, r, produced)
		})
	}
}
