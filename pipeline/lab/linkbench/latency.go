package linkbench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
)

const (
	latencyWarmUp    = 30 // records that are not counted
	latencyRecords   = 300
	latencyBytes     = 300
	latencyPauseMax  = 40 * time.Millisecond // random: in no step with anybody's polling
	latencyPatience  = stallMax              // for one record; the first one waits for the process too
	latencyTopicName = "latency"
)

// Latency is how long single records take through a link that is idle otherwise,
// from before they are produced at the source until a consumer of the mirror
// has them. Producer and consumer are next to their brokers.
type Latency struct {
	System string  `json:"system"`
	RTTMs  int64   `json:"rtt_ms"`
	P50Ms  float64 `json:"p50_ms"`
	P99Ms  float64 `json:"p99_ms"`
}

// latency measures one system over one distance.
func (b *bench) latency(ctx context.Context, system string, rtt time.Duration) (_ Latency, err error) {
	topic := latencyTopicName
	if err := b.makeTopics(ctx, topic, 1); err != nil {
		return Latency{}, err
	}
	p, err := b.startMirror(ctx, MirrorConfig{System: system, Topic: topic, Partitions: 1, Codec: "none", Latency: true}, rtt,
		fmt.Sprintf("latency-%dms", rtt.Milliseconds()))
	if err != nil {
		return Latency{}, err
	}
	defer p.stop()
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(b.clusters.source.address), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		return Latency{}, err
	}
	defer producer.Close()
	consumer, err := kgo.NewClient(
		kgo.SeedBrokers(b.clusters.dest.address),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{mirrorTopic(topic): {0: kgo.NewOffset().AtStart()}}),
	)
	if err != nil {
		return Latency{}, err
	}
	defer consumer.Close()
	records := payload.New(b.cfg.Seed)
	var took []time.Duration
	for i := range latencyWarmUp + latencyRecords {
		d, err := through(ctx, producer, consumer, records.Record(latencyBytes))
		if err != nil {
			return Latency{}, fmt.Errorf("record %d: %w; %s", i, err, p.lastWords())
		}
		if i >= latencyWarmUp {
			took = append(took, d)
		}
		select {
		case <-ctx.Done():
			return Latency{}, ctx.Err()
		case <-time.After(rand.N(latencyPauseMax + rtt)):
		}
	}
	slices.Sort(took)
	return Latency{system, rtt.Milliseconds(), milliseconds(quantile(took, 0.50)), milliseconds(quantile(took, 0.99))}, nil
}

// through sends one record and waits for it at the other end.
func through(ctx context.Context, producer, consumer *kgo.Client, r payload.Record) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, latencyPatience)
	defer cancel()
	began := time.Now()
	// The ack is not waited for: a link may be faster than it.
	failed := make(chan error, 1)
	producer.Produce(ctx, &kgo.Record{Key: r.Key, Value: r.Value}, func(_ *kgo.Record, err error) { failed <- err })
	for {
		fetches := consumer.PollRecords(ctx, 1)
		took := time.Since(began)
		if ctx.Err() != nil {
			return 0, fmt.Errorf("not at the mirror after %v: %w", latencyPatience, ctx.Err())
		}
		for _, e := range fetches.Errors() {
			return 0, fmt.Errorf("consuming topic %s: %w", e.Topic, e.Err)
		}
		if fetches.NumRecords() > 0 {
			return took, <-failed
		}
	}
}

// quantile takes the value that a share of the sorted ones are at most (nearest rank).
func quantile(sorted []time.Duration, share float64) time.Duration {
	rank := int(share*float64(len(sorted)) + 0.999999)
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
