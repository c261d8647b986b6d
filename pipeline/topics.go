package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/claims"
)

// topicsPollInterval is how often a cluster is asked whether new topics have
// leaders yet.
const topicsPollInterval = 50 * time.Millisecond

// ensureTopics creates the topics that are missing, refuses those that have
// another number of partitions, and waits until all can be used.
func (r *Region) ensureTopics(ctx context.Context) error {
	// A client of its own that remembers little: others would not believe for
	// seconds that topics that were missing are there now.
	admin, err := r.adminOf(ctx, r.cfg.Region, kgo.MetadataMinAge(topicsPollInterval/2))
	if err != nil {
		return err
	}
	defer admin.Close()
	want := slices.Concat(slices.Sorted(maps.Keys(r.cfg.Routes())), slices.Sorted(maps.Keys(r.cfg.AttestationTopics())), []string{claims.Topic(r.cfg)})
	missing, err := r.checkTopics(ctx, admin, want)
	if err != nil {
		return err
	}
	if err := r.createTopics(ctx, admin, missing); err != nil {
		return err
	}
	tick := time.NewTicker(topicsPollInterval)
	defer tick.Stop()
	for len(missing) > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("topics of %s were created but cannot be used yet: %v: %w", r.cfg.Region, missing, ctx.Err())
		case <-tick.C:
		}
		if missing, err = r.checkTopics(ctx, admin, want); err != nil {
			return err
		}
	}
	return nil
}

// checkTopics tells which topics are missing or have no leaders yet, and
// refuses those that do not fit.
func (r *Region) checkTopics(ctx context.Context, admin *kadm.Client, want []string) (missing []string, err error) {
	found, err := admin.Metadata(ctx, want...)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, events.Errorf(events.KindNotReady, "kafka of %s at %s cannot be reached: %w; check regions.%s.kafka",
			r.cfg.Region, strings.Join(r.cfg.Own().Kafka.Seeds, ", "), err, r.cfg.Region)
	}
	attestations := r.cfg.AttestationTopics() // of which any number will do
	var wrong []error
	for _, topic := range want {
		t, ok := found.Topics[topic]
		switch {
		case !ok || errors.Is(t.Err, kerr.UnknownTopicOrPartition) || errors.Is(t.Err, kerr.LeaderNotAvailable):
			missing = append(missing, topic)
		case t.Err != nil:
			wrong = append(wrong, fmt.Errorf("topic %s of %s: %w", topic, r.cfg.Region, t.Err))
		case attestations[topic].IsZero() && len(t.Partitions) != int(r.cfg.Partitions):
			wrong = append(wrong, events.Errorf(events.KindRefused,
				"topic %s of %s has %d partitions, the configuration says %d: keys would be looked for in the wrong shard; "+
					"set partitions to %d, or point the stream at another topic",
				topic, r.cfg.Region, len(t.Partitions), r.cfg.Partitions, len(t.Partitions)))
		}
	}
	return missing, errors.Join(wrong...)
}

// createTopics creates topics of logs and of attestations.
func (r *Region) createTopics(ctx context.Context, admin *kadm.Client, topics []string) error {
	attestations := r.cfg.AttestationTopics()
	var logs, attests, owners []string
	for _, topic := range topics {
		switch _, ok := attestations[topic]; {
		case ok:
			attests = append(attests, topic)
		case topic == claims.Topic(r.cfg):
			owners = append(owners, topic)
		default:
			logs = append(logs, topic)
		}
	}
	return errors.Join(r.createTopicsLike(ctx, admin, r.cfg.Partitions, nil, logs), r.createTopicsLike(ctx, admin, 1, checks.TopicConfigs, attests),
		r.createTopicsLike(ctx, admin, r.cfg.Partitions, claims.TopicConfigs, owners))
}

// createTopicsLike creates topics with the cluster's default replication. What
// another node creates at the same time is as good.
func (r *Region) createTopicsLike(ctx context.Context, admin *kadm.Client, partitions int32, configs map[string]*string, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	const clusterDefault = -1
	created, err := admin.CreateTopics(ctx, partitions, clusterDefault, configs, topics...)
	if err != nil {
		return fmt.Errorf("create topics in %s: %w", r.cfg.Region, err)
	}
	var errs []error
	for _, topic := range topics {
		switch err := created[topic].Err; {
		case err == nil:
			r.log.Info("topic created", "topic", topic, "partitions", partitions)
		case !errors.Is(err, kerr.TopicAlreadyExists):
			errs = append(errs, fmt.Errorf("create topic %s in %s: %w", topic, r.cfg.Region, err))
		}
	}
	return errors.Join(errs...)
}

// compactedTopics tells which topics of a cluster are compacted: what is missing there
// has been folded by some regions and cannot be by others. Elsewhere only transactions
// leave offsets without records. A topic of which the cluster does not tell counts as
// compacted.
func compactedTopics(ctx context.Context, admin *kadm.Client, topics []string) (map[string]bool, error) {
	compacted := map[string]bool{}
	for _, topic := range topics {
		compacted[topic] = true
	}
	described, err := admin.DescribeTopicConfigs(ctx, topics...)
	if errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) {
		return compacted, nil
	}
	if err != nil {
		return nil, err
	}
	for _, topic := range described {
		for _, c := range topic.Configs {
			if c.Key == "cleanup.policy" && topic.Err == nil {
				compacted[topic.Name] = c.MaybeValue() != "delete"
			}
		}
	}
	return compacted, nil
}
