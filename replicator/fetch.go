package replicator

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/wire"
)

const (
	fetchWait      = 500 * time.Millisecond // how long a source may hold a fetch for which it has nothing
	fetchWaitShort = 20 * time.Millisecond  // the same, while some partition waits for memory
	fetchBytes     = 24 << 20               // asked for at once
	fetchVersion   = 17                     // topic ids, diverging epochs, hints about leaders
	readCommitted  = 1

	// lanesPerBroker connections to a broker are in use at a time. A broker works on one
	// request of a connection at a time, and reads no further meanwhile. And while one
	// answer of a source is made ready (which takes long if batches have to be merged),
	// or is on a long way, the next one comes.
	lanesPerBroker = 2
)

// lane is a share of the partitions that a broker leads.
type lane struct{ broker, number int32 }

func (l lane) String() string { return fmt.Sprintf("broker %d, lane %d", l.broker, l.number) }

// lane is where a partition is fetched, or appended, while a broker leads it.
func (p partition) lane(broker int32) lane {
	h := fnv.New32a()
	_, _ = io.WriteString(h, p.topic) // never fails, by its contract
	return lane{broker: broker, number: int32((h.Sum32() + uint32(p.num)) % lanesPerBroker)}
}

// fetcher reads what the parts of one lane want. One fetch is under way at a time,
// in one incremental session (KIP-227), so that idle partitions cost nothing.
type fetcher struct {
	m       *mover
	lane    lane
	signal  chan struct{}
	conn    *wire.Conn
	session session
	prepare *preparer
}

func newFetcher(m *mover, l lane) *fetcher {
	return &fetcher{m: m, lane: l, signal: make(chan struct{}, 1), prepare: &preparer{m: m, recoder: batch.NewRecoder()}}
}

// name is the lane's, among what can be in trouble.
func (f *fetcher) name() string { return "source " + f.lane.String() }

