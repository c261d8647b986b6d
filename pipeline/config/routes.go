package config

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// Route is whose log a topic of the region's cluster holds, or mirrors.
type Route struct {
	Origin events.Origin
	Stream events.Stream
}

// Log is the log in a partition of the topic.
func (r Route) Log(partition int32) events.Log {
	return events.Log{Origin: r.Origin, Stream: r.Stream, Partition: partition}
}

// Routes maps every topic that the region folds, its own logs and the mirrors.
func (c *Config) Routes() map[string]Route {
	routes := map[string]Route{}
	for name, s := range c.Streams {
		routes[s.Topic] = Route{c.Origin(c.Region), name}
		for _, peer := range c.Peers() {
			origin := c.Origin(peer)
			routes[origin.MirrorTopic(s.Topic)] = Route{origin, name}
		}
	}
	return routes
}

// LogTopics are the topics of the logs, the same in every region, sorted.
func (c *Config) LogTopics() []string {
	var topics []string
	for _, s := range c.Streams {
		topics = append(topics, s.Topic)
	}
	slices.Sort(topics)
	return topics
}

// AttestationTopics are the region's own topic of attestations and its mirrors of the others', and whose
// they are.
func (c *Config) AttestationTopics() map[string]events.Origin {
	topics := map[string]events.Origin{c.AttestationTopic(): c.Origin(c.Region)}
	for _, peer := range c.Peers() {
		origin := c.Origin(peer)
		topics[origin.MirrorTopic(c.AttestationTopic())] = origin
	}
	return topics
}

// Shards are the numbers of all shards, in order.
func (c *Config) Shards() []int32 {
	all := make([]int32, c.Partitions)
	for p := range all {
		all[p] = int32(p)
	}
	return all
}

// hashKeys is Kafka's own way from a key to its partition: murmur2 of the key.
// For records with keys it holds no state.
var hashKeys = kgo.StickyKeyPartitioner(nil).ForTopic("")

// PartitionOf is the partition of a key that is written through the API, and by
// most other producers.
func (c *Config) PartitionOf(key []byte) int32 {
	if key == nil {
		key = []byte{} // no key would be any partition
	}
	return int32(hashKeys.Partition(&kgo.Record{Key: key}, int(c.Partitions)))
}

// CheckStream refuses a stream that is not configured.
func (c *Config) CheckStream(stream events.Stream) error {
	if _, ok := c.Streams[stream]; ok {
		return nil
	}
	var names []string
	for _, s := range c.StreamNames() {
		names = append(names, s.String())
	}
	return events.Errorf(events.KindNotFound, "stream %q is not configured; there is %s", stream, strings.Join(names, ", "))
}
