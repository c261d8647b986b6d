package replicator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/ledger"
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

	fresh   bool // no link has written this mirror before
	source  leader
	dest    leader
	epochs  []ledger.Epoch
	reasons []error // why it cannot be located now
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
	logs, mirrors := map[string]bool{}, map[string]bool{}
	for _, p := range due {
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
	var todo []*locating
	for _, p := range due {
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
		if conn := m.appenders[dest.broker].conn; conn != nil {
			todo = append(todo, &locating{part: p, conn: conn, source: source, dest: dest})
			continue
		}
		p.retryAt = time.Now().Add(backoffMost) // the appender kicks the locator when it is connected
	}
	return todo, nil
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
	err := m.ledger.Refresh(ctx)
	m.trouble("link topic", err)
	if err != nil {
		err = fmt.Errorf("link topic of %s: %w", m.dest.name, err)
		if m.unread++; m.unread >= unreadMost {
			m.end(err) // it may be another topic by now: begin from the beginning
		}
		return err
	}
	m.unread = 0
	for _, l := range todo {
		key := l.partition.ledger()
		l.f = findings{
			topic: l.topic, mirror: l.mirror, sourceName: m.source.name, destName: m.dest.name,
			sourceID: l.sourceID.String(), mirrorID: l.mirrorID.String(), runs: m.ledger.Map(key),
		}
		r := m.ledger.Reached(key)
		l.f.reached = start{next: r.Source, end: r.Dest}
		m.mu.Lock()
		if l.checked {
			l.f.reached = start{next: l.mirrored, end: l.acked}
		}
		m.mu.Unlock()
		producer, proposed := m.ledger.Producer(key)
		l.producer = producer
		l.fresh, l.f.fresh = !proposed, !proposed
		l.f.known, _ = m.ledger.Mirror(l.topic)
	}
	// The mirror's end is looked at before the source's: the source can only have
	// grown by then, so a mirror that seems ahead really is.
	for _, look := range []func(context.Context, []*locating) error{
		m.findMirror, m.findProducers, m.findSource, m.findRelayed, m.findEpochs, m.findTails, m.findLimits,
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
		if a := m.appenders[l.dest.broker]; a.conn != l.conn || l.conn.Err() != nil {
			p.retryLater(nil)
			m.wakeLocator()
			continue
		}
		s := starts[l]
		limit := math.MaxInt
		if p.limitBytes > 0 {
			limit = p.limitBytes
		}
		p.suspicious, p.checked = false, true
		m.begin(p, &flow{
			part: p, leader: l.source, next: s.next, end: s.end, runs: l.f.runs,
			epoch: l.epochBefore(s.next), open: map[int64]bool{}, limit: limit, established: l.f.producing, until: l.f.until,
		})
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
		}
		if err := m.replan(ctx, l); err != nil {
			return err
		}
		l.f.runs = m.ledger.Map(key)
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

// replan gives up runs that were planned for what is not in the mirror yet, and
// that the source contradicts.
func (m *mover) replan(ctx context.Context, l *locating) error {
	m.mu.Lock()
	found := l.part.replan
	l.part.replan = nil
	m.mu.Unlock()
	if found == nil {
		return nil
	}
	runs := l.f.runs
	runs.Drop(l.f.mirrorEnd)
	if found.Dest == l.f.mirrorEnd {
		if err := runs.Replan(*found); err != nil {
			return err
		}
	}
	return m.ledger.Reset(ctx, l.partition.ledger(), runs, false)
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

// names are the distinct topics of what is located.
func names(todo []*locating, of func(*locating) string) []string {
	set := map[string]bool{}
	for _, l := range todo {
		set[of(l)] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func ofMirror(l *locating) string { return l.mirror }
func ofLog(l *locating) string    { return l.log }

// ask lists offsets and gives each part its own.
func ask(ctx context.Context, cluster string, list func(context.Context, ...string) (kadm.ListedOffsets, error), todo []*locating,
	topic func(*locating) string, take func(*locating, int64),
) error {
	listed, err := list(ctx, names(todo, topic)...)
	if err != nil {
		return fmt.Errorf("offsets of %s: %w", cluster, err)
	}
	for _, l := range todo {
		o, ok := listed.Lookup(topic(l), l.num)
		switch {
		case !ok:
			l.fail(fmt.Errorf("offsets of %s, topic %s, partition %d: no answer", cluster, topic(l), l.num))
		case o.Err != nil:
			l.fail(fmt.Errorf("offsets of %s, topic %s, partition %d: %w", cluster, topic(l), l.num, o.Err))
		default:
			take(l, o.Offset)
		}
	}
	return nil
}

func (m *mover) findMirror(ctx context.Context, todo []*locating) error {
	err := ask(ctx, m.dest.name, m.dest.admin.ListEndOffsets, todo, ofMirror, func(l *locating, at int64) { l.f.mirrorEnd = at })
	if err != nil {
		return err
	}
	return ask(ctx, m.dest.name, m.dest.admin.ListStartOffsets, todo, ofMirror, func(l *locating, at int64) { l.f.mirrorStart = at })
}

func (m *mover) findSource(ctx context.Context, todo []*locating) error {
	err := ask(ctx, m.source.name, m.source.admin.ListStartOffsets, todo, ofLog, func(l *locating, at int64) { l.f.sourceStart = at })
	if err != nil {
		return err
	}
	// Up to the last stable offset, behind which nothing is mirrored.
	return ask(ctx, m.source.name, m.source.admin.ListCommittedOffsets, todo, ofLog, func(l *locating, at int64) { l.f.sourceEnd = at })
}

// findProducers asks which sequence the destination remembers of each mirror's
// producer.
func (m *mover) findProducers(ctx context.Context, todo []*locating) error {
	set := kadm.TopicsSet{}
	for _, l := range todo {
		if !l.fresh {
			set.Add(l.mirror, l.num)
		}
	}
	if len(set) == 0 {
		return nil
	}
	described, err := m.dest.admin.DescribeProducers(ctx, set)
	if err != nil {
		return fmt.Errorf("producers of %s: %w", m.dest.name, err)
	}
	for _, l := range todo {
		d, ok := described[l.mirror].Partitions[l.num]
		switch {
		case l.fresh:
		case !ok:
			l.fail(fmt.Errorf("producers of %s, topic %s, partition %d: no answer", m.dest.name, l.mirror, l.num))
		case d.Err != nil:
			l.fail(fmt.Errorf("producers of %s, topic %s, partition %d: %w", m.dest.name, l.mirror, l.num, d.Err))
		default:
			state, known := d.ActiveProducers[l.producer.ID]
			l.f.producing, l.f.lastSequence = known && state.LastSequence >= 0, state.LastSequence
			if l.f.producing && l.f.ahead() {
				l.fail(fmt.Errorf("%s of %s, partition %d, grows meanwhile: another instance of this link is at work", l.mirror, m.dest.name, l.num))
			}
		}
	}
	return nil
}

// epochBefore is the source's leader epoch of the record before an offset, -1 if
// it is not known.
func (l *locating) epochBefore(next int64) int32 {
	epoch := int32(-1)
	for _, e := range l.epochs {
		if e.Start < next {
			epoch = e.Epoch
		}
	}
	return epoch
}

// findEpochs asks where the source's leader epoch ended under which the last
// record was mirrored: below what was mirrored, if that was lost.
func (m *mover) findEpochs(ctx context.Context, todo []*locating) error {
	if m.relay != nil {
		return nil // a peer's epochs are not the origin's
	}
	var req kadm.OffsetForLeaderEpochRequest
	asked := map[*locating]int32{}
	for _, l := range todo {
		l.epochs = m.ledger.Epochs(l.partition.ledger())
		next, mapped := l.f.next()
		if epoch := l.epochBefore(next); mapped && epoch >= 0 {
			req.Add(l.topic, l.num, epoch)
			asked[l] = epoch
		}
	}
	if len(asked) == 0 {
		return nil
	}
	resp, err := m.source.admin.OffsetForLeaderEpoch(ctx, req)
	if err != nil {
		return fmt.Errorf("leader epochs of %s: %w", m.source.name, err)
	}
	for l, epoch := range asked {
		r, ok := resp[l.topic][l.num]
		switch {
		case !ok || r.Err != nil:
			l.fail(fmt.Errorf("leader epoch of %s, %s: %w", m.source.name, l.partition, cmpErr(r.Err)))
		case r.EndOffset >= 0:
			l.f.epochKnown, l.f.epoch, l.f.epochAt, l.f.epochEnd = true, epoch, r.LeaderEpoch, r.EndOffset
		}
	}
	return nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("no answer")
	}
	return err
}

// findTails compares the last record of mirrors with the source's, where there
// is reason to: at first, and after anything odd.
func (m *mover) findTails(ctx context.Context, todo []*locating) error {
	var compared []*locating
	var mirrors, logs []spot
	for _, l := range todo {
		last := l.f.mirrorEnd - 1
		at, mapped := l.f.runs.Source(last)
		if (l.checked && !l.suspicious) || l.broken() != nil || !mapped || last < l.f.mirrorStart || at < l.f.sourceStart || at >= l.f.sourceEnd {
			continue
		}
		l.f.tailOffset, l.f.tailMirrorAt = at, last
		compared = append(compared, l)
		mirrors = append(mirrors, spot{l.mirrorID, l.mirror, l.num, l.dest, last})
		logs = append(logs, spot{l.sourceID, l.log, l.num, l.source, at})
	}
	if len(compared) == 0 {
		return nil
	}
	inMirror, err := m.dest.recordsAt(ctx, mirrors)
	if err != nil {
		return err
	}
	inLog, err := m.source.recordsAt(ctx, logs)
	if err != nil {
		return err
	}
	for i, l := range compared {
		a, b := inLog[i], inMirror[i]
		switch {
		case a.err != nil && !errors.Is(a.err, errNoRecord):
			l.fail(a.err)
		case b.err != nil && !errors.Is(b.err, errNoRecord):
			l.fail(b.err)
		case a.err != nil || b.err != nil: // compacted away, or expired just now
		case a.record.SameAs(b.record):
			l.f.tail = same
		default:
			l.f.tail = differs
		}
	}
	return nil
}

// recordOrError is a record read, or why there is none.
type recordOrError struct {
	record batch.Record
	err    error
}

// recordsAt reads the records at spots.
func (c *cluster) recordsAt(ctx context.Context, spots []spot) ([]recordOrError, error) {
	got, err := c.readAt(ctx, spots, oneBatchBytes)
	if err != nil {
		return nil, err
	}
	recoder := batch.NewRecoder()
	found := make([]recordOrError, len(spots))
	for i, d := range got {
		found[i].record, found[i].err = d.record(recoder, spots[i].offset)
		if found[i].err != nil && !errors.Is(found[i].err, errNoRecord) {
			found[i].err = fmt.Errorf("read %s, topic %s, partition %d, offset %d: %w", c.name, spots[i].name, spots[i].num, spots[i].offset, found[i].err)
		}
	}
	return found, nil
}

const oneBatchBytes = 64 << 10 // a larger batch comes alone in its answer

// record finds the record at an offset in what was read.
func (d data) record(recoder *batch.Recoder, offset int64) (batch.Record, error) {
	if d.err != nil {
		return batch.Record{}, d.err
	}
	for rest := d.batches; len(rest) > 0; {
		b, after, err := batch.Read(rest)
		if errors.Is(err, batch.ErrPartial) {
			break
		}
		if err != nil {
			return batch.Record{}, err
		}
		rest = after
		if b.LastOffset() < offset || b.Control() {
			continue
		}
		records, err := recoder.Records(b)
		if err != nil {
			return batch.Record{}, err
		}
		for _, r := range records {
			if r.Offset == offset {
				return r, nil
			}
		}
		break
	}
	return batch.Record{}, errNoRecord
}

// findLimits asks what mirrors take at most that have refused a batch.
func (m *mover) findLimits(ctx context.Context, todo []*locating) error {
	for _, l := range todo {
		if l.limitBytes > 0 || l.refused == 0 {
			continue
		}
		configs, err := m.dest.admin.DescribeTopicConfigs(ctx, l.mirror)
		if err != nil {
			return fmt.Errorf("configuration of %s in %s: %w", l.mirror, m.dest.name, err)
		}
		limit := l.refused - 1
		for _, c := range configs[0].Configs {
			if n, err := strconv.Atoi(c.MaybeValue()); c.Key == "max.message.bytes" && err == nil {
				limit = min(limit, n)
			}
		}
		m.mu.Lock()
		l.limitBytes = limit
		m.mu.Unlock()
	}
	return nil
}
