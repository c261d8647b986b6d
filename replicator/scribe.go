package replicator

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// scribe writes plans to the link topic: each before its batch is appended, and
// that it has landed before anything else is.
type scribe struct {
	m      *mover
	signal chan struct{}

	waiting map[*flow]bool // may have something to be written; guarded by the mover's lock
}

func newScribe(m *mover) *scribe {
	return &scribe{m: m, signal: make(chan struct{}, 1), waiting: map[*flow]bool{}}
}

// call has a flow looked at. The caller holds the lock.
func (s *scribe) call(fl *flow) {
	s.waiting[fl] = true
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// run writes until the mover ends.
func (s *scribe) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.signal:
		}
		s.write(ctx)
	}
}

// note is what is to be written for one flow.
type note struct {
	flow            *flow
	at              ledger.Version
	landed, planned *ledger.Plan
}

func (s *scribe) write(life context.Context) {
	ctx, cancel := context.WithTimeout(life, requestTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(ledgerWide)
	for _, n := range s.take() {
		g.Go(func() error {
			next, err := s.m.ledger.Step(ctx, n.flow.part.ledger(), n.at, n.landed, n.planned)
			s.written(n, next, err)
			return nil
		})
	}
	_ = g.Wait() // errors are told to the flows
}

// take is what is to be written now. A flow whose batch is under way is called
// again when it has been answered.
func (s *scribe) take() (notes []note) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for fl := range s.waiting {
		p := fl.part
		if p.flow != fl || p.unanswered > 0 {
			continue
		}
		n := note{flow: fl, at: fl.version, landed: fl.landed}
		if len(p.queue) > 0 && p.queue[0].plan != fl.planned {
			n.planned = p.queue[0].plan
		}
		if n.landed != nil || n.planned != nil {
			notes = append(notes, n)
		}
	}
	clear(s.waiting)
	return notes
}

// written lets a flow go on.
func (s *scribe) written(n note, next ledger.Version, err error) {
	m, p := s.m, n.flow.part
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.flow != n.flow {
		return
	}
	if err != nil {
		p.doubts++
		m.interruptLocked(n.flow, fmt.Errorf("link topic of %s: %w", m.dest.name, err))
		return
	}
	n.flow.version, n.flow.planned = next, n.planned
	if n.landed != nil {
		n.flow.landed = nil
		p.acked, p.mirrored = n.landed.Dest+int64(n.landed.Count), n.flow.behind
		p.settle()
		m.finishLocked(p)
		if p.moved && !n.flow.compacted {
			p.moved = false
			m.interruptLocked(n.flow, nil) // all others see the same: no need to go step by step
			return
		}
	}
	m.appenders[p.lane(p.dest.broker)].wake()
}
