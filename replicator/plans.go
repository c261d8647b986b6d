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
// Nobody appends before that, so what has landed is the mirror's last batch, which
// no compaction touches.
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

// landed reports whether the mirror's last batch is the one that was planned.
func (m *mover) landed(ctx context.Context, l *locating, plan ledger.Plan) (bool, error) {
	at := spot{l.mirrorID, l.mirror, l.num, l.dest, plan.Dest}
	got, err := m.dest.readAt(ctx, []spot{at}, oneBatchBytes)
	if err != nil {
		return false, err
	}
	if got[0].err != nil {
		return false, fmt.Errorf("read %s, topic %s, partition %d, offset %d: %w", m.dest.name, l.mirror, l.num, plan.Dest, got[0].err)
	}
	for rest := got[0].batches; len(rest) > 0; {
		b, after, err := batch.Read(rest)
		if errors.Is(err, batch.ErrPartial) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("read %s, topic %s, partition %d, offset %d: %w", m.dest.name, l.mirror, l.num, plan.Dest, err)
		}
		if b.BaseOffset == plan.Dest {
			return b.CRC == plan.CRC && b.Count == plan.Count, nil
		}
		rest = after
	}
	return false, nil
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