// wake tells that there may be something to fetch.
func (f *fetcher) wake() {
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// run fetches until the mover ends.
func (f *fetcher) run(ctx context.Context) {
	defer f.disconnect()
	pause := backoffLeast
	for ctx.Err() == nil {
		err := f.round(ctx)
		if err == nil {
			pause = backoffLeast
			continue
		}
		f.disconnect()
		if ctx.Err() != nil {
			return
		}
		f.failed(err)
		sleep(ctx, pause)
		pause = min(2*pause, backoffMost)
	}
}

func (f *fetcher) disconnect() {
	if f.conn != nil {
		f.conn.Close()
		f.conn = nil
	}
	f.session = session{}
}

// failed interrupts all of this lane: it may have moved. And a broker
// that comes back may have lost records without a new leader epoch to show for it
// (Kafka 3.9 alone in its cluster), and have others in their place by the time that
// it answers: so the last record is compared.
func (f *fetcher) failed(err error) {
	err = fmt.Errorf("%s: %w", f.m.source.name, err)
	f.m.trouble(f.name(), err)
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	for _, p := range f.m.parts {
		if p.placed && p.lane(p.source.broker) == f.lane {
			p.doubts++
		}
		if p.flow != nil && p.lane(p.flow.leader.broker) == f.lane {
			f.m.interruptLocked(p.flow, err)
		}
	}
}

// round does one fetch, or waits until there is something to ask for.
func (f *fetcher) round(ctx context.Context) error {
	if f.conn != nil && f.conn.Err() != nil {
		return f.conn.Err()
	}
	want := f.wanted()
	if len(want.flows) == 0 {
		return f.idle(ctx, want)
	}
	defer func() { f.m.settle(want.granted) }()
	if f.conn == nil {
		conn, err := f.m.source.connect(ctx, f.lane.broker)
		if err != nil {
			return err
		}
		f.conn = conn
	}
	resp, buf, err := f.fetch(ctx, want)
	if err != nil {
		return err
	}
	f.m.trouble(f.name(), nil)
	f.m.heard()
	return f.take(ctx, want, resp, buf)
}

// idle waits until something can be fetched. A lane of which nothing is wanted is
// in no trouble.
func (f *fetcher) idle(ctx context.Context, want wanted) error {
	if !want.placed {
		f.m.trouble(f.name(), nil)
	}
	var failed <-chan struct{}
	if f.conn != nil {
		failed = f.conn.Failed()
	}
	room := want.room
	if !want.crowded {
		room = nil
	}
	select {
	case <-ctx.Done():
	case <-f.signal:
	case <-room:
	case <-failed:
	}
	return nil
}

// wanted is what one fetch is to ask for.
type wanted struct {
	flows   map[partition]*flow
	granted int64 // memory that the answer may take
	crowded bool  // something is left out because memory is short
	placed  bool  // the broker leads something of the lane
	room    <-chan struct{}
}

// wanted collects the flows of this lane that have room, and reserves memory for
// the answer.
func (f *fetcher) wanted() wanted {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	w := wanted{flows: map[partition]*flow{}, room: m.room}
	// Three quarters of the window are for answers under way, the same share for each
	// lane: so none waits for another one's long poll, and a long way is filled.
	w.granted = max(min(fetchBytes, m.cfg.WindowBytes*3/4/int64(len(m.fetchers))), 1)
	if rate := m.cfg.RateBytesPerSecond; rate > 0 {
		w.granted = min(w.granted, rate) // so that no answer is followed by a long silence
	}
	if m.used+m.promised+w.granted > m.cfg.WindowBytes {
		w.crowded, w.granted = true, 0
		return w
	}
	share := m.cfg.WindowBytes / 2 // one part that is stuck leaves the others theirs
	for key, p := range m.parts {
		w.placed = w.placed || p.placed && p.lane(p.source.broker) == f.lane
		switch {
		case p.flow == nil || p.lane(p.flow.leader.broker) != f.lane || p.flow.final != nil || m.relay != nil && p.flow.next >= p.flow.until:
		case p.queuedBytes >= share:
			w.crowded = true
		default:
			w.flows[key] = p.flow
		}
	}
	if len(w.flows) == 0 {
		w.granted = 0
		return w
	}
	m.promised += w.granted
	return w
}

// settle gives back what was reserved for an answer: what it brought is counted
// on its own.
func (m *mover) settle(granted int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.promised -= granted
	m.giveBack(0)
}

// fetch asks and waits for the answer.
func (f *fetcher) fetch(ctx context.Context, want wanted) (*kmsg.FetchResponse, *wire.Buffer, error) {
	wait := fetchWait
	if want.crowded {
		wait = fetchWaitShort
	}
	version, err := f.conn.Version(int16(kmsg.Fetch), fetchVersion)
	if err != nil {
		return nil, nil, err
	}
	if version < 13 {
		return nil, nil, fmt.Errorf("broker %d: fetches by topic id (Kafka 3.1 and later) are needed, it has version %d", f.lane.broker, version)
	}
	req := f.session.request(want)
	req.Version = version
	req.MaxWaitMillis = int32(wait.Milliseconds())
	answers := make(chan wire.Answer, 1)
	if err := f.conn.Send(req, wait, func(a wire.Answer) { answers <- a }); err != nil {
		return nil, nil, err
	}
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case a := <-answers:
		if a.Err != nil {
			return nil, nil, a.Err
		}
		return a.Response.(*kmsg.FetchResponse), a.Buffer, nil
	}
}

