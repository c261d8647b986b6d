package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	appendTimeout = 30 * time.Second // of one try

	// foldPatience is how long a segment that is due waits for the fold, so that it can
	// say what the region has made of the records in it.
	foldPatience = 150 * time.Millisecond

	// offsetsPatience is how long the offsets of a mirror are waited for before other
	// logs have their turn.
	offsetsPatience = 250 * time.Millisecond

	waitsFor = 30 * time.Second // before it is looked again whether a mirror has come so far
)

// turn is the archiving of a shard from one place on.
type turn struct {
	*shard
	builder *segment.Builder
	most    int64 // bytes of a segment's records
	fresh   map[events.Log]bool
	touched Touched
	until   time.Time // when to look again where to go on; zero: no need

	current batch                // that is being gathered
	aside   map[events.Log]*wait // logs whose offsets are not known yet

	// Of what is gathered: when the oldest record of a stream was read, and up to
	// where logs go.
	since map[events.Stream]time.Time
	cut   events.Vector

	uploads sync.WaitGroup
	sending int64      // bytes of the segment that is on its way
	sent    chan error // says how that went; nil: none is on its way
}

// wait is what was read of a log whose offsets are not known yet.
type wait struct {
	batches []batch
	bytes   int64
}

func newTurn(s *shard, at *place) *turn {
	t := &turn{
		shard: s, builder: at.builder, fresh: at.fresh, touched: s.a.node.Touched(s.number), most: s.a.segmentBytes(),
		aside: map[events.Log]*wait{}, since: map[events.Stream]time.Time{}, cut: events.Vector{},
	}
	if at.waits {
		t.until = time.Now().Add(waitsFor)
	}
	return t
}

// run archives until the context ends, the shard is not the node's any more (nil), or
// it cannot go on from here.
func (t *turn) run(ctx context.Context) error {
	// What is on its way may arrive when the context has ended.
	sending, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer t.own.Store(0)
	defer t.uploads.Wait()
	defer giveUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		err := t.advance(ctx, sending)
		if err == nil && !t.until.IsZero() && time.Now().After(t.until) {
			err = errAgain
		}
		if errors.Is(err, errAgain) {
			return errors.Join(t.flush(ctx, sending), err)
		}
		if err != nil {
			return err
		}
		timer.Reset(t.untilDue())
		select {
		case <-ctx.Done():
			t.finish(sending)
			return nil
		case <-t.wake:
		case <-timer.C:
		case err := <-t.sent:
			if err := t.arrived(err); err != nil {
				return err
			}
		case <-look.C:
			if !t.a.node.Archives(t.number) {
				return nil
			}
			if t.anew.Load() {
				return errors.Join(t.flush(ctx, sending), errAgain)
			}
			if err := t.retryAside(ctx); err != nil {
				return err
			}
			t.most = t.a.segmentBytes()
		}
	}
}

// finish appends what was gathered, if the bucket answers soon.
func (t *turn) finish(sending context.Context) {
	ctx, cancel := context.WithTimeout(sending, stopPatience)
	defer cancel()
	if err := t.flush(ctx, sending); err != nil && !t.builder.Empty() {
		t.log.Warn("not everything that was read is archived; who goes on reads it again", "error", err)
	}
}

// flush appends all that was read.
func (t *turn) flush(ctx, sending context.Context) error {
	for {
		if err := t.await(ctx); err != nil {
			return err
		}
		for more := true; more; {
			var err error
			if more, err = t.take(ctx); err != nil && !errors.Is(err, errAgain) {
				return err
			}
		}
		if t.builder.Empty() {
			return nil
		}
		if err := t.close(ctx, sending); err != nil {
			return err
		}
	}
}

