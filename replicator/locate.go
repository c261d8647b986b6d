package replicator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
	"github.com/evenkeel/evenkeel/replicator/wire"
)

// unreadMost is how often in a row the link topic may be unreadable before the
// link connects anew.
const unreadMost = 5

// locating is one part on its way to a new flow.
type locating struct {
	*part
	conn *wire.Conn // by which it will be appended; every fact is younger than it
	f    findings

	fresh     bool // no link has written this mirror before
	compares  bool // there is reason to compare the last record
	compacted bool // the source is
	doubted   int  // the part's doubts when it began to be looked at
	source    leader
	dest      leader
	epochs    []ledger.Epoch
	version   ledger.Version // of the runs
	peer      *mapping.Map   // of the peer whose mirror is read; nil: it is the log
	reasons   []error        // why it cannot be located now
}

// locateParts finds out where to go on, again and again, for whatever has been
// interrupted, until the mover ends.
func (m *mover) locateParts(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.kick:
		case <-timer.C:
		}
		due, next := m.due(time.Now())
		if len(due) > 0 {
			m.locate(ctx, due)
			_, next = m.due(time.Now())
		}
		timer.Reset(next)
	}
}

// due are the parts to be located now, and how long to wait for the next.
func (m *mover) due(now time.Time) (due []*part, next time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next = checkInterval
	for _, p := range m.parts {
		if p.flow != nil || p.unanswered > 0 || p.state.Stopped() || p.state == Paused {
			continue
		}
		if wait := p.retryAt.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		due = append(due, p)
	}
	slices.SortFunc(due, func(a, b *part) int { return a.compare(b.partition) })
	return due, next
}

// locate gives parts new flows, all of them in a few requests. Whatever fails for
// all is told of all.
func (m *mover) locate(life context.Context, due []*part) {
	ctx, cancel := context.WithTimeout(life, requestTimeout)
	defer cancel()
	todo, err := m.placeParts(ctx, due)
	if life.Err() != nil {
		return
	}
	if err != nil {
		m.postpone(due, err)
		return
	}
	if len(todo) == 0 {
		return
	}
	if err := m.find(ctx, todo); err != nil && life.Err() == nil {
		for _, l := range todo {
			m.postpone([]*part{l.part}, err)
		}
		return
	}
}

// postpone tries parts again later.
func (m *mover) postpone(parts []*part, reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range parts {
		if p.flow == nil {
			p.retryLater(reason)
		}
	}
}

// placeParts finds the leaders of parts and returns those that can be located:
// the others wait for a topic, a leader or a connection.
func (m *mover) placeParts(ctx context.Context, due []*part) ([]*locating, error) {
	todo, rest := m.placeHinted(due)
	if len(rest) == 0 {
		return todo, nil
	}
	logs, mirrors := map[string]bool{}, map[string]bool{}
	for _, p := range rest {
		logs[p.log], mirrors[p.mirror] = true, true
	}
	destTopics, err := m.dest.metadata(ctx, slices.Sorted(maps.Keys(mirrors)))
	m.trouble("destination metadata", err)
	if err != nil {
		return nil, err
	}
	sourceTopics, err := m.source.metadata(ctx, slices.Sorted(maps.Keys(logs)))
	m.trouble("source metadata", err)
	if err != nil {
		return nil, err
	}
	m.heard()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range rest {
		st, dt := sourceTopics[p.log], destTopics[p.mirror]
		source, err := st.leader(m.source.name, p.log, p.num)
		if err != nil {
			p.retryLater(err)
			continue
		}
		dest, err := dt.leader(m.dest.name, p.mirror, p.num)
		if err != nil {
			p.retryLater(err)
			continue
		}
		p.sourceID, p.mirrorID = st.id, dt.id
		m.place(p, source, dest)
		if l := m.reach(p); l != nil {
			todo = append(todo, l)
		}
	}
	return todo, nil
}

// placeHinted returns the parts whose leaders brokers have told, ready to be
// located, and the others.
func (m *mover) placeHinted(due []*part) (todo []*locating, rest []*part) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range due {
		if !p.hinted {
			rest = append(rest, p)
			continue
		}
		if l := m.reach(p); l != nil {
			p.hinted = false // should it be wrong, the next time asks
			todo = append(todo, l)
		}
	}
	return todo, rest
}

// reach takes the connection by which a placed part is appended; nil if it has
// to be made first. The caller holds the lock.
func (m *mover) reach(p *part) *locating {
	if conn := m.appenders[p.lane(p.dest.broker)].conn; conn != nil {
		return &locating{part: p, conn: conn, source: p.source, dest: p.dest}
	}
	p.retryAt = time.Now().Add(backoffMost) // the appender kicks the locator when it is connected
	return nil
}

