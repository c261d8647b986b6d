package projections

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Run is a run of records of one log, in order. The records' offsets are those
// of the origin's log.
type Run struct {
	Log     events.Log
	Records []*kgo.Record

	// Sparse says that offsets between the records may be missing because they
	// are no records: a transaction's markers, and what it aborted.
	Sparse bool
}

// Applied says what an Apply did.
type Applied struct {
	Events    int        // folded
	Parked    int        // set aside because they are no events
	Skipped   int        // folded before
	Collected int        // tombstones taken out of the state
	Buried    int        // slices that were made tombstones, because others hide what they held
	MaxClock  events.HLC // largest clock among the events, of those up to Config.ClockLimit
}

// Add sums up what two Applies did.
func (a Applied) Add(b Applied) Applied {
	return Applied{
		Events: a.Events + b.Events, Parked: a.Parked + b.Parked, Skipped: a.Skipped + b.Skipped,
		Collected: a.Collected + b.Collected, Buried: a.Buried + b.Buried, MaxClock: max(a.MaxClock, b.MaxClock),
	}
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

// applier is the scratch space of Apply, kept from one batch to the next.
type applier struct {
	items   []item
	touched map[sliceID]*touched
	order   []*touched              // by database key, once they are read
	logs    map[events.Log]*logTurn // logs of this batch
	blocked map[events.Log]error    // logs that stop once the rest is committed
	spare   []*logTurn
	hasher  digest.Hasher
	memory  arena // of keys and new slices; gone with the next batch
	readers [readersMax]reader
	key     []byte

	clockLimit events.HLC // of Applied.MaxClock

	// For read models.
	models   *derived.Turn
	entities []entity
}

// item is a record of a batch on its way into its slice.
type item struct {
	record *kgo.Record
	turn   *logTurn
	event  events.Event
	slice  *touched // nil if the record is no event, or one of upkeep
	parked error    // why it is none

	named  []events.Tombstone // of an event of upkeep
	slices []*touched         // those that are named
}

// logTurn is what a batch makes of one log; it is shown once it is committed.
type logTurn struct {
	log     *logEntry // as committed before
	rule    merge.Rule
	readers *derived.Readers // read models of the stream; nil if there are none
	meta    logMeta          // as it will be
	from    int64            // meta.next before the batch
	expect  int64            // next offset to take in
	marks   []events.Mark
	changes digest.Changes
	encoded []byte // changes, as the database has them
}

// Apply folds the runs in one atomic step. A gap or a stream without a rule
// blocks that run's log and is no error of the others; a returned error means
// that nothing was applied and nothing blocked.
//
// It goes over the records three times: to decode them and see which slices they
// touch, to read those slices in the order of the database, and to fold.
func (s *Shard) Apply(runs []Run) (Applied, error) {
	if err := s.checkWritable(); err != nil {
		return Applied{}, err
	}
	s.apply.reset()
	s.apply.clockLimit = s.cfg.ClockLimit()
	s.apply.models = s.models.Begin(s.vector)
	defer s.apply.models.End()
	var done Applied
	for _, run := range runs {
		if err := s.take(run, &done); err != nil {
			return Applied{}, err
		}
	}
	if err := s.readTouched(); err != nil {
		return Applied{}, err
	}
	if err := s.readViews(); err != nil {
		return Applied{}, fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	for i := range s.apply.items {
		if err := s.fold(batch, &s.apply.items[i], &done); err != nil {
			return Applied{}, err
		}
	}
	if err := s.commit(batch); err != nil {
		return Applied{}, err
	}
	for l, reason := range s.apply.blocked {
		s.Block(l, reason)
	}
	return done, nil
}

// checkWritable says why nothing can be applied at present.
func (s *Shard) checkWritable() error {
	if err := s.fenced(); err != nil {
		return err
	}
	return s.checkDisk()
}

func (a *applier) reset() {
	clear(a.items)
	clear(a.order)
	a.items, a.order = a.items[:0], a.order[:0]
	clear(a.entities)
	a.entities = a.entities[:0]
	a.memory.reset()
	if a.touched == nil {
		a.touched, a.logs, a.blocked = map[sliceID]*touched{}, map[events.Log]*logTurn{}, map[events.Log]error{}
	}
	for _, t := range a.logs {
		t.changes.Reset()
		a.spare = append(a.spare, t)
	}
	clear(a.touched)
	clear(a.logs)
	clear(a.blocked)
}

// take decodes the records of a run that come next in their log.
func (s *Shard) take(run Run, done *Applied) error {
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
	t := s.turn(run.Log, rule)
	for _, r := range run.Records {
		switch {
		case r.Offset < t.expect:
			done.Skipped++
			continue
		case r.Offset > t.expect && !run.Sparse:
			s.apply.blocked[run.Log] = &GapError{Log: run.Log, Want: t.expect, Got: r.Offset}
			return nil
		}
		t.expect = r.Offset + 1
		i := item{record: r, turn: t}
		if i.event, i.parked = events.Decode(r); i.parked == nil {
			i.parked = events.CheckClock(&i.event, r)
		}
		if i.parked == nil {
			s.apply.aim(&i)
		}
		s.apply.items = append(s.apply.items, i)
	}
	return nil
}

// turn is the log's turn in this batch.
func (s *Shard) turn(l events.Log, rule merge.Rule) *logTurn {
	a := &s.apply
	if t, ok := a.logs[l]; ok {
		return t
	}
	t := &logTurn{}
	if n := len(a.spare); n > 0 {
		t, a.spare = a.spare[n-1], a.spare[:n-1]
	}
	s.mu.RLock()
	t.log = s.logs[l]
	s.mu.RUnlock()
	if t.log == nil {
		t.log = newLogEntry(l, rule.Name())
		s.expect(l)
	}
	t.rule, t.meta, t.marks, t.readers = rule, t.log.meta, t.marks[:0], s.models.Readers(l.Stream)
	t.from, t.expect = t.meta.next, t.meta.next
	a.logs[l] = t
	return t
}

// fold folds one record, or parks it.
func (s *Shard) fold(batch *pebble.Batch, i *item, done *Applied) error {
	a, t := &s.apply, i.turn
	if err := t.keepMark(batch, i.record.Offset); err != nil {
		return err
	}
	if i.parked == nil {
		if err := s.foldEvent(i, done); err != nil {
			return err
		}
	}
	if i.parked != nil {
		if err := a.park(batch, &t.meta, i.record, i.parked); err != nil {
			return err
		}
		done.Parked++
	} else {
		t.meta.events++
		done.Events++
		if i.event.Clock <= a.clockLimit {
			done.MaxClock = max(done.MaxClock, i.event.Clock)
		}
		t.meta.clock = max(i.event.Clock, t.meta.clock.Next())
	}
	t.meta.chain = a.hasher.Chain(t.meta.chain, i.record)
	t.meta.next = i.record.Offset + 1
	t.mark()
	return nil
}

// foldExtraBytes is what a slice usually holds besides values: clocks, types. One
// that holds more gets memory of its own.
const foldExtraBytes = 128

// foldEvent folds an event into its slice, or into those that it names.
func (s *Shard) foldEvent(i *item, done *Applied) error {
	if i.slice == nil {
		return s.upkeep(i, done)
	}
	t, slice := i.turn, i.slice
	memory := &s.apply.memory
	now, err := t.rule.Fold(memory.room(len(slice.now)+len(i.event.Value)+foldExtraBytes), slice.now, &i.event, t.meta.log.At(i.record.Offset))
	if isNoMeaning(err) {
		i.parked = err
		return nil
	}
	if err != nil {
		return fmt.Errorf("slice in %s, of %s: %w", s.cfg.Dir, t.meta.log, err)
	}
	memory.keep(now)
	s.replace(t, slice, now)
	slice.written = true
	return s.apply.models.Event(t.readers, derived.Event{Event: &i.event, Position: t.meta.log.At(i.record.Offset)})
}

// replace gives a slice new bytes, and moves it from its old to its new place in sums and counts.
func (s *Shard) replace(t *logTurn, slice *touched, now []byte) {
	if slice.now != nil {
		t.meta.remove(&t.changes, slice)
	}
	slice.now, slice.live, slice.changed = now, t.rule.Live(now), true
	slice.hash = s.apply.hasher.Slice(t.meta.log.Stream, slice.key, now)
	t.meta.add(&t.changes, slice)
}

// commit writes what the runs changed, and then shows it.
func (s *Shard) commit(batch *pebble.Batch) error {
	a := &s.apply
	if len(a.items) == 0 {
		return nil
	}
	for _, slice := range a.order {
		if !slice.changed {
			continue // its only events were parked
		}
		if err := slice.write(batch); err != nil {
			return err
		}
	}
	for _, t := range a.logs {
		if err := t.write(batch); err != nil {
			return err
		}
	}
	if err := s.writeModels(batch); err != nil {
		return fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
	}
	// Not synced: the log is the durable truth, and the vector in this very
	// batch says from where to replay.
	if err := s.effort.commit(func() error { return batch.Commit(pebble.NoSync) }); err != nil {
		return fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
	}
	a.models.Committed()
	s.show(a)
	return nil
}

// show makes a step that was committed known to all.
func (s *Shard) show(a *applier) {
	done := stepOf(a)
	s.mu.Lock()
	for l, t := range a.logs {
		if t.meta.next > t.from {
			t.show()
			s.logs[l] = t.log
		}
	}
	s.recent.add(done)
	s.mu.Unlock()
	s.listeners.wake()
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
