package sim

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sessionGrace is how much longer than kfake a sessions waits.
const sessionGrace = 2 * time.Second

// sessions ends the place that a process has in its group of the classic protocol when
// nothing was heard of it for its session timeout, as a broker does.
//
// Usually kfake does it by itself. It does not if the process has died while it waited for
// an answer to JoinGroup or SyncGroup (groups.go, (*group).reply): the answer cannot be
// delivered, and then no timer is started. If another member is the group's leader, the dead one
// is assigned its share of the shards for ever. Kafka starts the timer of every member when a
// rebalance is complete, whatever becomes of the answers (completeClassicGroupJoin in
// GroupMetadataManager.java), and so ends the dead one a session timeout later.
type sessions struct {
	kafka  *kfake.Cluster
	client *kgo.Client
	group  string
	end    context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	heard map[string]heard // by the name that a process has in the group
}

// heard is when there was last a request of a process.
type heard struct {
	at      time.Time
	timeout time.Duration // of its session
}

func newSessions(r *Region) (*sessions, error) {
	client, err := r.dial()
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	s := &sessions{kafka: r.kafka, client: client, group: r.config().Group, end: end, ended: make(chan struct{}), heard: map[string]heard{}}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat} {
		s.kafka.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
			s.hear(req)
			return nil, nil, false
		})
	}
	go s.run(ctx)
	return s, nil
}

func (s *sessions) hear(req kmsg.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch req := req.(type) {
	case *kmsg.JoinGroupRequest:
		if req.InstanceID != nil {
			s.heard[*req.InstanceID] = heard{time.Now(), time.Duration(req.SessionTimeoutMillis) * time.Millisecond}
		}
	case *kmsg.SyncGroupRequest:
		s.hearAgain(req.InstanceID)
	case *kmsg.HeartbeatRequest:
		s.hearAgain(req.InstanceID)
	}
}

func (s *sessions) hearAgain(name *string) {
	if name != nil {
		s.heard[*name] = heard{time.Now(), s.heard[*name].timeout}
	}
}

// run looks at the group again and again until the context ends.
func (s *sessions) run(ctx context.Context) {
	defer close(s.ended)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	answered := map[string]time.Time{} // when members were last seen not to wait for a rebalance, by id
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		answered = s.look(ctx, answered)
	}
}

// look ends the places of members that have been silent for too long since their rebalance
// was complete.
func (s *sessions) look(ctx context.Context, before map[string]time.Time) map[string]time.Time {
	since := map[string]time.Time{}
	group := s.kafka.GroupInfo(s.group)
	if group == nil || group.State == "PreparingRebalance" {
		return since
	}
	for _, m := range group.Members {
		if m.InstanceID == nil {
			continue // it is not of the classic protocol
		}
		var known bool
		if since[m.MemberID], known = before[m.MemberID]; !known {
			since[m.MemberID] = time.Now()
		}
		s.mu.Lock()
		last := s.heard[*m.InstanceID]
		s.mu.Unlock()
		if most := last.timeout + sessionGrace; last.timeout > 0 && time.Since(last.at) > most && time.Since(since[m.MemberID]) > most {
			s.leave(ctx, m.MemberID)
		}
	}
	return since
}

// leave has a member leave by its id, which a process that has come back does not have.
func (s *sessions) leave(ctx context.Context, id string) {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = s.group
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID = id
	req.Members = append(req.Members, member)
	_, _ = req.RequestWith(ctx, s.client) // tried again with the next look
}

// close ends the looking.
func (s *sessions) close() {
	s.end()
	<-s.ended
	s.client.Close()
}
