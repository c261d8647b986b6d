package replicator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/wire"
)

const (
	produceTimeout = 10 * time.Second // how long a broker may wait for its replicas
	produceVersion = 13               // topic ids: a re-created mirror is refused
	requestBytes   = 8 << 20          // of batches in one request
	requestsMost   = 16               // under way to one broker
	acksAll        = -1

	// A connection that is silent is asked for a sign of life, and one that has
	// been silent for longer than staleAfter is given up: this process may have
	// slept, and what it knows of the mirror be long out of date.
	aliveInterval = 20 * time.Second
	staleAfter    = 60 * time.Second
)

// appender writes what the parts of one lane have ready.
//
// Each partition's batches go out in order over one connection, many of them
// before the first is answered. The sequence of a batch is the offset at which it
// must land, so a broker that has refused one refuses all that follow it.
type appender struct {
	m      *mover
	lane   lane
	signal chan struct{}

	conn     *wire.Conn // guarded by the mover's lock, as is what follows
	underWay int
	heard    time.Time // when the broker last answered, by the wall clock
}

func newAppender(m *mover, l lane) *appender {
	return &appender{m: m, lane: l, signal: make(chan struct{}, 1)}
}

func (a *appender) wake() {
	select {
	case a.signal <- struct{}{}:
	default:
	}
}

// run keeps a connection and appends until the mover ends. Then it waits for the
// answers to what was sent, at most endPatience.
func (a *appender) run(ctx context.Context) {
	pause := backoffLeast
	for ctx.Err() == nil {
		if !a.needed() {
			a.m.trouble(a.name(), nil)
			a.rest(ctx)
			continue
		}
		began := time.Now()
		err := a.connected(ctx)
		if ctx.Err() != nil {
			return
		}
		a.failed(err)
		if time.Since(began) > backoffMost {
			pause = backoffLeast
		}
		sleep(ctx, pause)
		pause = min(2*pause, backoffMost)
	}
}

// name is the lane's, among what can be in trouble.
func (a *appender) name() string { return "destination " + a.lane.String() }

// serves reports whether a part is of this lane. The caller holds the lock.
func (a *appender) serves(p *part) bool { return p.lane(p.dest.broker) == a.lane }

// needed reports whether the lane has anything: one that has left its cluster
// is not to be connected to for ever.
func (a *appender) needed() bool {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	for _, p := range a.m.parts {
		if p.placed && a.serves(p) {
			return true
		}
	}
	return false
}

func (a *appender) rest(ctx context.Context) {
	select {
	case <-a.signal:
	case <-ctx.Done():
	}
}

// connected appends over one connection for as long as it works.
func (a *appender) connected(ctx context.Context) error {
	conn, err := a.m.dest.connect(ctx, a.lane.broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	a.m.trouble(a.name(), nil)
	a.use(conn)
	return a.work(ctx, conn)
}

// use makes a connection the one to append by. Whatever was located before goes
// over it only after it is located again.
func (a *appender) use(conn *wire.Conn) {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	a.conn, a.heard = conn, wallClock()
	for _, p := range a.m.parts {
		if p.flow == nil && a.serves(p) {
			p.retryAt = time.Now()
		}
	}
	a.m.wakeLocator()
}

// failed interrupts all of this lane.
func (a *appender) failed(err error) {
	err = fmt.Errorf("%s: %w", a.m.dest.name, err)
	a.m.trouble(a.name(), err)
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	a.conn = nil
	for _, p := range a.m.parts {
		if !a.serves(p) {
			continue
		}
		p.hinted = false
		if p.flow != nil {
			a.m.interruptLocked(p.flow, err)
		}
	}
}

// wallClock is the time without the monotonic clock's reading, which stands still
// while the machine sleeps.
func wallClock() time.Time { return time.Now().Round(0) }

// silence is for how long the broker has not answered.
func (a *appender) silence() time.Duration {
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	return wallClock().Sub(a.heard)
}

// askAlive lets the broker give a sign of life.
func (a *appender) askAlive(conn *wire.Conn) error {
	return conn.Send(kmsg.NewPtrApiVersionsRequest(), 0, func(answer wire.Answer) {
		answer.Buffer.Release()
		if answer.Err == nil {
			a.m.mu.Lock()
			a.heard = wallClock()
			a.m.mu.Unlock()
		}
	})
}

// work appends until the connection fails or the mover ends.
func (a *appender) work(ctx context.Context, conn *wire.Conn) error {
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	for {
		for {
			if silence := a.silence(); silence > staleAfter {
				return fmt.Errorf("%s has not answered for %s", a.lane, silence.Round(time.Second))
			}
			out := a.take(ctx)
			if len(out) == 0 {
				break
			}
			if err := a.send(conn, out); err != nil {
				a.answered(out, wire.Answer{Err: err})
				return err
			}
		}
		select {
		case <-a.signal:
		case <-alive.C:
			if err := a.askAlive(conn); err != nil {
				return err
			}
		case <-conn.Failed():
			return conn.Err()
		case <-ctx.Done():
			a.drain(conn)
			return ctx.Err()
		}
	}
}

// drain waits for what is under way.
func (a *appender) drain(conn *wire.Conn) {
	patience := time.NewTimer(endPatience)
	defer patience.Stop()
	for {
		a.m.mu.Lock()
		left := a.underWay
		a.m.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-a.signal:
		case <-conn.Failed():
			return
		case <-patience.C:
			return
		}
	}
}

