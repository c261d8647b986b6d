package replicator

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// session is an incremental fetch session with one broker (KIP-227): a request
// names only what has changed since the one before, an answer only what has
// something new. The zero session opens one.
type session struct {
	id    int32
	epoch int32
	known map[partition]asked
	sent  map[partition]asked // of the request under way
}

// asked is what a broker was asked for of a partition.
type asked struct {
	topic     topicID
	offset    int64
	leader    int32 // epoch
	lastEpoch int32
	bytes     int32
}

const partitionBytes = 8 << 20 // at most, of one partition in one answer

// request makes the next request of the session.
func (s *session) request(want wanted) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID = -1
	req.MinBytes = 1
	req.MaxBytes = int32(want.granted)
	req.IsolationLevel = readCommitted
	req.SessionID, req.SessionEpoch = s.id, s.epoch
	s.sent = map[partition]asked{}
	topics := map[topicID]int{}
	for p, fl := range want.flows {
		a := asked{
			topic: fl.part.sourceID, offset: fl.next, leader: fl.leader.epoch, lastEpoch: fl.epoch,
			bytes: int32(min(partitionBytes, want.granted)),
		}
		s.sent[p] = a
		if s.known[p] == a {
			continue
		}
		i, ok := topics[a.topic]
		if !ok {
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = fl.part.log, a.topic
			i = len(req.Topics)
			topics[a.topic] = i
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition = p.num
		rp.CurrentLeaderEpoch = a.leader
		rp.FetchOffset = a.offset
		rp.LastFetchedEpoch = a.lastEpoch
		rp.LogStartOffset = -1
		rp.PartitionMaxBytes = a.bytes
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
	}
	req.ForgottenTopics = s.forgotten()
	return req
}

// forgotten are the partitions that the broker knows and is to forget.
func (s *session) forgotten() []kmsg.FetchRequestForgottenTopic {
	byTopic := map[topicID]*kmsg.FetchRequestForgottenTopic{}
	for p, a := range s.known {
		if b, still := s.sent[p]; still && b.topic == a.topic {
			continue
		}
		t := byTopic[a.topic]
		if t == nil {
			n := kmsg.NewFetchRequestForgottenTopic()
			n.Topic, n.TopicID = p.topic, a.topic
			t = &n
			byTopic[a.topic] = t
		}
		t.Partitions = append(t.Partitions, p.num)
	}
	var list []kmsg.FetchRequestForgottenTopic
	for _, t := range byTopic {
		list = append(list, *t)
	}
	return list
}

// answered notes that the request was answered.
func (s *session) answered(resp *kmsg.FetchResponse) {
	s.known, s.sent = s.sent, nil
	if resp.SessionID == 0 { // the broker has no room for another session
		*s = session{}
		return
	}
	s.id = resp.SessionID
	s.epoch++
	if s.epoch <= 0 { // past the largest: Kafka goes on at 1
		s.epoch = 1
	}
}

// forget lets the next request name a partition again, or name it as forgotten.
// As long as the broker has a partition in the session that it does not lead, it
// answers every fetch at once.
func (s *session) forget(p *part) {
	if a, known := s.known[p.partition]; known {
		a.offset = -1
		s.known[p.partition] = a
	}
}
