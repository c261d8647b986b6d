package projections

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Config is how a shard is opened.
type Config struct {
	Partition int32                        // the shard's number
	Dir       string                       // the database's directory; made if missing
	FS        vfs.FS                       // nil: the real file system
	Cache     *pebble.Cache                // shared by shards; nil: a small one of its own
	Rules     map[events.Stream]merge.Rule // the streams that the shard folds
	Lineage   Lineage                      // given to a database that is made; ignored if there is one
	Models    []derived.Model              // read models to be kept; entries of others are removed
	Outside   Outside                      // where tables are that are not in Dir, see RestoreInPlace; nil: nowhere
	History   History                      // from where logs can be read again, for models of events; nil: nowhere
	Log       *slog.Logger                 // nil: silent

	// Epoch is the term under which the shard is opened. It is kept in the
	// database, and a lower one than is there is refused: somebody else has
	// had the shard since. 0: the one that is there.
	Epoch events.Epoch

	// MinFreeBytes is the free disk space below which Apply refuses with a
	// *DiskFullError, so that the disk never fills up under Pebble. 0: no check.
	MinFreeBytes uint64

	// ClockLimit is asked by each Apply up to which clock those of events are told
	// (Applied.MaxClock): one that nobody follows must not hide the others. The state does not
	// depend on it. nil: there is no limit.
	ClockLimit func() events.HLC

	// MemTableBytes is how much the database gathers in memory before it sorts
	// it into its tables. Twice as much is in use under load, and four times
	// while the disk is slow; Cache is smaller by it. The more, the less is rewritten by
	// compactions. 0: DefaultMemTableBytes.
	MemTableBytes uint64
}

// DefaultMemTableBytes suits a process with few shards.
const DefaultMemTableBytes = 64 << 20

// Lineage identifies a line of descent of state. A restore starts a new one.
type Lineage struct {
	ID      string    `json:"id"`               // unique
	Parent  string    `json:"parent,omitempty"` // the backup it was restored from; empty if made empty
	Started time.Time `json:"started"`
}

// Shard is partition i of every stream from every origin, folded.
type Shard struct {
	cfg     Config
	db      *pebble.DB
	lineage Lineage
	epoch   events.Epoch
	apply   applier
	models  *derived.Store // nil if there are none

	builders []*builder // none if there are no models

	listeners listeners
	effort    effort

	mu      sync.RWMutex // guards what follows; Apply alone writes logs
	logs    map[events.Log]*logEntry
	origins origins
	blocked map[events.Log]error
	fence   error // why nothing is applied any more; nil if it is
	recent  recent
	inPlace *InPlace // nil: all tables are here

	reading reading // of tables that lie outside
	ahead   *ahead  // nil: none did when the shard was opened
}

const (
	factLineage = "lineage"
	factEpoch   = "epoch"
)

// Open opens the shard's database, or makes it.
func Open(cfg Config) (*Shard, error) {
	cfg.setDefaults()
	s := &Shard{cfg: cfg, blocked: map[events.Log]error{}}
	opts := cfg.PebbleOptions()
	s.effort.watch(opts.EventListener)
	if err := s.openOutside(opts); err != nil {
		return nil, fmt.Errorf("state in %s: %w", cfg.Dir, err)
	}
	db, err := pebble.Open(cfg.Dir, opts)
	if err != nil {
		s.reading.end()
		return nil, fmt.Errorf("state in %s cannot be opened: %w", cfg.Dir, err)
	}
	s.db = db
	s.reading.opened.Store(true)
	if err := s.load(); err != nil {
		s.reading.end()
		return nil, errors.Join(fmt.Errorf("state in %s: %w", cfg.Dir, err), db.Close())
	}
	return s, nil
}

func (c *Config) setDefaults() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ClockLimit == nil {
		c.ClockLimit = func() events.HLC { return events.MaxHLC }
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = DefaultMemTableBytes
	}
}

func (s *Shard) load() (err error) {
	if s.logs, err = readLogs(s.db, s.cfg.Partition); err != nil {
		return err
	}
	s.origins = origins{}
	for l, e := range s.logs {
		s.origins.add(l)
		rule, ok := s.cfg.Rules[l.Stream]
		if ok && rule.Name() != e.meta.rule {
			return events.Errorf(events.KindRefused,
				"stream %s was folded by %s, the configuration says %s; go back to %s, or delete the state and let it be rebuilt",
				l.Stream, e.meta.rule, rule.Name(), e.meta.rule)
		}
	}
	s.recent.base = events.VectorOf(sortedStates(s.logs))
	if err := errors.Join(s.loadLineage(), s.loadEpoch()); err != nil {
		return err
	}
	return s.openModels()
}

func (s *Shard) loadLineage() error {
	value, err := get(s.db, factKey(factLineage))
	if err != nil {
		return err
	}
	if value != nil {
		return json.Unmarshal(value, &s.lineage)
	}
	s.lineage = s.cfg.Lineage
	text, err := json.Marshal(s.lineage)
	if err != nil {
		return err
	}
	return s.db.Set(factKey(factLineage), text, pebble.Sync)
}