// await waits for the segment that is on its way.
func (t *turn) await(ctx context.Context) error {
	if t.sent == nil {
		return nil
	}
	select {
	case err := <-t.sent:
		return t.arrived(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// advance gathers what was read, and closes the segment when that is due.
func (t *turn) advance(ctx, sending context.Context) error {
	for {
		if t.sent == nil && t.untilDue() <= 0 {
			if err := t.close(ctx, sending); err != nil {
				return err
			}
		}
		if more, err := t.take(ctx); !more || err != nil {
			return err
		}
	}
}

// never is longer than anybody waits.
const never = time.Hour

// untilDue is how long the segment that is gathered may still wait.
func (t *turn) untilDue() time.Duration {
	switch {
	case t.sent != nil || t.builder.Empty():
		return never
	case t.builder.Bytes() >= t.most || len(t.since) == 0: // of a gap
		return 0
	}
	left := never
	for stream, since := range t.since {
		left = min(left, t.a.cfg.Limits[stream]-time.Since(since))
	}
	return left
}

// take gathers a batch, or as much of it as the segment has room for. more is false if
// there is nothing to take, or no room.
func (t *turn) take(ctx context.Context) (more bool, err error) {
	defer t.count()
	if t.builder.Bytes() >= t.most {
		return false, nil
	}
	if len(t.current.records) == 0 {
		t.current = batch{}
		b, ok := t.next()
		if !ok {
			return false, nil
		}
		if ok, err := t.accept(ctx, b); !ok || err != nil {
			return true, err
		}
		t.current = b
	}
	return true, t.gather()
}

// accept makes a batch ready to be gathered; not ok if it is not to be, or not yet.
func (t *turn) accept(ctx context.Context, b batch) (ok bool, err error) {
	var loss *kgo.ErrDataLoss
	switch {
	case t.isStopped(b.log):
		return false, nil
	case isTooLarge(b.lost):
		next, _ := t.builder.Next(b.log)
		t.stopLog(b.log, fmt.Errorf("the batch at offset %d is too large (limits.max_batch_bytes): %w", next, b.lost))
		return false, nil
	case errors.As(b.lost, &loss):
		t.stopLog(b.log, fmt.Errorf("topic %s has lost records that it had acknowledged: %w; if it was truncated or made anew, give its region a new incarnation", loss.Topic, b.lost))
		return false, nil
	case b.lost != nil:
		return false, errAgain
	}
	if w := t.aside[b.log]; w != nil {
		w.batches, w.bytes = append(w.batches, b), w.bytes+b.bytes
		return false, nil
	}
	return t.translate(ctx, b)
}

// translate gives the records of a batch the offsets of their log. A batch whose offsets
// are not known yet is put aside.
func (t *turn) translate(ctx context.Context, b batch) (ok bool, err error) {
	short, cancel := context.WithTimeout(ctx, offsetsPatience)
	defer cancel()
	err = t.a.offsets.ToLog(short, b.log, b.records, b.end)
	switch {
	case err == nil:
		return true, t.checkFirst(b)
	case events.KindOf(err) == events.KindRefused:
		t.stopLog(b.log, err)
		return false, nil
	}
	t.tell(fmt.Errorf("offsets of %s: %w", b.log, err))
	if t.aside[b.log] == nil {
		t.aside[b.log] = &wait{}
	}
	w := t.aside[b.log]
	w.batches, w.bytes = append(w.batches, b), w.bytes+b.bytes
	return false, nil
}

// retryAside takes up logs that were put aside.
func (t *turn) retryAside(ctx context.Context) error {
	defer t.count()
	for l, w := range t.aside {
		delete(t.aside, l)
		for i, b := range w.batches {
			ok, err := t.translate(ctx, b)
			if err != nil {
				return err
			}
			if !ok {
				if again := t.aside[l]; again != nil { // it has this batch
					again.batches, again.bytes = w.batches[i:], w.bytes
				}
				break
			}
			w.bytes -= b.bytes
			if err := t.gatherAll(b); err != nil {
				return err
			}
		}
		if len(t.aside) == 0 {
			t.tell(nil)
		}
	}
	return nil
}

// checkFirst looks, when the first records of a mirror come, whether it begins where the
// archive does.
func (t *turn) checkFirst(b batch) error {
	if !t.fresh[b.log] {
		return nil
	}
	if next, _ := t.builder.Next(b.log); b.records[0].Offset > next {
		return errAgain // and so with all that comes, until that is done
	}
	delete(t.fresh, b.log)
	return nil
}

// gatherAll gathers a batch whatever room there is.
func (t *turn) gatherAll(b batch) error {
	rest := t.current
	defer func() { t.current = rest }()
	for t.current = b; len(t.current.records) > 0; {
		if err := t.gatherOne(); err != nil {
			return err
		}
	}
	return nil
}

// gather gathers the current batch as long as there is room.
func (t *turn) gather() error {
	for len(t.current.records) > 0 && t.builder.Bytes() < t.most {
		if err := t.gatherOne(); err != nil {
			return err
		}
	}
	return nil
}

// gatherOne gathers the first record of the current batch.
func (t *turn) gatherOne() error {
	l, r := t.current.log, t.current.records[0]
	t.current.records[0] = nil
	t.current.records = t.current.records[1:]
	isLast := len(t.current.records) == 0
	if r.Attrs.IsControl() {
		if next, _ := t.builder.Next(l); isLast && next <= r.Offset {
			t.setTail(l, tail{records: next, read: r.Offset + 1})
		}
		return nil
	}
	if t.touched != nil {
		t.touched.Note(l, r)
		t.noted[l] = r.Offset + 1
	}
	next, known := t.builder.Next(l)
	if !known || r.Offset < next {
		return nil
	}
	if err := t.builder.Add(l, r); err != nil {
		return err
	}
	if _, waits := t.since[l.Stream]; !waits {
		t.since[l.Stream] = t.current.at
	}
	t.cut[l] = r.Offset + 1
	return nil
}

// count sums up what it holds.
func (t *turn) count() {
	held := t.builder.Bytes() + t.sending
	if len(t.current.records) > 0 {
		held += t.current.bytes
	}
	for _, w := range t.aside {
		held += w.bytes
	}
	t.own.Store(held)
}

// close makes a segment of what was gathered and sends it off; nothing is on its way.
func (t *turn) close(ctx, sending context.Context) error {
	folded, cancel := context.WithTimeout(ctx, foldPatience)
	t.a.node.Folded(folded, t.number, t.cut)
	cancel()
	s, object, err := t.builder.Close(time.Now(), t.a.node.Epoch(t.number), t.mark)
	if err != nil {
		return err
	}
	clear(t.since)
	clear(t.cut)
	t.sending, t.sent = int64(len(object)), make(chan error, 1)
	t.count()
	sent := t.sent
	t.uploads.Go(func() { sent <- t.append(sending, s, object) })
	return nil
}

// mark is what the region has made of a log.
func (t *turn) mark(l events.Log, offset int64) (events.Mark, bool) { return t.a.node.Mark(l, offset) }

// arrived takes in how the segment fared that was on its way.
func (t *turn) arrived(err error) error {
	t.sending, t.sent = 0, nil
	t.count()
	if t.paused.Load() {
		t.a.orders.Nudge()
	}
	return err
}

// append brings a segment into the bucket, however often that has to be tried. It gives
// up when the context ends, or the shard is not the node's any more.
func (t *turn) append(ctx context.Context, s *format.Segment, object []byte) error {
	for wait := pauseLeast; ; wait = min(2*wait, pauseMost) {
		err := t.tryAppend(ctx, s, object)
		switch {
		case err == nil:
			t.tell(nil)
			t.appended(s, object)
			return nil
		case errors.Is(err, segment.ErrTaken) || ctx.Err() != nil:
			return err
		}
		t.a.metrics.errors.Inc()
		t.tell(err)
		pause.For(ctx, wait)
		if ctx.Err() == nil && !t.a.node.Archives(t.number) {
			return err
		}
	}
}

// tryAppend appends, if the node can be sure that the shard is its own.
func (t *turn) tryAppend(ctx context.Context, s *format.Segment, object []byte) error {
	if err := t.a.node.Sure(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	return segment.Append(ctx, t.a.bucket, s, object)
}

func (t *turn) appended(s *format.Segment, object []byte) {
	m := t.a.metrics
	m.segments.Inc()
	m.bytes.Add(float64(len(object)))
	for _, p := range s.Parts {
		m.records.Add(float64(p.Records))
		if p.Gap != nil {
			m.gaps.Add(float64(p.From - p.Gap.From))
		}
	}
}
