package replicator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/follow"
	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// Relay is a peer that has mirrors of the same origin. When the origin cannot be
// reached, a link takes from it what it lacks: mirrors are exact copies, so the
// offsets are the same.
//
// Only logs without holes are relayed: where offsets are mapped, two mirrors need
// not have the same ones.
type Relay struct {
	Region events.Region
	Opts   []kgo.Opt // reach its cluster
}

const (
	relayAfter = 30 * time.Second // of an origin's silence; and how long a peer is asked before the next one is
	probePause = 5 * time.Second
)

var (
	errOriginLost = errors.New("the origin cannot be reached")
	errOriginBack = errors.New("the origin can be reached again")
	errNextRelay  = errors.New("the next peer is asked")
)

// relaying is what a mover knows of the peer that stands in for the origin.
type relaying struct {
	region events.Region
	book   *ledger.Ledger // of the peer's own link from the origin; only read
	began  time.Time
}

// nextSource decides from where to mirror after a run from at (a relay, or
// the origin) that ended with an error.
func (l *Link) nextSource(at int, err error) int {
	switch {
	case errors.Is(err, errOriginLost), errors.Is(err, errNextRelay):
		return (at + 1) % len(l.cfg.Relays)
	case errors.Is(err, errOriginBack):
		return fromOrigin
	case at >= 0:
		return (at+2)%(len(l.cfg.Relays)+1) - 1 // this peer cannot be reached either: the others, and the origin
	}
	return fromOrigin
}

// watchSource ends the mover when its source is silent for long, or is a peer
// that is not needed any more.
func (m *mover) watchSource(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, probePause)
		switch {
		case m.relay == nil:
			if m.silentFor() > relayAfter {
				m.end(errOriginLost)
			}
		case m.originAnswers(ctx):
			m.end(errOriginBack)
		case time.Since(m.relay.began) > relayAfter && (m.silentFor() > relayAfter || m.relayedAll()):
			m.end(errNextRelay)
		}
	}
}

// heard notes that the source has answered.
func (m *mover) heard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heardAt = time.Now()
}

func (m *mover) silentFor() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.heardAt)
}

// relayedAll reports whether the peer has nothing that this destination lacks.
func (m *mover) relayedAll() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		if p.flow != nil && (p.flow.read < p.flow.until || !p.flow.idle()) {
			return false
		}
	}
	return true
}

// originAnswers asks the origin for anything at all.
func (m *mover) originAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probePause)
	defer cancel()
	origin, err := newCluster(m.cfg.Origin.String(), append(m.origin[:len(m.origin):len(m.origin)], kgo.WithContext(ctx)))
	if err != nil {
		return false
	}
	defer origin.close()
	_, err = origin.metadata(ctx, nil)
	return err == nil
}

// relayTopics makes parts of what is relayed.
func (m *mover) relayTopics(ctx context.Context) (problems []string, err error) {
	if err := m.relay.book.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("link topic of %s: %w", m.relay.region, err)
	}
	if err := m.knownTopics(ctx); err != nil {
		return nil, err
	}
	m.lookAgain()
	return nil, nil
}

// knownTopics makes parts of all that was ever mirrored from the origin. It makes
// no topics: what the origin's are like cannot, or is not to, be looked at.
func (m *mover) knownTopics(ctx context.Context) error {
	var topics []follow.TopicState
	for _, topic := range m.ledger.Topics() {
		mirror := m.cfg.Origin.MirrorTopic(topic)
		meta, err := m.dest.metadata(ctx, []string{mirror})
		if err != nil {
			return err
		}
		if t := meta[mirror]; t.err == nil {
			topics = append(topics, follow.TopicState{Topic: topic, Mirror: mirror, Partitions: len(t.leaders), Ready: true})
		}
	}
	m.setTopics(topics)
	return nil
}

// lookAgain locates parts anew that have taken all that the peer had: it may have
// more by now.
func (m *mover) lookAgain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.parts {
		if p.flow != nil && p.flow.read >= p.flow.until && p.flow.idle() {
			m.interruptLocked(p.flow, nil)
		}
	}
}

// findRelayed checks that a peer's mirrors are of the same logs and have the same
// offsets, and up to where its link has written them: what comes behind is not the
// origin's.
func (m *mover) findRelayed(ctx context.Context, todo []*locating) error {
	if m.relay == nil {
		return nil
	}
	set := kadm.TopicsSet{}
	for _, l := range todo {
		l.f.until = l.f.sourceEnd
		facts, known := m.relay.book.Mirror(l.topic)
		switch key := l.partition.ledger(); {
		case !known:
			l.fail(fmt.Errorf("%s does not mirror topic %s of %s", m.relay.region, l.topic, m.cfg.Origin))
		case !l.f.runs.Identity() || !m.relay.book.Map(key).Identity():
			l.fail(fmt.Errorf("%s has holes, and cannot be relayed from %s", l.partition, m.relay.region))
		}
		l.f.sourceID = facts.SourceTopicID
		set.Add(l.log, l.num)
	}
	described, err := m.source.admin.DescribeProducers(ctx, set)
	if err != nil {
		return fmt.Errorf("producers of %s: %w", m.source.name, err)
	}
	for _, l := range todo {
		producer, proposed := m.relay.book.Producer(l.partition.ledger())
		d := described[l.log].Partitions[l.num]
		if state, ok := d.ActiveProducers[producer.ID]; ok && proposed && state.LastSequence >= 0 {
			peer := findings{mirrorEnd: l.f.sourceEnd, lastSequence: state.LastSequence}
			if !peer.ahead() {
				l.f.until = l.f.sourceEnd - peer.extra()
				l.f.sourceEnd = l.f.until
			}
		}
	}
	return nil
}
