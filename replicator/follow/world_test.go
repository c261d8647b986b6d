package follow_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// world is the Kafka clusters of two regions behind a virtual network in a bubble
// of simulated time.
type world struct {
	*testing.T
	us, eu *cluster // the source and the destination
}

// cluster is one region's Kafka with a client of the test's.
type cluster struct {
	*kfake.Cluster
	t      *testing.T
	net    *kfake.VirtualNetwork
	ports  []int
	client *kgo.Client
	adm    *kadm.Client
}

const (
	origin  = "us."
	brokers = 2
)

func mirror(topic string) string { return origin + topic }

func all(string) bool { return true }

// simulate runs a test with two clusters.
func simulate(t *testing.T, test func(w *world), opts ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { bubble(t, test, opts...) })
}

// bubble is simulate inside a bubble.
func bubble(t *testing.T, test func(w *world), opts ...kfake.Opt) {
	t.Helper()
	net := &kfake.VirtualNetwork{}
	w := &world{T: t, us: up(t, net, 9000, opts), eu: up(t, net, 9100, opts)}
	defer func() {
		for _, c := range []*cluster{w.us, w.eu} {
			c.client.Close()
			c.Close()
		}
		time.Sleep(time.Minute) // answers on their way
		synctest.Wait()
	}()
	test(w)
}

func up(t *testing.T, net *kfake.VirtualNetwork, port int, opts []kfake.Opt) *cluster {
	t.Helper()
	c := &cluster{t: t, net: net}
	for i := range brokers {
		c.ports = append(c.ports, port+i)
	}
	kafka, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(brokers), kfake.Ports(c.ports...), kfake.ListenFn(net.Listen)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	c.Cluster = kafka
	c.client = c.dial(opts != nil)
	c.adm = kadm.NewClient(c.client)
	return c
}

// dial makes a client; the superuser's if the cluster wants to know.
func (c *cluster) dial(asAdmin bool, more ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	if asAdmin {
		more = append(more, kgo.SASL(plain.Auth{User: "admin", Pass: "admin"}.AsMechanism()))
	}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(fmt.Sprintf("127.0.0.1:%d", c.ports[0])), kgo.Dialer(c.net.DialContext),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(250 * time.Millisecond),
	}, more...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// later lets cached metadata age, as between two passes of a link.
func (w *world) later() { time.Sleep(time.Second) }

// do is for what cannot fail unless the test is wrong.
func (c *cluster) do(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// create makes a topic with configs.
func (c *cluster) create(topic string, partitions int32, configs map[string]string) {
	c.t.Helper()
	c.do(c.CreateTopic(topic, partitions, configs))
}

// set alters configs of a topic; an empty value removes one.
func (c *cluster) set(topic string, configs map[string]string) {
	c.t.Helper()
	var alter []kadm.AlterConfig
	for k, v := range configs {
		op := kadm.SetConfig
		if v == "" {
			op = kadm.DeleteConfig
		}
		alter = append(alter, kadm.AlterConfig{Op: op, Name: k, Value: &v})
	}
	r, err := c.adm.AlterTopicConfigs(context.Background(), alter, topic)
	c.do(err)
	c.do(r[0].Err)
}

// configs are the effective ones of a topic.
func (c *cluster) configs(topic string) map[string]string {
	c.t.Helper()
	rs, err := c.adm.DescribeTopicConfigs(context.Background(), topic)
	c.do(err)
	c.do(rs[0].Err)
	m := map[string]string{}
	for _, kv := range rs[0].Configs {
		m[kv.Key] = kv.MaybeValue()
	}
	return m
}

// fill appends records to a partition.
func (c *cluster) fill(topic string, partition int32, n int) {
	c.t.Helper()
	for range n {
		c.do(c.client.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("x")}).FirstErr())
	}
}

// commit sets a group's offset, as a consumer outside of the group does.
func (c *cluster) commit(group, topic string, partition int32, at int64) {
	c.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: 3, Metadata: "from " + group})
	c.do(c.adm.CommitAllOffsets(context.Background(), group, os))
}

// committed is a group's offset, -1 if it has none.
func (c *cluster) committed(group, topic string, partition int32) kadm.Offset {
	c.t.Helper()
	os, err := c.adm.FetchOffsets(context.Background(), group)
	if err != nil {
		return kadm.Offset{At: -1}
	}
	o, ok := os.Lookup(topic, partition)
	c.do(o.Err)
	if !ok {
		return kadm.Offset{At: -1}
	}
	return o.Offset
}
