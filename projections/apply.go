package projections

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Run is a run of records of one log, in order. The records' offsets are those
// of the origin's log.
type Run struct {
	Log     events.Log
	Records []*kgo.Record
}

// Applied says what an Apply did.
type Applied struct {
	Events   int        // folded
	Parked   int        // set aside because they are no events
	Skipped  int        // folded before
	MaxClock events.HLC // largest clock among the events
}

// GapError says that records of a log are missing between what was folded and
// what came. The fold of that log stops: going on would lose them silently.
type GapError struct {
	Log       events.Log
	Want, Got int64 // offsets; those from Want to Got-1 are missing
}

func (e *GapError) Error() string {
	return fmt.Sprintf("%s: offsets %d to %d are missing (expired, compacted away, or never copied); "+
		"restore this region from a backup that covers them", e.Log, e.Want, e.Got-1)
}

// DiskFullError says that the disk has less free space than is kept in reserve.
type DiskFullError struct {
	Dir           string
	Free, Reserve uint64 // bytes
}

func (e *DiskFullError) Error() string {
	return fmt.Sprintf("disk of %s is nearly full: %d MiB free, %d MiB are kept in reserve; free some space, nothing is lost meanwhile",
		e.Dir, e.Free>>20, e.Reserve>>20)
}

// applier is the scratch space of Apply.
type applier struct {
	touched map[string]*touched
	order   []*touched
	logs    map[events.Log]*logMeta // changed states, not yet committed
	blocked map[events.Log]error    // logs that stop once the rest is committed
	hasher  digest.Hasher
	key     []byte
}

// touched is a slice that the batch changes.
type touched struct {
	dbKey    string
	log      *logMeta
	rule     merge.Rule
	key      string
	old, now []byte // old is nil if there was none
}

// Apply folds the runs in one atomic step. A gap or a stream without a rule
// blocks that run's log and is no error of the others; a returned error means
// that nothing was applied and nothing blocked.
func (s *Shard) Apply(runs []Run) (Applied, error) {
	if err := s.checkDisk(); err != nil {
		return Applied{}, err
	}
	a := &s.apply
	a.touched, a.order = map[string]*touched{}, a.order[:0]
	a.logs, a.blocked = map[events.Log]*logMeta{}, map[events.Log]error{}
	batch := s.db.NewBatch()
	defer batch.Close()

	var done Applied
	for _, run := range runs {
		if err := s.fold(batch, run, &done); err != nil {
			return Applied{}, err
		}
	}
	if err := s.commit(batch); err != nil {
		return Applied{}, err
	}
	for l, reason := range a.blocked {
		s.Block(l, reason)
	}
	return done, nil
}

// commit writes what the runs changed, and then shows it.
func (s *Shard) commit(batch *pebble.Batch) error {
	a := &s.apply
	if len(a.logs) == 0 {
		return nil
	}
	for _, t := range a.order {
		if t.now == nil {
			continue // its only events were parked
		}
		a.settle(t)
		if err := batch.Set([]byte(t.dbKey), t.now, nil); err != nil {
			return err
		}
	}
	for _, m := range a.logs {
		if err := batch.Set(logKey(m.log), m.encode(), nil); err != nil {
			return err
		}
	}
	// Not synced: the log is the durable truth, and the vector in this very
	// batch says from where to replay.
	if err := batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, m := range a.logs {
		s.logs[l] = m
	}
	return nil
}

// fold takes in one run.
func (s *Shard) fold(batch *pebble.Batch, run Run, done *Applied) error {
	if err := checkLog(run.Log, s.cfg.Partition); err != nil {
		return err
	}
	rule, ok := s.cfg.Rules[run.Log.Stream]
	if !ok {
		s.apply.blocked[run.Log] = fmt.Errorf("%s: stream %s is not configured", run.Log, run.Log.Stream)
		return nil
	}
	if s.isBlocked(run.Log) {
		return nil
	}
	m := s.changing(run.Log, rule)
	was := m.next
	err := s.foldRecords(batch, m, rule, run.Records, done)
	if m.next > was {
		s.apply.logs[run.Log] = m
	}
	return err
}

