package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	policyName = "cleanup.policy"
	policy     = "compact"
)

// topicPollInterval is how often a cluster is asked whether a new topic has a
// leader yet.
const topicPollInterval = 50 * time.Millisecond

// ensureTopic creates the topic if it is missing and waits until it can be used.
// One that is there already is never changed, but refused if it is not fit.
func ensureTopic(ctx context.Context, opts []kgo.Opt, cfg Config) error {
	// A client of its own that remembers little: others would not believe for
	// seconds that a topic that was missing is there now.
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.MetadataMinAge(topicPollInterval/2))...)
	if err != nil {
		return fmt.Errorf("link topic %s: %w", cfg.Topic, err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ready, err := checkTopic(ctx, admin, cfg.Topic)
	if err == nil && !ready {
		if err = createTopic(ctx, admin, cfg); err == nil {
			err = awaitTopic(ctx, admin, cfg.Topic)
		}
	}
	if err != nil {
		return err
	}
	return checkPolicy(ctx, admin, cfg.Topic)
}

// awaitTopic waits until a new topic has a leader.
func awaitTopic(ctx context.Context, admin *kadm.Client, topic string) error {
	tick := time.NewTicker(topicPollInterval)
	defer tick.Stop()
	for {
		if ready, err := checkTopic(ctx, admin, topic); err != nil || ready {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("link topic %s was created but cannot be used yet: %w", topic, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// checkTopic tells whether the topic is there and has a leader.
func checkTopic(ctx context.Context, admin *kadm.Client, topic string) (ready bool, err error) {
	found, err := admin.Metadata(ctx, topic)
	if err != nil {
		return false, fmt.Errorf("link topic %s: ask for it: %w", topic, err)
	}
	t, ok := found.Topics[topic]
	switch {
	case !ok || errors.Is(t.Err, kerr.UnknownTopicOrPartition) || errors.Is(t.Err, kerr.LeaderNotAvailable):
		return false, nil
	case t.Err != nil:
		return false, fmt.Errorf("link topic %s: %w", topic, t.Err)
	case len(t.Partitions) != 1:
		return false, fmt.Errorf("link topic %s has %d partitions: it has to have one, which orders what instances write; "+
			"name another topic, or delete this one if nothing else uses it", topic, len(t.Partitions))
	}
	p := t.Partitions[0]
	if p.Err != nil && !kerr.IsRetriable(p.Err) {
		return false, fmt.Errorf("link topic %s: partition 0: %w", topic, p.Err)
	}
	return p.Err == nil && p.Leader >= 0, nil
}

// createTopic creates the topic. What another instance creates at the same time is
// as good.
func createTopic(ctx context.Context, admin *kadm.Client, cfg Config) error {
	replication := cfg.Replication
	if replication == 0 {
		replication = -1
	}
	_, err := admin.CreateTopic(ctx, 1, replication, map[string]*string{policyName: kadm.StringPtr(policy)}, cfg.Topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("link topic %s: create it: %w", cfg.Topic, err)
	}
	return nil
}

// checkPolicy refuses a topic that would lose what is in it.
func checkPolicy(ctx context.Context, admin *kadm.Client, topic string) error {
	all, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return fmt.Errorf("link topic %s: ask for its configuration: %w", topic, err)
	}
	configs, err := all.On(topic, nil)
	if err == nil {
		err = configs.Err
	}
	if err != nil {
		return fmt.Errorf("link topic %s: ask for its configuration: %w", topic, err)
	}
	is := "unknown"
	for _, c := range configs.Configs {
		if c.Key == policyName {
			is = c.MaybeValue()
		}
	}
	if is != policy {
		return fmt.Errorf("link topic %s has %s=%s: records that links need for ever would be deleted; "+
			"set %s=%s, if nothing else uses the topic", topic, policyName, is, policyName, policy)
	}
	return nil
}
