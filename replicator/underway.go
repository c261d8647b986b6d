package replicator

import (
	"fmt"
	"time"
)

// A broker that has forgotten a producer takes any first sequence: were a batch
// refused then, one that is under way behind it would be taken in its place. It
// looks every ten minutes for producers that have written nothing for a day, as it
// tells by the timestamps of their records. So while records are younger than that
// it knows the producer, and while they are older it knows it until the next look,
// which may come at any time.
const (
	rememberedFor = time.Second    // so long after it took a batch, a broker is taken to know the producer
	oldAfter      = 12 * time.Hour // records, when the broker's next look may make it forget; half of producer.id.expiration.ms
)

// mayAppend reports whether the next batch may be sent. The caller holds the lock.
func (fl *flow) mayAppend() bool {
	p := fl.part
	switch {
	case fl.careful:
		return p.unanswered == 0 && fl.landed == nil && (p.queue[0].plan == nil || p.queue[0].plan == fl.planned)
	case fl.alone || !fl.remembered():
		return p.unanswered == 0
	}
	return true
}

// send notes that a batch is sent, and whether nothing may follow before it is
// answered: that is so if the broker may not know the producer, and if the batch
// may be too large while it might come to forget the producer in just this moment.
// The caller holds the lock.
func (fl *flow) send(c chunk) {
	old := time.UnixMilli(fl.sentTime).Before(time.Now().Add(-oldAfter))
	fl.alone = !fl.remembered() || old && len(c.raw) > fl.largest
	fl.sentTime = c.time
}

// took notes that the broker has taken a batch. The caller holds the lock.
func (fl *flow) took(c chunk) {
	fl.tookAt = wallClock()
	fl.largest = max(fl.largest, len(c.raw))
}

// remembered reports whether the broker has shown a moment ago that it knows the
// producer.
func (fl *flow) remembered() bool { return wallClock().Sub(fl.tookAt) < rememberedFor }

// failure is of a batch that was sent and not acknowledged.
type failure struct {
	first int64 // source offset of its first record
	err   error
}

// fail notes that a batch was not acknowledged, if it is the first of its flow: the last
// may be told of before, when it cannot be sent. The caller holds the lock.
func (fl *flow) fail(c chunk, err error) {
	if fl.failed == nil || c.first < fl.failed.first {
		fl.failed = &failure{c.first, err}
	}
}

// misplaced stops a part whose mirror has a batch at another offset than it is due
// at, or says more of what stopped it. The caller holds the lock.
func (m *mover) misplaced(c chunk, at int64) {
	fl, p := c.flow, c.flow.part
	if p.stop != nil && p.stop == fl.misplaced { // it was on its way when an earlier one showed it
		if p.stop.State == ForeignWriter && fl.failed == nil {
			p.stop.next = max(p.stop.next, c.next)
		}
		if p.stop.State == Diverged {
			p.stop.To = at + int64(c.count) - 1
		}
		return
	}
	failed := fl.failed
	if failed != nil && failed.first > c.first {
		failed = nil // what comes before this batch was acknowledged
	}
	var stop *StoppedError
	switch {
	case at < c.dest && failed != nil:
		stop = stopped(Diverged, at, at+int64(c.count)-1, "offset %d of the source was written at offset %d of %s instead of %d: %s had forgotten the link's producer, "+
			"so it did not take the batch that begins at offset %d of the source (%v), and took this one in its place; offsets %s of the source are missing in the mirror",
			c.first, at, p.mirror, c.dest, m.dest.name, failed.first, failed.err, span(failed.first, c.first-1))
	case at < c.dest:
		stop = stopped(Diverged, at, at+int64(c.count)-1, "offset %d of the source was written at offset %d of %s instead of %d: what the mirror had there is lost; "+
			"an unclean leader was elected, or its disk was restored", c.first, at, p.mirror, c.dest)
		if next, mapped := m.ledger.Map(p.ledger()).Source(at); mapped {
			stop.next = next
		}
	default:
		stop = stopped(ForeignWriter, c.dest, at-1, "offset %d of the source was written at offset %d of %s instead of %d: somebody else writes to the mirror; "+
			"the record may be there twice", c.first, at, p.mirror, c.dest)
		stop.next = c.next
		if failed != nil {
			stop.Reason += fmt.Sprintf("; whether offsets %s of the source are there is not known (%v)", span(failed.first, c.first-1), failed.err)
		}
	}
	if failed != nil {
		stop.next = failed.first
	}
	if p.state.Stopped() { // what it was stopped for is not the worst of it
		m.metrics.resume(m.cfg.Origin)
		p.state = Starting
	}
	fl.misplaced = stop
	m.haltLocked(p, stop)
}
