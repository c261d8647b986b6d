package linkbench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const topicPatience = 15 * time.Second // for a topic that was made to be there

// createTopic makes a topic that takes batches as they are and whose files go as
// soon as it is deleted: the default of a minute would keep several cases' logs
// on the disk.
func (c *cluster) createTopic(ctx context.Context, topic string, partitions int32) error {
	setting := func(s string) *string { return &s }
	_, err := kadm.NewClient(c.client).CreateTopic(ctx, partitions, 1, map[string]*string{
		"file.delete.delay.ms": setting("100"), "retention.ms": setting("-1"), "compression.type": setting("producer"),
	}, topic)
	if err != nil {
		return fmt.Errorf("topic %s at %s: %w", topic, c.address, err)
	}
	return c.awaitEmpty(ctx, topic, partitions)
}

// awaitEmpty waits until the broker, too, has heard of a topic that the controller
// has just made, and no longer knows one of the same name that was deleted before.
func (c *cluster) awaitEmpty(ctx context.Context, topic string, partitions int32) error {
	ctx, cancel := context.WithTimeout(ctx, topicPatience)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		n, err := c.records(ctx, topic, partitions)
		if err == nil && n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("topic %s at %s is not there and empty: %d records, %w", topic, c.address, n, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// deleteTopics deletes all but the brokers' own: also what MirrorMaker 2 keeps
// for itself, so that it never takes up an earlier case's work.
func (c *cluster) deleteTopics(ctx context.Context) error {
	answer, err := c.client.Broker(brokerID).Request(ctx, kmsg.NewPtrMetadataRequest()) // clients cache what they list
	if err != nil {
		return fmt.Errorf("topics of %s: %w", c.address, err)
	}
	var names []string
	for _, t := range answer.(*kmsg.MetadataResponse).Topics {
		if t.Topic != nil && !strings.HasPrefix(*t.Topic, "__") {
			names = append(names, *t.Topic)
		}
	}
	if len(names) == 0 {
		return nil
	}
	deleted, err := kadm.NewClient(c.client).DeleteTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("deleting topics of %s: %w", c.address, err)
	}
	for _, d := range deleted {
		if d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) { // the broker may list what has just gone
			return fmt.Errorf("deleting topic %s of %s: %w", d.Topic, c.address, d.Err)
		}
	}
	return nil
}

// records sums the end offsets of a topic's partitions: one small request, so that
// asking often costs next to nothing.
func (c *cluster) records(ctx context.Context, topic string, partitions int32) (int64, error) {
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for i := range partitions {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = i, -1 // the end
		t.Partitions = append(t.Partitions, p)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.Topics = append(req.Topics, t)
	answer, err := c.client.Broker(brokerID).Request(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("ends of topic %s at %s: %w", topic, c.address, err)
	}
	var n int64
	for _, t := range answer.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return 0, fmt.Errorf("end of topic %s, partition %d, at %s: %w", topic, p.Partition, c.address, kerr.ErrorForCode(p.ErrorCode))
			}
			n += p.Offset
		}
	}
	return n, nil
}
