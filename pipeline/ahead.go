package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/listed"
)

// RefuseAhead refuses a vector that has more of one of the region's own logs than the log
// itself: it has lost its end, or is a new one. What is written next would get offsets that
// the state has folded already, and so would never be folded here, but in other regions. Of a
// stream that is not configured any more nothing is folded, wherever its log ends.
func RefuseAhead(cfg *config.Config, v, ends events.Vector) error {
	for _, p := range v.Positions() {
		_, folded := cfg.Streams[p.Stream]
		if folded && p.Origin == cfg.Origin(cfg.Region) && p.Offset > ends[p.Log] {
			return events.Errorf(events.KindRefused, "the state has %s up to offset %d, and topic %s of %s, partition %d, ends at offset %d: what is written there next would never be folded; "+
				"write back what is archived first (evenkeel restore kafka), restore the state to no later a point than that, or give the region a new incarnation",
				p.Log, p.Offset, cfg.TopicOf(p.Log), cfg.Region, p.Partition, ends[p.Log])
		}
	}
	return nil
}

// LogEnds asks a region's Kafka where the region's own logs end. A topic that does not
// exist is empty.
func LogEnds(ctx context.Context, cfg *config.Config, more []kgo.Opt) (events.Vector, error) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	opts, err := cfg.KafkaOpts(cfg.Region, more...)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", cfg.Region, err)
	}
	defer client.Close()
	var topics []string
	for _, s := range cfg.Streams {
		topics = append(topics, s.Topic)
	}
	found, err := kadm.NewClient(client).ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, events.Errorf(events.KindNotReady, "kafka of %s cannot be asked where its logs end: %w", cfg.Region, err)
	}
	ends := events.Vector{}
	for name, s := range cfg.Streams {
		for p := range cfg.Partitions {
			o, ok := listed.Lookup(found, s.Topic, p)
			switch {
			case !ok || errors.Is(o.Err, kerr.UnknownTopicOrPartition):
			case o.Err != nil:
				return nil, events.Errorf(events.KindNotReady, "kafka of %s cannot be asked where topic %s, partition %d ends: %w", cfg.Region, s.Topic, p, o.Err)
			default:
				ends[events.Log{Origin: cfg.Origin(cfg.Region), Stream: name, Partition: p}] = o.Offset
			}
		}
	}
	return ends, nil
}
