package refill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/pause"
)

// topicsPollInterval is how often the cluster is asked whether new topics can be used.
const topicsPollInterval = 50 * time.Millisecond

// heldOff are the configurations of topics that hold off the deletion of records while
// they are written back: many are older than what is kept.
var heldOff = map[string]string{"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}

func (r *refilling) names() []string { return slices.Sorted(maps.Keys(r.topics)) }

// makeTopics makes topics that are missing, and refuses those that do not fit.
func (r *refilling) makeTopics(ctx context.Context) error {
	cfg := r.job.Config
	for {
		found, err := r.admin.Metadata(ctx, r.names()...)
		if err != nil {
			return events.Errorf(events.KindNotReady, "kafka of %s cannot be reached: %w", cfg.Region, err)
		}
		missing, err := r.missing(found)
		if err != nil || len(missing) == 0 {
			return err
		}
		const clusterDefault = -1
		created, err := r.admin.CreateTopics(ctx, cfg.Partitions, clusterDefault, nil, missing...)
		if err != nil {
			return fmt.Errorf("create topics in %s: %w", cfg.Region, err)
		}
		for _, t := range created.Sorted() {
			if t.Err != nil && !errors.Is(t.Err, kerr.TopicAlreadyExists) {
				return fmt.Errorf("create topic %s in %s: %w", t.Topic, cfg.Region, t.Err)
			}
		}
		if pause.For(ctx, topicsPollInterval); ctx.Err() != nil {
			return fmt.Errorf("topics of %s were created but cannot be used yet: %v: %w", cfg.Region, missing, ctx.Err())
		}
	}
}

func (r *refilling) missing(found kadm.Metadata) (missing []string, err error) {
	for _, topic := range r.names() {
		t, ok := found.Topics[topic]
		switch {
		case !ok || errors.Is(t.Err, kerr.UnknownTopicOrPartition) || errors.Is(t.Err, kerr.LeaderNotAvailable):
			missing = append(missing, topic)
		case t.Err != nil:
			return nil, fmt.Errorf("topic %s of %s: %w", topic, r.job.Config.Region, t.Err)
		case len(t.Partitions) != int(r.job.Config.Partitions):
			return nil, events.Errorf(events.KindRefused, "topic %s of %s has %d partitions, the configuration says %d", topic, r.job.Config.Region, len(t.Partitions), r.job.Config.Partitions)
		}
	}
	return missing, nil
}

// ends is how many records are in the topics. One that has lost records at its beginning
// is refused.
func (r *refilling) ends(ctx context.Context, wanted events.Vector) (events.Vector, error) {
	starts, err := r.admin.ListStartOffsets(ctx, r.names()...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("where topics of %s begin: %w", r.job.Config.Region, err)
	}
	listed, err := r.admin.ListEndOffsets(ctx, r.names()...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("where topics of %s end: %w", r.job.Config.Region, err)
	}
	ends := events.Vector{}
	for l := range wanted {
		topic := r.job.Config.TopicOf(l)
		start, _ := starts.Lookup(topic, l.Partition)
		end, ok := listed.Lookup(topic, l.Partition)
		if !ok || start.Offset > 0 {
			return nil, events.Errorf(events.KindRefused, "topic %s of %s, partition %d begins at offset %d: it has been used; delete it, so that it is made anew", topic, r.job.Config.Region, l.Partition, start.Offset)
		}
		ends[l] = end.Offset
	}
	return ends, nil
}

// configs are the topics' own values of what is held off, and refuses topics that would
// give records other timestamps.
func (r *refilling) configs(ctx context.Context) (map[string]map[string]*string, error) {
	described, err := r.admin.DescribeTopicConfigs(ctx, r.names()...)
	if err != nil {
		return nil, fmt.Errorf("configurations of topics of %s: %w", r.job.Config.Region, err)
	}
	own := map[string]map[string]*string{}
	for _, topic := range described {
		if topic.Err != nil {
			return nil, fmt.Errorf("configurations of topic %s of %s: %w", topic.Name, r.job.Config.Region, topic.Err)
		}
		own[topic.Name] = map[string]*string{}
		for _, c := range topic.Configs {
			if c.Key == "message.timestamp.type" && c.MaybeValue() == "LogAppendTime" {
				return nil, events.Errorf(events.KindRefused, "topic %s of %s has message.timestamp.type=LogAppendTime: records would not keep their timestamps; set it to CreateTime until they are written back", topic.Name, r.job.Config.Region)
			}
			if _, held := heldOff[c.Key]; held {
				own[topic.Name][c.Key] = nil
				if c.Source == kmsg.ConfigSourceDynamicTopicConfig {
					own[topic.Name][c.Key] = c.Value
				}
			}
		}
	}
	return own, nil
}

// hold keeps the topics from deleting records.
func (r *refilling) hold(ctx context.Context) error {
	return r.alter(ctx, func(string) (alter []kadm.AlterConfig) {
		for _, name := range slices.Sorted(maps.Keys(heldOff)) {
			value := heldOff[name]
			alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
		}
		return alter
	})
}

// release gives the topics back the configurations that they had.
func (r *refilling) release(ctx context.Context) error {
	return r.alter(ctx, func(topic string) (alter []kadm.AlterConfig) {
		for _, name := range slices.Sorted(maps.Keys(heldOff)) {
			a := kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name}
			if value := r.note.Configs[topic][name]; value != nil {
				a.Op, a.Value = kadm.SetConfig, value
			}
			alter = append(alter, a)
		}
		return alter
	})
}

func (r *refilling) alter(ctx context.Context, to func(topic string) []kadm.AlterConfig) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, topic := range r.names() {
		altered, err := r.admin.AlterTopicConfigs(ctx, to(topic), topic)
		for _, a := range altered {
			err = errors.Join(err, a.Err)
		}
		if err != nil {
			return fmt.Errorf("retention of topic %s of %s: %w", topic, r.job.Config.Region, err)
		}
	}
	return nil
}