func (s *Shard) foldRecords(batch *pebble.Batch, m *logMeta, rule merge.Rule, records []*kgo.Record, done *Applied) error {
	for _, r := range records {
		switch {
		case r.Offset < m.next:
			done.Skipped++
			continue
		case r.Offset > m.next:
			s.apply.blocked[m.log] = &GapError{Log: m.log, Want: m.next, Got: r.Offset}
			return nil
		}
		reason, err := s.foldRecord(m, rule, r, done)
		if err != nil {
			return err
		}
		if reason != nil {
			if err := s.apply.park(batch, m, r, reason); err != nil {
				return err
			}
			done.Parked++
		}
		m.next = r.Offset + 1
	}
	return nil
}

// foldRecord folds one record. It returns why the record is to be parked, if it
// is, and apart from that any error of the state.
func (s *Shard) foldRecord(m *logMeta, rule merge.Rule, r *kgo.Record, done *Applied) (parked, err error) {
	e, err := events.Decode(r)
	if err != nil {
		return err, nil
	}
	t, err := s.touch(m, rule, e.Key)
	if err != nil {
		return nil, err
	}
	now, err := rule.Fold(nil, t.now, &e, m.log.At(r.Offset))
	var noMeaning *merge.NoMeaningError
	if errors.As(err, &noMeaning) {
		return noMeaning, nil
	}
	if err != nil {
		return nil, fmt.Errorf("slice in %s, of %s: %w", s.cfg.Dir, m.log, err)
	}
	t.now = now
	m.events++
	done.Events++
	done.MaxClock = max(done.MaxClock, e.Clock)
	return nil, nil
}

// touch finds a slice in the batch, or else in the database.
func (s *Shard) touch(m *logMeta, rule merge.Rule, key string) (*touched, error) {
	a := &s.apply
	a.key = appendEntityKey(a.key[:0], m.log.Stream, key)
	a.key = append(a.key, m.origin...)
	if t, ok := a.touched[string(a.key)]; ok {
		return t, nil
	}
	old, err := get(s.db, a.key)
	if err != nil {
		return nil, fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
	}
	t := &touched{dbKey: string(a.key), log: m, rule: rule, key: key, old: old, now: old}
	a.touched[t.dbKey] = t
	a.order = append(a.order, t)
	return t, nil
}

// settle moves a changed slice from its old to its new place in the counts and
// the digests of its log.
func (a *applier) settle(t *touched) {
	if t.old != nil {
		t.log.remove(&a.hasher, t.key, t.old, t.rule.Live(t.old))
	}
	t.log.add(&a.hasher, t.key, t.now, t.rule.Live(t.now))
}

// changing is a copy of the log's state that the batch may change.
func (s *Shard) changing(l events.Log, rule merge.Rule) *logMeta {
	if m, ok := s.apply.logs[l]; ok {
		return m
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	m := &logMeta{log: l, origin: l.Origin.String(), rule: rule.Name()}
	if was, ok := s.logs[l]; ok {
		*m = *was
	}
	return m
}

func (s *Shard) isBlocked(l events.Log) bool {
	if _, is := s.apply.blocked[l]; is {
		return true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, is := s.blocked[l]
	return is
}

func (s *Shard) checkDisk() error {
	if s.cfg.MinFreeBytes == 0 {
		return nil
	}
	usage, err := s.cfg.FS.GetDiskUsage(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", s.cfg.Dir, err)
	}
	if usage.AvailBytes < s.cfg.MinFreeBytes {
		return &DiskFullError{Dir: s.cfg.Dir, Free: usage.AvailBytes, Reserve: s.cfg.MinFreeBytes}
	}
	return nil
}

// get reads a key's value, nil if there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	copied := append(make([]byte, 0, len(value)), value...)
	return copied, closer.Close()
}
