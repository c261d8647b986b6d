package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// mover moves batches. Fetchers, one for each lane to a broker of the source, bring
// them; appenders, the same at the destination, write them; the locator
// finds out for each partition where to go on whenever something has interrupted
// it. They meet in the parts, under one lock, and never do I/O while they hold it.
type mover struct {
	cfg     Config
	link    string
	source  *cluster
	dest    *cluster
	origin  []kgo.Opt // reach the origin, whatever the source is
	relay   *relaying // the source is a peer's mirror; nil: it is the origin
	ledger  *ledger.Ledger
	metrics *Metrics
	log     *slog.Logger
	scribe  *scribe
	mark    int64                           // of the batches that are planned, in ms; see batch.Recoder.Mark
	serve   func(run func(context.Context)) // in the background, for as long as the mover lives
	end     context.CancelCauseFunc         // ends it, for what only a new connection mends
	again   atomic.Bool                     // the topics need another look soon

	limiter *limiter
	kick    chan struct{} // wakes the locator
	room    chan struct{} // closed and made anew when memory was given back

	resuming chan struct{} // holds one thing while an operator's choice is carried out

	mu        sync.Mutex
	parts     map[partition]*part
	fetchers  map[lane]*fetcher
	appenders map[lane]*appender
	used      int64 // bytes of batches in memory
	promised  int64 // bytes that answers to fetches under way may have
	troubles  map[string]error
	tasks     map[Task]TaskStatus
	paused    map[string]bool // by the link topic's names
	heardAt   time.Time       // when the source answered last
	unread    int             // times in a row that the link topic could not be read
	missing   []string        // topics that are named and that the source does not have
	lacking   []string        // topics that have no mirror, or one with too few partitions, and why
}

func (m *mover) wakeLocator() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// interrupt ends a part's flow, if it is still the one, and has it located again
// after a pause. Without a reason there is none to tell: it goes on at once.
func (m *mover) interrupt(f *flow, reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.interruptLocked(f, reason)
}

func (m *mover) interruptLocked(f *flow, reason error) {
	if f.part.flow != f {
		return
	}
	m.endFlow(f.part)
	f.part.retryLater(reason)
	m.wakeLocator()
}

// endFlow drops what has not been sent yet. The caller holds the lock.
func (m *mover) endFlow(p *part) {
	p.flow = nil
	for _, c := range p.queue {
		m.release(c)
	}
	p.queue, p.queuedBytes = nil, 0
}

// retryLater puts the next location off for a while that grows with failures.
func (p *part) retryLater(reason error) {
	if p.state.Stopped() || p.state == Paused {
		return
	}
	p.state, p.reason, p.since = Starting, reason, time.Now()
	if reason == nil {
		p.retryAt = time.Now()
		return
	}
	p.state = Waiting
	p.pause = min(max(2*p.pause, backoffLeast), backoffMost)
	p.retryAt = time.Now().Add(p.pause)
}

// halt stops a part for good.
func (m *mover) halt(p *part, stop *StoppedError) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.haltLocked(p, stop)
}

func (m *mover) haltLocked(p *part, stop *StoppedError) {
	if p.state.Stopped() {
		return
	}
	m.endFlow(p)
	stop.Origin, stop.Topic, stop.Partition = m.cfg.Origin, p.topic, p.num
	p.state, p.stop, p.reason, p.since = stop.State, stop, stop, time.Now()
	m.metrics.stop(m.cfg.Origin)
	m.log.Error("mirroring of a partition has stopped", "state", stop.State, "error", stop)
}

// release gives a chunk's memory back. The caller holds the lock.
func (m *mover) release(c chunk) {
	c.load.refs--
	if c.load.refs > 0 {
		return
	}
	c.load.buf.Release()
	m.giveBack(c.load.bytes)
}

// giveBack lowers the memory in use. The caller holds the lock.
func (m *mover) giveBack(bytes int64) {
	m.used -= bytes
	close(m.room)
	m.room = make(chan struct{})
}

// trouble notes what keeps a side of the link from working, nil when it does.
func (m *mover) trouble(what string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.troubles, what)
		return
	}
	m.troubles[what] = err
}