func (s *Shard) loadEpoch() error {
	value, err := get(s.db, factKey(factEpoch))
	if err != nil {
		return err
	}
	if value != nil {
		if s.epoch, err = events.ParseEpoch(string(value)); err != nil {
			return err
		}
	}
	switch {
	case s.cfg.Epoch == 0 || s.cfg.Epoch == s.epoch:
		return nil
	case s.cfg.Epoch < s.epoch:
		return events.Errorf(events.KindRefused, "it was opened under epoch %s, and cannot be under the earlier %s", s.epoch, s.cfg.Epoch)
	}
	s.epoch = s.cfg.Epoch
	return s.db.Set(factKey(factEpoch), []byte(s.epoch.String()), pebble.Sync)
}

// checkLog refuses logs that are not a shard's.
func checkLog(l events.Log, partition int32) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if l.Partition != partition {
		return events.Errorf(events.KindInvalid, "%s is a log of another shard; this is shard %d", l, partition)
	}
	return nil
}

// readLogs reads the state of every log from a shard's database or a snapshot
// of one.
func readLogs(r pebble.Reader, partition int32) (logs map[events.Log]*logEntry, err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixLog}, UpperBound: []byte{prefixLog + 1}})
	if err != nil {
		return nil, err
	}
	defer closeIter(it, &err)
	logs = map[events.Log]*logEntry{}
	for it.First(); it.Valid(); it.Next() {
		m, err := decodeLogMeta(it.Key(), it.Value())
		if err != nil {
			return nil, err
		}
		if err := checkLog(m.log, partition); err != nil {
			return nil, err
		}
		logs[m.log] = &logEntry{meta: m}
	}
	if err := it.Error(); err != nil {
		return nil, err
	}
	return logs, readBuckets(r, logs)
}

// Close syncs everything to disk and releases the database. It does not flush
// first: Pebble's flush panics where its Close has an error to return.
func (s *Shard) Close() error {
	s.closeModels()
	s.reading.end()
	return s.db.Close()
}

// Partition is the shard's number.
func (s *Shard) Partition() int32 { return s.cfg.Partition }

// Lineage is the line of descent of the shard's state.
func (s *Shard) Lineage() Lineage { return s.lineage }

// Logs is the state of every log folded so far, in order.
func (s *Shard) Logs() []events.LogState {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return sortedStates(s.logs)
}

func sortedStates(logs map[events.Log]*logEntry) []events.LogState {
	states := make([]events.LogState, 0, len(logs))
	for _, e := range logs {
		states = append(states, e.meta.state())
	}
	slices.SortFunc(states, func(a, b events.LogState) int { return a.Log.Compare(b.Log) })
	return states
}

// Next is the next offset of the log to fold.
func (s *Shard) Next(l events.Log) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e, ok := s.logs[l]; ok {
		return e.meta.next
	}
	return 0
}

// Clock is a reading that no effective clock of a stream's slices is above. It is kept
// with the state, and in backups of it. A state of an earlier version says it from its
// next events on. Logs with events above a limit are left out: nobody follows these, and
// they must not hide the others.
func (s *Shard) Clock(stream events.Stream, limit events.HLC) (clock events.HLC) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for l, e := range s.logs {
		if l.Stream == stream && e.meta.clock <= limit {
			clock = max(clock, e.meta.clock)
		}
	}
	return clock
}

// Epoch is the term under which the shard is open.
func (s *Shard) Epoch() events.Epoch { return s.epoch }

// Fence ends all applies, for a reason that they then return with KindRefused:
// somebody else has the shard now. What was applied stays readable.
func (s *Shard) Fence(reason error) {
	s.mu.Lock()
	if s.fence == nil {
		s.fence = events.Errorf(events.KindRefused, "shard %d is fenced: %w", s.cfg.Partition, reason)
	}
	s.mu.Unlock()
	s.listeners.wake() // who waits for a step waits in vain
}

func (s *Shard) fenced() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.fence
}

// Block stops the fold of one log, for a reason that its status shows, until
// the shard is opened again.
func (s *Shard) Block(l events.Log, reason error) {
	s.mu.Lock()
	_, is := s.blocked[l]
	if !is {
		s.blocked[l] = reason
	}
	s.mu.Unlock()
	if !is {
		s.cfg.Log.Error("fold of a log has stopped", "log", l.String(), "error", reason)
		s.listeners.wake()
	}
}

// Blocked tells which logs have stopped, and why.
func (s *Shard) Blocked() map[events.Log]error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := make(map[events.Log]error, len(s.blocked))
	for l, err := range s.blocked {
		b[l] = err
	}
	return b
}

// Digest is the digest over all logs of the shard.
func (s *Shard) Digest() events.Digest { return digest.Total(s.Logs()) }