// take collects the next request: at most one batch of each part.
func (a *appender) take(ctx context.Context) []chunk {
	m := a.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.underWay >= requestsMost || ctx.Err() != nil {
		return nil
	}
	var out []chunk
	bytes := 0
	for _, p := range m.parts {
		if len(p.queue) == 0 || p.flow == nil || !a.serves(p) {
			continue
		}
		if !p.flow.mayAppend() {
			continue
		}
		c := p.queue[0]
		if bytes > 0 && bytes+len(c.raw) > requestBytes {
			continue
		}
		bytes += len(c.raw)
		p.queue[0] = chunk{}
		p.queue = p.queue[1:]
		p.queuedBytes -= int64(len(c.raw))
		p.flow.send(c)
		p.unanswered++
		out = append(out, c)
	}
	if len(out) > 0 {
		a.underWay++
	}
	return out
}

// sequence is the sequence number of the record at a mirror's offset.
func sequence(offset int64) int32 { return int32(offset & (1<<31 - 1)) }

// send stamps the batches and writes the request.
func (a *appender) send(conn *wire.Conn, out []chunk) error {
	version, err := conn.Version(int16(kmsg.Produce), produceVersion)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrProduceRequest()
	req.Version = version
	req.Acks = acksAll
	req.TimeoutMillis = int32(produceTimeout.Milliseconds())
	topics := map[string]int{}
	for _, c := range out {
		p := c.flow.part
		batch.Stamp(c.raw, p.producer.ID, p.producer.Epoch, sequence(c.dest))
		i, ok := topics[p.mirror]
		if !ok {
			t := kmsg.NewProduceRequestTopic()
			t.Topic, t.TopicID = p.mirror, p.mirrorID
			i = len(req.Topics)
			topics[p.mirror] = i
			req.Topics = append(req.Topics, t)
		}
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p.num, c.raw
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rp)
	}
	return conn.SendProduce(req, produceTimeout, func(answer wire.Answer) { a.answered(out, answer) })
}

// answered takes an answer, or what there is instead of one.
func (a *appender) answered(out []chunk, answer wire.Answer) {
	defer a.wake()
	answer.Buffer.Release()
	found := map[partition]*kmsg.ProduceResponseTopicPartition{} // by mirror
	if resp, ok := answer.Response.(*kmsg.ProduceResponse); ok {
		for _, b := range resp.Brokers {
			a.m.dest.learnBroker(b.NodeID, b.Host, b.Port)
		}
		a.index(out, resp, found)
	}
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	a.underWay--
	if answer.Err == nil {
		a.heard = wallClock()
	}
	for _, c := range out {
		c.flow.part.unanswered--
		a.m.release(c)
		rp := found[partition{c.flow.part.mirror, c.flow.part.num}]
		switch {
		case answer.Err != nil:
			c.flow.fail(c, answer.Err)
			a.m.interruptLocked(c.flow, answer.Err)
		case rp == nil:
			err := fmt.Errorf("%s did not answer for %s", a.m.dest.name, c.flow.part.mirror)
			c.flow.fail(c, err)
			a.m.interruptLocked(c.flow, err)
		default:
			a.judge(c, rp)
		}
		c.flow.part.settle()
		a.m.finishLocked(c.flow.part)
		if c.flow.careful && c.flow.part.flow == c.flow {
			a.m.scribe.call(c.flow)
		}
		if c.flow.part.flow == nil && c.flow.part.unanswered == 0 {
			a.m.wakeLocator()
		}
	}
}

