package claims

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/trouble"
)

const (
	commitTimeout = 1 * time.Second

	// A node that is gone for longer than this loses its place in the group. (Under
	// the consumer protocol the brokers decide, see group_protocol.)
	sessionTimeout    = 10 * time.Second
	heartbeatInterval = 1 * time.Second

	// ReclaimPause is after which a node claims again at the earliest what was taken from it
	// and it is assigned: by then one of the two knows better from the group.
	ReclaimPause = 3 * heartbeatInterval
)

// Member is this node's place in the region's consumer group. The group shares
// out the partitions of the claims topic and with them the shards; it fetches
// nothing. What it assigns is what a node is to claim; who owns a shard is said
// by the claims.
type Member struct {
	cfg    *config.Config
	client *kgo.Client
	name   string // in the group; empty: the group gives one
	log    *slog.Logger

	mu       sync.Mutex
	joined   bool // the group has assigned something, be it nothing
	assigned map[int32]bool
	trouble  *trouble.Recent
}

// NewMember joins the group. changed is called after every change of what is
// assigned, from a goroutine of the client.
func NewMember(opts []kgo.Opt, name string, cfg *config.Config, changed func(), log *slog.Logger) (*Member, error) {
	m := &Member{cfg: cfg, name: name, log: log, assigned: map[int32]bool{}}
	topic := Topic(cfg)
	opts = append(opts,
		kgo.ConsumerGroup(cfg.Group),
		kgo.MaxVersions(commitVersions()),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval),
		kgo.ConsumeTopics(topic),
		// A shard that moves has to be opened and replayed, so as few move as may be.
		kgo.Balancers(kgo.StickyBalancer()),
		kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return nil, nil // nothing is fetched
		}),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			m.assign(topics[topic])
			changed()
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
			m.revoke(topics[topic])
			changed()
		}),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) {
			m.lose()
			changed()
		}),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	if m.isConsumer() {
		m.name = ""
		opts = append(opts, kgo.ServerSideBalancer())
	} else {
		// Killed and started again, a node goes on at once, rather than after the
		// session timeout.
		opts = append(opts, kgo.InstanceID(name))
	}
	var err error
	if m.client, err = kgo.NewClient(opts...); err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", cfg.Region, err)
	}
	return m, nil
}

// isConsumer reports whether the group has the brokers' protocol (KIP-848).
func (m *Member) isConsumer() bool { return m.cfg.GroupProtocol == config.GroupConsumer }

// assign takes in what the group has assigned: under the consumer protocol what
// comes to what there is, under the classic one everything.
func (m *Member) assign(partitions []int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.isConsumer() {
		clear(m.assigned)
	}
	for _, p := range partitions {
		m.assigned[p] = true
	}
	m.joined, m.trouble = true, nil
}

// revoke takes in what the group takes back. Under the classic protocol that is
// everything, each time that anybody comes or goes, and says nothing of what is
// assigned next.
func (m *Member) revoke(partitions []int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.isConsumer() {
		return
	}
	for _, p := range partitions {
		delete(m.assigned, p)
	}
}

// lose takes in that the group has gone on without this node.
func (m *Member) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.assigned)
	m.joined = false
}

// Has reports whether this node is to own a shard.
func (m *Member) Has(partition int32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.assigned[partition]
}

// Watch takes in what the client has to complain about, until the context ends.
func (m *Member) Watch(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := m.client.PollFetches(ctx)
		for _, fe := range fetches.Errors() {
			if ctx.Err() != nil {
				return
			}
			m.tell(fmt.Errorf("group %s of %s: %w", m.cfg.Group, m.cfg.Region, fe.Err))
		}
		pause.For(ctx, errorPause)
	}
}

func (m *Member) tell(err error) {
	m.mu.Lock()
	known := m.trouble.IsFresh()
	m.trouble = &trouble.Recent{Err: err, At: time.Now()}
	m.mu.Unlock()
	if !known {
		m.log.Warn("the group does not answer, or not as it should", "error", err)
	}
}

// Problem says why this node has no proper place in the group.
func (m *Member) Problem() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.trouble.IsFresh():
		return m.trouble.Err
	case !m.joined:
		return events.Errorf(events.KindNotReady, "group %s of %s has not given this node its place yet", m.cfg.Group, m.cfg.Region)
	}
	return nil
}

// Commit stores places in logs as the group's offsets, for tools that show lag, and so that it is
// known of what retention takes away that it was read; see Committed. The client's own commits are of
// what it has fetched, and wait for rebalances.
func (m *Member) Commit(places map[events.Log]Place) {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	name, generation := m.client.GroupMetadata()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = m.cfg.Group, name, generation
	if m.name != "" {
		req.InstanceID = &m.name
	}
	byTopic := map[string][]kmsg.OffsetCommitRequestTopicPartition{}
	for log, place := range places {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = log.Partition, place.Read, -1, place.note(log)
		topic := m.cfg.TopicOf(log)
		byTopic[topic] = append(byTopic[topic], p)
	}
	for topic, partitions := range byTopic {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req.Topics = append(req.Topics, t)
	}
	if len(req.Topics) == 0 || generation < 0 {
		return
	}
	res, err := req.RequestWith(ctx, m.client)
	if err == nil && len(res.Topics) > 0 && len(res.Topics[0].Partitions) > 0 {
		err = kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		m.log.Debug("group offsets were not committed", "error", err)
	}
}

// commitVersions are the versions of requests that name topics as topics: from
// version 10 on offsets are committed by the ids of topics.
func commitVersions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.OffsetCommit), 9)
	return v
}

// Close ends the membership. A static member keeps its place when it goes
// silent, so that a restart after a crash is quick; one that stops on purpose says
// so, and nobody waits for it.
func (m *Member) Close(places map[events.Log]Place) {
	m.Commit(places)
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	if m.name != "" {
		_, err := kadm.NewClient(m.client).LeaveGroup(ctx, kadm.LeaveGroup(m.cfg.Group).InstanceIDs(m.name).Reason("node stops"))
		if err != nil {
			m.log.Debug("group was not told that the node stops", "error", err)
		}
	}
	m.client.Close()
}