// place notes who leads a part's partition on both sides, and starts whoever
// serves these brokers. The caller holds the lock.
func (m *mover) place(p *part, source, dest leader) {
	if p.placed {
		m.fetchers[p.lane(p.source.broker)].wake() // it may not be needed any more
		m.appenders[p.lane(p.dest.broker)].wake()
	}
	p.source, p.dest, p.placed = source, dest, true
	from, to := p.lane(source.broker), p.lane(dest.broker)
	if _, ok := m.fetchers[from]; !ok {
		f := newFetcher(m, from)
		m.fetchers[from] = f
		m.serve(f.run)
	}
	if _, ok := m.appenders[to]; !ok {
		a := newAppender(m, to)
		m.appenders[to] = a
		m.serve(a.run)
	}
	m.appenders[to].wake()
}

// begin starts a located part's flow, at an offset of the log. The caller holds
// the lock.
func (m *mover) begin(p *part, f *flow, next int64) {
	p.flow = f
	p.acked, p.mirrored = f.end, next
	if p.state != Mirroring {
		p.state, p.reason, p.since = Mirroring, nil, time.Now()
	}
	m.fetchers[f.part.lane(f.leader.broker)].wake()
}

// enqueue hands over what a flow has fetched. Its loads' bytes are part of used
// already.
func (m *mover) enqueue(f *flow, chunks []chunk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.part.flow != f {
		m.discard(chunks)
		return
	}
	for _, c := range chunks {
		c.load.refs++
		c.next = f.origin(c.next)
		f.part.queue = append(f.part.queue, c)
		f.part.queuedBytes += int64(len(c.raw))
	}
	f.read = f.next
	f.part.settle()
	if f.careful {
		m.scribe.call(f)
	}
	m.appenders[f.part.lane(f.part.dest.broker)].wake()
}

// settle notes, when everything read is in the mirror, that so is what has no
// place there and comes behind it. The caller holds the lock.
func (p *part) settle() {
	if p.flow != nil && p.flow.idle() {
		p.mirrored = max(p.mirrored, p.flow.origin(p.flow.read))
	}
}

// idle reports whether all that the flow has read is in the mirror, and the link
// topic says where. The caller holds the lock.
func (fl *flow) idle() bool {
	return len(fl.part.queue) == 0 && fl.part.unanswered == 0 && fl.landed == nil
}

// discard gives up chunks that were never handed over. The caller holds the lock.
func (m *mover) discard(chunks []chunk) {
	for _, c := range chunks {
		c.load.refs++
		m.release(c)
	}
}

// drop gives up what was prepared and interrupts its flow.
func (m *mover) drop(p prepared) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.discard(p.chunks)
	part := p.flow.part
	part.doubts++
	switch {
	case errors.Is(p.err, errMoved):
		part.moved = true
		m.interruptLocked(p.flow, nil)
		return
	case errors.Is(p.err, ledger.ErrReplaced) && part.flow == p.flow:
		// None of what it has lost was mirrored, but where it goes on nobody can tell
		// by its epochs any more.
		part.flow.final = stopped(Truncated, -1, -1, "the source has lost records that were read and not mirrored yet: %v", p.err)
		m.finishLocked(part)
		return
	}
	m.interruptLocked(p.flow, fmt.Errorf("link topic of %s, %s: %w", m.dest.name, part.partition, p.err))
}

// doubt lets the next location of a part compare its last record.
func (m *mover) doubt(p *part) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.doubts++
}

// finish stops a flow's part for good once all that it has fetched is mirrored.
func (m *mover) finish(f *flow, stop *StoppedError) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.part.flow == f {
		f.final = stop
		m.finishLocked(f.part)
	}
}

// finishLocked stops a part if it is time. The caller holds the lock.
func (m *mover) finishLocked(p *part) {
	if p.flow != nil && p.flow.final != nil && p.flow.idle() {
		m.haltLocked(p, p.flow.final)
	}
}

// StoppedError says that the mirroring of one partition has stopped for good
// and what an operator has to know.
type StoppedError struct {
	Origin    events.Origin `json:"origin"`
	Topic     string        `json:"topic"` // of the log
	Partition int32         `json:"partition"`
	State     State         `json:"state"`
	Reason    string        `json:"reason"`

	// From and To are the offsets concerned, To inclusive: of the source where
	// something is missing there, of the mirror where that has too much. Both
	// are -1 if there is no such range.
	From int64 `json:"from"`
	To   int64 `json:"to"`

	next int64 // offset of the source that would have been mirrored next; -1: not known
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("mirror of %s, topic %s, partition %d: %s: %s", e.Origin, e.Topic, e.Partition, e.State, e.Reason)
}

// stopped makes a StoppedError about a range of offsets.
func stopped(s State, from, to int64, format string, args ...any) *StoppedError {
	return &StoppedError{State: s, From: from, To: to, Reason: fmt.Sprintf(format, args...), next: -1}
}
