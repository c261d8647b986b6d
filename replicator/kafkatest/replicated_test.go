//go:build kafka

package kafkatest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
)

const replicatedBrokers = 3

// replicated is a region's cluster of several brokers. Topics have all of them as
// replicas, two of which must have a batch before it is acknowledged, unless a topic
// says otherwise.
type replicated struct {
	*cluster
	nodes []*broker
}

func newReplicated(t *testing.T, r events.Region) *replicated {
	t.Helper()
	nodes := ownBrokers(t, replicatedBrokers, func(b *broker) []string {
		listener := "PLAINTEXT://" + address(b.ports.client)
		return []string{
			"listeners=" + listener + ",CONTROLLER://" + address(b.ports.controller),
			"advertised.listeners=" + listener,
			"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"inter.broker.listener.name=PLAINTEXT",
			fmt.Sprintf("default.replication.factor=%d", replicatedBrokers), "min.insync.replicas=2",
			fmt.Sprintf("offsets.topic.replication.factor=%d", replicatedBrokers),
			fmt.Sprintf("transaction.state.log.replication.factor=%d", replicatedBrokers), "transaction.state.log.min.isr=2",
			"replica.lag.time.max.ms=4000", // a follower that is frozen is soon out of sync
		}
	})
	var seeds []string
	for _, b := range nodes {
		b.start()
		seeds = append(seeds, address(b.ports.client))
	}
	c := &replicated{nodes: nodes}
	awaitServing(t, nodes, []kgo.Opt{kgo.SeedBrokers(seeds...)})
	c.cluster = clusterAt(t, r, strings.Join(seeds, ","), replicatedBrokers, nil)
	return c
}

// in is the same cluster under another region's name, for a test of its own, with all
// brokers in service.
func (c *replicated) in(t *testing.T, r events.Region) *replicated {
	t.Helper()
	mine := &replicated{cluster: clusterAt(t, r, c.address, replicatedBrokers, nil), nodes: c.nodes}
	mine.repair()
	return mine
}

// node is a broker by its id.
func (c *replicated) node(id int32) *broker { return c.nodes[id-1] }

// repair brings back all that were killed or frozen.
func (c *replicated) repair() {
	c.t.Helper()
	for _, b := range c.nodes {
		if b.frozen {
			b.thaw()
		}
		if b.cmd == nil {
			b.start()
		}
	}
	awaitServing(c.t, c.nodes, c.reach())
}

// partition is what the controller says of a partition.
func (c *replicated) partition(topic string, num int32) kadm.PartitionDetail {
	c.t.Helper()
	topics, err := c.admin.ListTopics(c.ctx(), topic)
	c.do(err)
	return topics[topic].Partitions[num]
}