func (a *appender) index(out []chunk, resp *kmsg.ProduceResponse, found map[partition]*kmsg.ProduceResponseTopicPartition) {
	names := map[topicID]string{}
	for _, c := range out {
		names[c.flow.part.mirrorID] = c.flow.part.mirror
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		name := t.Topic
		if name == "" {
			name = names[t.TopicID]
		}
		for j := range t.Partitions {
			found[partition{name, t.Partitions[j].Partition}] = &t.Partitions[j]
		}
	}
}

// judge looks at what the broker says of one batch. The caller holds the lock.
func (a *appender) judge(c chunk, rp *kmsg.ProduceResponseTopicPartition) {
	m, p := a.m, c.flow.part
	err := kerr.ErrorForCode(rp.ErrorCode)
	switch {
	case err == nil && rp.BaseOffset == c.dest && (c.flow.careful || c.dest == 0) && !c.isNew(rp):
		// Another instance has written a batch of as many records here, or this
		// one has without hearing of it. It need not have been the same one.
		p.doubts++
		m.interruptLocked(c.flow, errors.New("another instance of this link is at work"))
	case err == nil && rp.BaseOffset == c.dest:
		a.acked(c)
	case err == nil:
		m.misplaced(c, rp.BaseOffset)
	case p.flow == c.flow && moved(err) && m.followDest(p, leader{rp.CurrentLeader.LeaderID, rp.CurrentLeader.LeaderEpoch}):
		c.flow.fail(c, err)
		m.interruptLocked(c.flow, nil)
	default:
		c.flow.fail(c, err)
		a.refused(c, err, rp.ErrorMessage)
	}
}

// isNew reports whether the batch was written now, for all that the answer says,
// and not before. Real brokers tell the time of what was written before, unless it
// has none; kfake leaves out where the log begins.
func (c chunk) isNew(rp *kmsg.ProduceResponseTopicPartition) bool {
	const none = -1
	return rp.LogAppendTime == none && rp.LogStartOffset != none && c.time != none
}

func (a *appender) acked(c chunk) {
	m, p := a.m, c.flow.part
	p.ackedAt, p.pause, p.corrupt = time.Now(), 0, 0
	p.records += int64(c.count)
	p.bytes += int64(len(c.raw))
	p.lastTime = max(p.lastTime, c.time)
	m.metrics.add(m.cfg.Origin, p.topic, int64(c.count), int64(len(c.raw)))
	if p.flow == c.flow {
		p.flow.took(c)
		if p.flow.landed, p.flow.behind = c.plan, c.next; c.plan == nil {
			p.acked, p.mirrored = c.dest+int64(c.count), c.next
		}
	}
}

// refused judges an error. What may pass is tried again from where the mirror
// then ends; what cannot stops the part.
func (a *appender) refused(c chunk, err error, message *string) {
	m, p := a.m, c.flow.part
	if message != nil && *message != "" {
		err = fmt.Errorf("%w: %s", err, *message)
	}
	reason := fmt.Errorf("write %s, partition %d, offset %d: %w", p.mirror, p.num, c.dest, err)
	switch {
	case p.flow != c.flow: // whatever it was has been seen at an earlier batch
		return
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		// What it takes at most is asked for; batches are then split to fit.
		if p.limitBytes == 0 {
			reason = nil // at once, the first time
		}
		p.limitBytes, p.refused = 0, len(c.raw)
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.InvalidTimestamp), errors.Is(err, kerr.UnsupportedForMessageFormat),
		errors.Is(err, kerr.UnsupportedCompressionType), errors.Is(err, kerr.PolicyViolation):
		m.haltLocked(p, stopped(Refused, c.first, c.next-1, "%s refuses the batch of offsets %d to %d: %v", a.m.dest.name, c.first, c.next-1, err))
		return
	case errors.Is(err, kerr.OutOfOrderSequenceNumber), errors.Is(err, kerr.DuplicateSequenceNumber), errors.Is(err, kerr.UnknownProducerID):
		p.doubts++
	}
	m.interruptLocked(c.flow, reason)
}