// take hands over what an answer brought.
func (f *fetcher) take(ctx context.Context, want wanted, resp *kmsg.FetchResponse, buf *wire.Buffer) error {
	l := &load{buf: buf, bytes: int64(len(buf.Bytes)), refs: 1}
	f.m.mu.Lock()
	f.m.used += l.bytes
	f.m.mu.Unlock()
	defer func() {
		f.m.mu.Lock()
		f.m.release(chunk{load: l})
		f.m.mu.Unlock()
	}()
	switch err := kerr.ErrorForCode(resp.ErrorCode); {
	case errors.Is(err, kerr.FetchSessionIDNotFound), errors.Is(err, kerr.InvalidFetchSessionEpoch),
		errors.Is(err, kerr.FetchSessionTopicIDError), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		f.session = session{}
		if !errors.Is(err, kerr.FetchSessionIDNotFound) && !errors.Is(err, kerr.InvalidFetchSessionEpoch) {
			return fmt.Errorf("broker %d: %w", f.lane.broker, err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("broker %d: fetch: %w", f.lane.broker, err)
	}
	for _, b := range resp.Brokers {
		f.m.source.learnBroker(b.NodeID, b.Host, b.Port)
	}
	f.session.answered(resp)
	return f.takePartitions(ctx, want, resp, l)
}

// touch notes that the source has answered for all that was asked but the refused
// ones: those of which an incremental answer says nothing have nothing new.
func (f *fetcher) touch(want wanted, refused map[*flow]bool) {
	now := time.Now()
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	for _, fl := range want.flows {
		if fl.part.flow == fl && !refused[fl] {
			fl.part.heardAt, fl.part.fetchedAt = now, now
		}
	}
}

func (f *fetcher) takePartitions(ctx context.Context, want wanted, resp *kmsg.FetchResponse, l *load) error {
	byID := map[topicID]map[int32]*flow{}
	for _, fl := range want.flows {
		if byID[fl.part.sourceID] == nil {
			byID[fl.part.sourceID] = map[int32]*flow{}
		}
		byID[fl.part.sourceID][fl.part.num] = fl
	}
	var ready []prepared
	refused := map[*flow]bool{}
	bytes := 0
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			rp := &t.Partitions[j]
			fl := byID[t.TopicID][rp.Partition]
			if fl == nil {
				if rp.ErrorCode != 0 {
					// It is in the session all the same, and as long as it is the broker
					// answers at once.
					f.session = session{}
				}
				continue
			}
			bytes += len(rp.RecordBatches)
			if !f.judge(fl, rp) {
				refused[fl] = true
			} else if p := f.prepare.partition(fl, rp, l); p.flow != nil {
				ready = append(ready, p)
			}
		}
	}
	f.touch(want, refused)
	f.prepare.writeAhead(ctx, ready)
	for _, p := range ready {
		if p.err != nil {
			f.m.drop(p)
			continue
		}
		f.m.enqueue(p.flow, p.chunks)
	}
	return f.m.limiter.wait(ctx, bytes)
}

// judge looks at what an answer says of a partition besides its records, and
// tells whether the records are to be taken.
func (f *fetcher) judge(fl *flow, rp *kmsg.FetchResponseTopicPartition) bool {
	p := fl.part
	err := kerr.ErrorForCode(rp.ErrorCode)
	switch d := rp.DivergingEpoch; {
	case d.EndOffset >= 0:
		// What of it is in the mirror is seen when all that is under way has landed.
		f.m.doubt(p)
		f.session.forget(p)
		f.m.interrupt(fl, fmt.Errorf("read %s, %s, offset %d: the source has lost records: leader epoch %d ends at offset %d",
			f.m.source.name, p.partition, fl.next, d.Epoch, d.EndOffset))
		return false
	case err == nil:
		f.m.noteEnd(fl, rp)
		return true
	case errors.Is(err, kerr.CorruptMessage):
		f.prepare.spoilt(fl, fl.next, "the source says that its own records are damaged")
		return false
	case errors.Is(err, kerr.OffsetOutOfRange):
		f.m.doubt(p)
	}
	f.session.forget(p)
	if moved(err) && f.m.followSource(fl, leader{rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch}) {
		return false
	}
	f.m.interrupt(fl, fmt.Errorf("read %s, %s, offset %d: %w", f.m.source.name, p.partition, fl.next, err))
	return false
}

// noteEnd notes where the source's partition begins and ends.
func (m *mover) noteEnd(fl *flow, rp *kmsg.FetchResponseTopicPartition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.relay != nil {
		return // how far a peer is says nothing of how far the origin is
	}
	// It is true of the source whatever has become of the flow, and is told once:
	// later answers of the session name what has changed only.
	e := &fl.part.lag
	e.known, e.end, e.stable = true, rp.HighWatermark, rp.LastStableOffset
	if rp.LogStartOffset >= 0 {
		e.start = rp.LogStartOffset
	}
	if e.stable < 0 {
		e.stable = e.end
	}
}

// sleep waits for a time, or for the end of the context.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
