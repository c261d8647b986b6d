package replicator

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/replicator/batch"
	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// findNotes reads what the link topic says of parts.
func (m *mover) findNotes(ctx context.Context, todo []*locating) error {
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
		l.f.runs, l.version = m.ledger.Runs(key)
		r := m.ledger.Reached(key)
		l.f.reached = start{next: r.Source, end: r.Dest}
		m.mu.Lock()
		l.doubted, l.compares = l.doubts, !l.checked || l.doubts != l.dispelled
		if l.checked {
			l.f.reached = start{next: l.mirrored, end: l.acked}
		}
		m.mu.Unlock()
		producer, proposed := m.ledger.Producer(key)
		l.producer = producer
		l.fresh, l.f.fresh = !proposed, !proposed
		l.f.known, _ = m.ledger.Mirror(l.topic)
	}
	return nil
}

// findPlans sees what has come of batches that were planned for below the mirror's
// end, by whomever: one that has landed counts from now on, the others never will.
// Nobody appends before that, so what has landed is the mirror's last batch.
func (m *mover) findPlans(ctx context.Context, todo []*locating) error {
	for _, l := range todo {
		open := m.ledger.Plans(l.partition.ledger())
		if len(open) == 0 {
			continue
		}
		if err := m.settlePlans(ctx, l, open); err != nil {
			l.fail(err)
		}
	}
	return ctx.Err()
}

func (m *mover) settlePlans(ctx context.Context, l *locating, open []ledger.Plan) error {
	key := l.partition.ledger()
	var failed []ledger.Plan
	for _, plan := range open {
		end := plan.Dest + int64(plan.Count)
		switch {
		case plan.Dest >= l.f.mirrorEnd:
			continue // it may yet land
		case plan.Dest < l.f.mirrorStart && end == l.f.mirrorEnd:
			l.f.expired = &plan
			continue
		case end != l.f.mirrorEnd:
			failed = append(failed, plan)
			continue
		}
		landed, err := m.landed(ctx, l, plan)
		if errors.Is(err, errNoRecord) {
			l.f.expired = &plan
			continue
		}
		if err != nil {
			return err
		}
		if !landed {
			failed = append(failed, plan)
			continue
		}
		if _, err := m.ledger.Step(ctx, key, l.version, &plan, nil); err != nil {
			return fmt.Errorf("link topic of %s: %w", m.dest.name, err)
		}
		l.f.runs, l.version = m.ledger.Runs(key)
		l.f.expired = nil
		return nil
	}
	if err := m.ledger.Drop(ctx, failed); err != nil {
		return fmt.Errorf("link topic of %s: %w", m.dest.name, err)
	}
	return nil
}

// landed reports whether the mirror's last batch is the one that was planned. A broker
// that refuses a batch may begin a new segment before, so that compaction gets at the
// last one. It leaves the place of the batch, and its last record, since there is
// nothing behind it. errNoRecord says that this one has gone too.
func (m *mover) landed(ctx context.Context, l *locating, plan ledger.Plan) (bool, error) {
	last := plan.Dest + int64(plan.Count) - 1
	got := m.dest.readAt(ctx, []spot{{l.mirrorID, l.mirror, l.num, l.dest, last}}, oneBatchBytes)
	b, err := got[0].batch(last)
	if errors.Is(err, errNoRecord) {
		return false, err
	}
	if err != nil {
		return false, fmt.Errorf("read %s, topic %s, partition %d, offset %d: %w", m.dest.name, l.mirror, l.num, last, err)
	}
	switch {
	case b.BaseOffset != plan.Dest || b.LastOffset() != last:
		return false, nil
	case b.Dense() && !b.DeleteHorizon():
		return b.CRC == plan.CRC, nil
	}
	r, err := got[0].record(batch.NewRecoder(), last)
	return err == nil && r.Sum() == plan.Last, err
}

// batch is the one that covers an offset, in what was read.
func (d data) batch(offset int64) (batch.Batch, error) {
	for b, err := range d.all() {
		if err != nil || b.BaseOffset <= offset && offset <= b.LastOffset() {
			return b, err
		}
	}
	return batch.Batch{}, errNoRecord
}

// findPolicies asks which sources are compacted: what one reads of them, another one
// need not find.
func (m *mover) findPolicies(ctx context.Context, todo []*locating) error {
	compacted, err := m.source.compacted(ctx, names(todo, ofLog))
	if err != nil {
		return err
	}
	for _, l := range todo {
		is, known := compacted[l.log]
		l.compacted = is || !known // to be careful does no harm
	}
	return nil
}
