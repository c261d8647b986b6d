package projections

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Effort is the time that went into a shard's commits since it was opened.
type Effort struct {
	Committing time.Duration // all of it
	Stalled    time.Duration // how long of it Pebble held them up, because flushes or compactions are behind
	IsStalled  bool          // at this moment
}

// Storage says how a shard's database keeps up with what is written to it.
type Storage struct {
	Effort
	L0Sublevels         int   // 0 and 1 are good; at 100 writes stop
	CompactionDebtBytes int64 // to be compacted
	DiskBytes           int64
}

// Effort costs nothing to ask for.
func (s *Shard) Effort() Effort { return s.effort.sum() }

// Storage costs some microseconds.
func (s *Shard) Storage() Storage {
	m := s.db.Metrics()
	return Storage{
		Effort:              s.effort.sum(),
		L0Sublevels:         int(m.Levels[0].Sublevels),
		CompactionDebtBytes: int64(m.Compact.EstimatedDebt),
		DiskBytes:           int64(m.DiskSpaceUsage()),
	}
}

// effort adds up the time that goes into commits. The zero value is ready.
type effort struct {
	mu         sync.Mutex
	committing time.Duration
	stalled    time.Duration
	since      time.Time // begin of a stall that goes on; zero if there is none
}

func (e *effort) sum() Effort {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := Effort{Committing: e.committing, Stalled: e.stalled, IsStalled: !e.since.IsZero()}
	if sum.IsStalled {
		sum.Stalled += time.Since(e.since)
	}
	return sum
}

// commit does a commit. Whether Pebble held it up comes by watch.
func (e *effort) commit(do func() error) error {
	begun := time.Now()
	err := do()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.committing += time.Since(begun)
	return err
}

// watch has Pebble tell of its stalls.
func (e *effort) watch(l *pebble.EventListener) {
	l.WriteStallBegin = func(pebble.WriteStallBeginInfo) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.since = time.Now()
	}
	l.WriteStallEnd = func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.since.IsZero() {
			e.stalled, e.since = e.stalled+time.Since(e.since), time.Time{}
		}
	}
}
