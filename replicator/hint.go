package replicator

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Brokers that do not lead a partition any more say who does (KIP-951). A hint is
// followed only to a leader of a later epoch than the known one: so two brokers that
// disagree cannot send a link back and forth.

// moved reports whether an error says that another broker leads by now.
func moved(err error) bool {
	return errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.FencedLeaderEpoch)
}

// newer reports whether a hint is about a later leader, which can be reached.
func (c *cluster) newer(hint, known leader) bool {
	if hint.broker < 0 || hint.epoch <= known.epoch {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, reachable := c.brokers[hint.broker]
	return reachable
}

// followSource lets a flow read on from the leader that an answer names. Nothing has
// to be located: should the new leader have lost what was read, it says so, since
// every fetch tells it the epoch of the last record.
func (m *mover) followSource(fl *flow, hint leader) (followed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := fl.part
	if p.flow != fl || !m.source.newer(hint, fl.leader) {
		return false
	}
	fl.leader = hint
	m.place(p, hint, p.dest)
	m.fetchers[p.lane(hint.broker)].wake()
	return true
}

// followDest has a part located again, as it has to be for another connection, with
// the leader that an answer names. The caller holds the lock.
func (m *mover) followDest(p *part, hint leader) (followed bool) {
	if !m.dest.newer(hint, p.dest) {
		return false
	}
	m.place(p, p.source, hint)
	p.hinted = true
	return true
}
