package replicator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/follow"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Relay is a peer that has mirrors of the same origin. When the origin cannot be
// reached, a link takes from it what it lacks: mirrors are exact copies, and the
// peer's link topic says which offsets of the log they have, where those are not the
// mirror's own.
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
func (m *mover) relayTopics(ctx context.Context) (outcome, error) {
	if err := m.relay.book.Refresh(ctx); err != nil {
		return outcome{}, fmt.Errorf("link topic of %s: %w", m.relay.region, err)
	}
	if err := m.knownTopics(ctx); err != nil {
		return outcome{}, err
	}
	m.lookAgain()
	return outcome{}, nil
}

// knownTopics makes parts of all that was ever mirrored from the origin, and is still to be. It
// makes no topics: what the origin's are like cannot, or is not to, be looked at.
func (m *mover) knownTopics(ctx context.Context) error {
	var topics []follow.TopicState
	reasons := map[string]string{}
	for _, topic := range m.ledger.Topics() {
		if !m.cfg.selects(topic) { // it is not configured any more
			continue
		}
		mirror := m.cfg.Origin.MirrorTopic(topic)
		meta, err := m.dest.metadata(ctx, []string{mirror})
		if err != nil {
			return err
		}
		t := meta[mirror]
		if errors.Is(t.err, kerr.UnknownTopicOrPartition) {
			continue // deleted long ago, perhaps; whoever looks at the origin's topics makes it, or tells of it
		}
		state := follow.TopicState{Topic: topic, Mirror: mirror, Partitions: len(t.leaders), MirrorPartitions: len(t.leaders)}
		if state.Configured, state.Ready = t.err == nil, t.err == nil; t.err != nil {
			reasons[topic] = fmt.Sprintf("mirror %s in %s: %v", mirror, m.dest.name, t.err)
		}
		topics = append(topics, state)
	}
	m.setTopics(topics, reasons)
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

// findRelayed checks that a peer's mirrors are of the same logs, and finds out what
// offsets of the log they have, up to where the peer's link has written them and knows
// where: what comes behind is not the origin's, or not known to be.
func (m *mover) findRelayed(ctx context.Context, todo []*locating) error {
	if m.relay == nil {
		return nil
	}
	// After the ends of the mirrors: then it tells of all that they have.
	if err := m.relay.book.Refresh(ctx); err != nil {
		return fmt.Errorf("link topic of %s: %w", m.relay.region, err)
	}
	set := kadm.TopicsSet{}
	for _, l := range todo {
		facts, known := m.relay.book.Mirror(l.topic)
		if !known {
			l.fail(fmt.Errorf("%s does not mirror topic %s of %s", m.relay.region, l.topic, m.cfg.Origin))
		}
		l.f.sourceID = facts.SourceTopicID
		set.Add(l.log, l.num)
	}
	described, err := m.source.admin.DescribeProducers(ctx, set)
	if err != nil {
		return fmt.Errorf("producers of %s: %w", m.source.name, err)
	}
	for _, l := range todo {
		l.f.until = written(m.relay.book, l.partition.ledger(), l.f.sourceEnd, described[l.log].Partitions[l.num].ActiveProducers)
		m.translateRelayed(l)
	}
	return nil
}

// translateRelayed makes offsets of the log of what was found of a peer's mirror.
func (m *mover) translateRelayed(l *locating) {
	key := l.partition.ledger()
	l.peer = m.relay.book.Map(key)
	start, _ := l.peer.Source(l.f.sourceStart)
	end := upTo(m.relay.book, key, l.peer, l.f.until)
	next, mapped := l.f.next()
	if mapped && next < start && !(l.f.fresh && l.f.mirrorEnd == 0) {
		// The origin may have it, or another peer.
		l.fail(fmt.Errorf("%s has %s from offset %d of the log on, and %d comes next", m.relay.region, l.partition, start, next))
	}
	// To have less than the mirror is no loss: of a peer it says that it is behind.
	l.f.sourceStart, l.f.sourceEnd = start, max(end, next)
}

// readFrom is where to read on in what is read, for an offset of the log.
func (l *locating) readFrom(next int64) int64 {
	if l.peer == nil {
		return next
	}
	from, _ := l.peer.Dest(next, l.f.until)
	return from
}

// origin is the offset of the log up to which a peer has it that has its mirror up to
// an offset.
func origin(peer *mapping.Map, offset int64) int64 {
	last, known := peer.Source(offset - 1)
	if offset == 0 || !known {
		return 0
	}
	return last + 1
}

// origin is the offset of the log up to which has been read what was read up to an
// offset.
func (fl *flow) origin(offset int64) int64 {
	if fl.peer == nil {
		return offset
	}
	return origin(fl.peer, offset)
}

// originRuns says where in the log records come from.
func (fl *flow) originRuns(runs []batch.Run) (list []batch.Run) {
	if fl.peer == nil {
		return runs
	}
	for _, r := range runs {
		end := r.Source + int64(r.Count)
		cut := fl.peer.Cut(r.Source, end)
		for i, c := range cut {
			next := end
			if i+1 < len(cut) {
				next = cut[i+1].Dest
			}
			list = append(list, batch.Run{Source: c.Source, Count: int32(next - c.Dest)})
		}
	}
	return list
}