// leader is who leads a partition, or why nobody is known to.
func (t topicMeta) leader(cluster, topic string, num int32) (leader, error) {
	if t.err != nil || t.leaders == nil {
		err := t.err
		if err == nil {
			err = kerr.UnknownTopicOrPartition
		}
		return leader{}, fmt.Errorf("topic %s of %s: %w", topic, cluster, err)
	}
	l, ok := t.leaders[num]
	switch {
	case !ok:
		return leader{}, fmt.Errorf("topic %s of %s has no partition %d", topic, cluster, num)
	case l.broker < 0:
		return leader{}, fmt.Errorf("topic %s of %s, partition %d: %w", topic, cluster, num, kerr.LeaderNotAvailable)
	}
	return l, nil
}

// find collects the facts about parts, decides and begins.
func (m *mover) find(ctx context.Context, todo []*locating) error {
	for _, l := range todo {
		l.f = findings{
			topic: l.topic, mirror: l.mirror, sourceName: m.source.name, destName: m.dest.name,
			sourceID: l.sourceID.String(), mirrorID: l.mirrorID.String(),
		}
	}
	// The order matters. The mirror's end comes first: what is appended is in the
	// link topic before, so what the topic says then covers all up to this end; and the
	// source can only have grown, so a mirror that seems ahead of it really is.
	for _, look := range []func(context.Context, []*locating) error{
		m.findMirror, m.findNotes, m.findPlans, m.findProducers, m.findSource, m.findRelayed, m.findEpochs, m.findTails, m.findLimits, m.findPolicies,
	} {
		if err := look(ctx, todo); err != nil {
			return err
		}
	}
	var going []*locating
	starts := map[*locating]start{}
	for _, l := range todo {
		if err := l.broken(); err != nil {
			m.postpone([]*part{l.part}, err)
			continue
		}
		s, stop := l.f.decide()
		if stop != nil {
			m.halt(l.part, stop)
			continue
		}
		starts[l] = s
		going = append(going, l)
	}
	if err := m.settleLedger(ctx, going, starts); err != nil {
		return err
	}
	m.beginAll(going, starts)
	return nil
}

// fail notes that something about a part could not be found out.
func (l *locating) fail(err error) { l.reasons = append(l.reasons, err) }

func (l *locating) broken() error { return errors.Join(l.reasons...) }

// beginAll starts the flows of located parts, unless something happened to them
// or to their connections meanwhile.
func (m *mover) beginAll(going []*locating, starts map[*locating]start) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range going {
		p := l.part
		if p.flow != nil || p.state.Stopped() || p.state == Paused {
			continue
		}
		if a := m.appenders[p.lane(l.dest.broker)]; a.conn != l.conn || l.conn.Err() != nil {
			p.retryLater(nil)
			m.wakeLocator()
			continue
		}
		s := starts[l]
		limit := math.MaxInt
		if p.limitBytes > 0 {
			limit = p.limitBytes
		}
		p.checked, p.dispelled = true, l.doubted
		if m.relay == nil {
			e := &p.lag
			e.known, e.start, e.stable, e.end = true, l.f.sourceStart, l.f.sourceEnd, max(e.end, l.f.sourceEnd)
			p.heardAt = time.Now() // so long ago, or less
		}
		from := l.readFrom(s.next)
		m.begin(p, &flow{
			part: p, leader: l.source, next: from, read: from, peer: l.peer, end: s.end, runs: l.f.runs,
			epoch: l.epochBefore(s.next), open: map[int64]bool{}, limit: limit, until: l.f.until,
			compacted: l.compacted, careful: l.compacted || p.moved, version: l.version,
		}, s.next)
	}
}

// settleLedger writes what must be in the link topic before parts begin: their
// producers, whose logs they are copies of, and where those begin.
func (m *mover) settleLedger(ctx context.Context, going []*locating, starts map[*locating]start) error {
	proposals := map[ledger.Partition]ledger.ProducerID{}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(ledgerWide)
	for _, l := range going {
		if !l.fresh {
			continue
		}
		g.Go(func() error {
			id, err := m.dest.newProducer(gctx)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			proposals[l.partition.ledger()] = id
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, l := range going {
		key := l.partition.ledger()
		if runs := starts[l].runs; len(runs) > 0 {
			if err := m.ledger.AppendRuns(ctx, key, l.f.runs.Len(), runs); err != nil {
				return err
			}
			l.f.runs, l.version = m.ledger.Runs(key)
		}
		facts := ledger.Mirror{SourceTopicID: l.f.sourceID, MirrorTopicID: l.f.mirrorID}
		if _, known := m.ledger.Mirror(l.topic); !known {
			if err := m.ledger.SetMirror(ctx, l.topic, facts); err != nil {
				return err
			}
		}
	}
	if len(proposals) == 0 {
		return nil
	}
	winners, err := m.ledger.Propose(ctx, proposals)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range going {
		if won, ok := winners[l.partition.ledger()]; ok {
			l.producer = won
		}
	}
	return nil
}

// newProducer asks for a producer id.
func (c *cluster) newProducer(ctx context.Context) (ledger.ProducerID, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	resp, err := req.RequestWith(ctx, c.client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return ledger.ProducerID{}, fmt.Errorf("producer id of %s: %w", c.name, err)
	}
	return ledger.ProducerID{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}, nil
}
