package replicator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/wire"
)

// topicID is Kafka's id of one creation of a topic.
type topicID [16]byte

func (id topicID) String() string { return kadm.TopicID(id).String() }

// cluster is one side of a link: a client for questions, and what it takes to
// open connections for data.
type cluster struct {
	name   string // of the region, for errors
	client *kgo.Client
	admin  *kadm.Client
	dialer *wire.Dialer

	mu      sync.Mutex
	brokers map[int32]string // addresses
}

func newCluster(name string, opts []kgo.Opt) (*cluster, error) {
	client, err := kgo.NewClient(append(slices.Clone(opts), kgo.MetadataMinAge(metadataMinAge))...)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", name, err)
	}
	return &cluster{
		name: name, client: client, admin: kadm.NewClient(client), dialer: wire.NewDialer(client),
		brokers: map[int32]string{},
	}, nil
}

func (c *cluster) close() { c.client.Close() }

// leader is who leads a partition.
type leader struct {
	broker int32 // none: -1
	epoch  int32
}

// topicMeta is what a cluster says about a topic.
type topicMeta struct {
	id      topicID
	err     error
	leaders map[int32]leader // of all partitions
}

// metadata asks where topics are. Topics that do not exist have an error.
func (c *cluster) metadata(ctx context.Context, topics []string) (map[string]topicMeta, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	if len(topics) == 0 {
		req.Topics = []kmsg.MetadataRequestTopic{} // none, rather than all
	}
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", c.name, err)
	}
	c.learn(resp)
	found := map[string]topicMeta{}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		m := topicMeta{id: t.TopicID, err: kerr.ErrorForCode(t.ErrorCode), leaders: map[int32]leader{}}
		for _, p := range t.Partitions {
			l := leader{p.Leader, p.LeaderEpoch}
			if err := kerr.ErrorForCode(p.ErrorCode); errors.Is(err, kerr.LeaderNotAvailable) {
				l.broker = -1
			}
			m.leaders[p.Partition] = l
		}
		found[*t.Topic] = m
	}
	return found, nil
}

func (c *cluster) learn(resp *kmsg.MetadataResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range resp.Brokers {
		c.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
}

// learnBroker notes an address that a hint about a new leader brought (KIP-951).
func (c *cluster) learnBroker(id int32, host string, port int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.brokers[id] = net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// connect opens a connection for data to a broker.
func (c *cluster) connect(ctx context.Context, broker int32) (*wire.Conn, error) {
	c.mu.Lock()
	address, known := c.brokers[broker]
	c.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("broker %d is not known", broker)
	}
	conn, err := c.dialer.Connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("broker %d: %w", broker, err)
	}
	return conn, nil
}

const topicsPerRequest = 500 // asked for their configurations

// compacted tells which topics are, of those of which it can be known.
func (c *cluster) compacted(ctx context.Context, topics []string) (map[string]bool, error) {
	found := map[string]bool{}
	for some := range slices.Chunk(topics, topicsPerRequest) {
		if err := c.compactedSome(ctx, some, found); err != nil {
			return nil, fmt.Errorf("configuration of topics of %s: %w", c.name, err)
		}
	}
	return found, nil
}

func (c *cluster) compactedSome(ctx context.Context, topics []string, found map[string]bool) error {
	configs, err := c.admin.DescribeTopicConfigs(ctx, topics...)
	var denied *kadm.AuthError
	switch half := len(topics) / 2; {
	case errors.As(err, &denied) && half == 0:
		return nil
	case errors.As(err, &denied): // for one of them, which hides the others
		return cmp.Or(c.compactedSome(ctx, topics[:half], found), c.compactedSome(ctx, topics[half:], found))
	case err != nil:
		return err
	}
	for _, t := range configs {
		for _, config := range t.Configs {
			if t.Err == nil && config.Key == "cleanup.policy" {
				found[t.Name] = strings.Contains(config.MaybeValue(), "compact")
			}
		}
	}
	return nil
}