// place creates a topic whose partitions have these replicas, the first of each its
// leader.
func (c *replicated) place(topic string, replicas [][]int32, configs ...string) {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, -1, -1
	for num, brokers := range replicas {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(num), brokers
		rt.ReplicaAssignment = append(rt.ReplicaAssignment, a)
	}
	for i := 0; i < len(configs); i += 2 {
		k := kmsg.NewCreateTopicsRequestTopicConfig()
		k.Name, k.Value = configs[i], &configs[i+1]
		rt.Configs = append(rt.Configs, k)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(c.ctx(), c.client)
	c.do(err)
	c.do(kerr.ErrorForCode(resp.Topics[0].ErrorCode))
	c.awaitLed(topic)
}

// reassign gives partitions other replicas, or the same in another order, and waits
// until they have all records.
func (c *replicated) reassign(topic string, replicas map[int32][]int32) {
	c.t.Helper()
	c.await("replicas move", func() error {
		req, set := kadm.AlterPartitionAssignmentsReq{}, kadm.TopicsSet{}
		for num, brokers := range replicas {
			req.Assign(topic, num, brokers)
			set.Add(topic, num)
		}
		done, err := c.admin.AlterPartitionAssignments(c.ctx(), req)
		if err == nil {
			err = done.Error()
		}
		if err != nil {
			return err
		}
		c.await("replicas have moved", func() error {
			under, err := c.admin.ListPartitionReassignments(c.ctx(), set)
			if err == nil && len(under[topic]) > 0 {
				err = errors.New("they move")
			}
			return err
		})
		return nil
	})
}

// elect lets the controller elect leaders: the first replica of each partition, or, if
// there is none and how says so, any that lives.
func (c *replicated) elect(how kadm.ElectLeadersHow, topic string, nums ...int32) error {
	c.t.Helper()
	set := kadm.TopicsSet{}
	set.Add(topic, nums...)
	done, err := c.admin.ElectLeaders(c.ctx(), how, set)
	if err != nil {
		return err
	}
	for _, num := range nums {
		if err := done[topic][num].Err; err != nil && !errors.Is(err, kerr.ElectionNotNeeded) {
			return fmt.Errorf("partition %d: %w", num, err)
		}
	}
	return nil
}

// awaitElected elects until partitions are led by a broker: the controller may not have
// noticed yet who lives and who does not.
func (c *replicated) awaitElected(how kadm.ElectLeadersHow, topic string, id int32, nums ...int32) {
	c.t.Helper()
	c.await(fmt.Sprintf("broker %d is elected", id), func() error {
		return cmp.Or(c.elect(how, topic, nums...), c.led(topic, id, nums...))
	})
}

func (c *replicated) await(what string, condition func() error) {
	c.t.Helper()
	w := &world{T: c.t}
	w.await(what, 2*patience, condition)
}

// awaitLeader waits until partitions are led by a broker.
func (c *replicated) awaitLeader(topic string, id int32, nums ...int32) {
	c.t.Helper()
	c.await(fmt.Sprintf("broker %d leads", id), func() error { return c.led(topic, id, nums...) })
}

// led reports who leads partitions if it is not this broker.
func (c *replicated) led(topic string, id int32, nums ...int32) error {
	c.t.Helper()
	for _, num := range nums {
		if p := c.partition(topic, num); p.Leader != id {
			return fmt.Errorf("partition %d is led by %d, epoch %d, in sync %v", num, p.Leader, p.LeaderEpoch, p.ISR)
		}
	}
	return nil
}

// awaitInSync waits until partitions have these replicas in sync, and no others.
func (c *replicated) awaitInSync(topic string, ids []int32, nums ...int32) {
	c.t.Helper()
	c.await(fmt.Sprintf("%v are in sync", ids), func() error {
		for _, num := range nums {
			p := c.partition(topic, num)
			if slices.Sort(p.ISR); !slices.Equal(p.ISR, ids) {
				return fmt.Errorf("partition %d is led by %d, in sync %v", num, p.Leader, p.ISR)
			}
		}
		return nil
	})
}

// upset is what happens to leaders, in one word.
func (c *replicated) upset(what, topic string, random *rand.Rand) {
	c.t.Helper()
	num := random.Int32N(partitions)
	switch what {
	case "reassign":
		moved := map[int32][]int32{}
		for num := range int32(partitions) {
			ids := []int32{1, 2, 3}
			random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			moved[num] = ids[:2+random.IntN(2)]
		}
		c.reassign(topic, moved)
		c.await("an election", func() error { return c.elect(kadm.ElectPreferredReplica, topic, 0, 1, 2) })
	case "leader": // killed
		if b := c.leader(topic, num); b != nil {
			b.kill()
			time.Sleep(time.Duration(random.IntN(6000)) * time.Millisecond) // before or after the controller notices
			b.start()
		}
	case "frozen": // a leader that does not know that it is none any more
		if b := c.leader(topic, num); b != nil {
			b.freeze()
			time.Sleep(time.Duration(1000+random.IntN(6000)) * time.Millisecond)
			b.thaw()
		}
	case "follower": // falls out of sync
		p := c.partition(topic, num)
		followers := slices.DeleteFunc(p.Replicas, func(id int32) bool { return id == p.Leader })
		b := c.node(followers[random.IntN(len(followers))])
		b.freeze()
		time.Sleep(time.Duration(4000+random.IntN(4000)) * time.Millisecond) // replica.lag.time.max.ms
		b.thaw()
	default:
		c.t.Fatalf("upset: %q", what)
	}
}

// leader is the broker that leads a partition, nil if none does.
func (c *replicated) leader(topic string, num int32) *broker {
	c.t.Helper()
	if id := c.partition(topic, num).Leader; id > 0 {
		return c.node(id)
	}
	return nil
}
