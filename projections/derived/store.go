package derived

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// Store keeps the models of one shard, in the shard's database. A nil Store has
// none.
type Store struct {
	db      *pebble.DB
	log     *slog.Logger
	models  []*running // by name
	readers map[events.Stream]*Readers
	all     *Readers // models that read every stream

	// work is held while entries change: by a Turn, by a step of building, by
	// Rebuild.
	work sync.Mutex

	mu      sync.RWMutex  // guards what follows; it is written with work held as well
	changed chan struct{} // closed, and replaced, when a model's record changes
}

// running is a model and what it is doing.
type running struct {
	model    Model
	record   record // guarded by Store.mu
	failures int64  // guarded by Store.mu
	waiting  string // why logs cannot be read again at present; guarded by Store.mu

	// Of the turn.
	failed   string // why it must stop
	batch    *pebble.Batch
	rows     [2]rowSet // before and after
	served   *Entries  // that the turn changes
	building *Entries
	key      []byte
}

// Readers are the models that read a stream.
type Readers struct{ views, events []*running }

// Open makes the store of a shard that stands at a cut. Entries of models that are
// not among those given are removed. What has to be built is built by Step.
func Open(db *pebble.DB, models []Model, at events.Vector, log *slog.Logger) (*Store, error) {
	s := &Store{db: db, log: log, changed: make(chan struct{})}
	for i := range models {
		if err := models[i].Validate(); err != nil {
			return nil, err
		}
		s.models = append(s.models, &running{model: models[i]})
	}
	slices.SortFunc(s.models, func(a, b *running) int { return cmp.Compare(a.model.Name, b.model.Name) })
	for i := 1; i < len(s.models); i++ {
		if name := s.models[i].model.Name; name == s.models[i-1].model.Name {
			return nil, events.Errorf(events.KindInvalid, "model %s is given twice", name)
		}
	}
	batch := db.NewBatch()
	defer batch.Close()
	if err := s.removeOthers(batch); err != nil {
		return nil, err
	}
	for _, r := range s.models {
		if err := s.resume(batch, r, at); err != nil {
			return nil, err
		}
	}
	if !batch.Empty() {
		// Not synced, like the batches of the shard: it comes to the same again.
		if err := batch.Commit(pebble.NoSync); err != nil {
			return nil, err
		}
	}
	if len(s.models) == 0 {
		return nil, nil
	}
	s.sortReaders()
	return s, nil
}

// sortReaders finds out who reads what.
func (s *Store) sortReaders() {
	s.readers, s.all = map[events.Stream]*Readers{}, &Readers{}
	for _, r := range s.models {
		for _, stream := range r.model.Streams {
			s.readers[stream] = &Readers{}
		}
	}
	add := func(readers *Readers, r *running) {
		if r.model.OfEvents() {
			readers.events = append(readers.events, r)
		} else {
			readers.views = append(readers.views, r)
		}
	}
	for _, r := range s.models {
		for stream, readers := range s.readers {
			if r.model.reads(stream) {
				add(readers, r)
			}
		}
		if r.model.Streams == nil {
			add(s.all, r)
		}
	}
}

// Readers are the models that read a stream, nil if there are none.
func (s *Store) Readers(stream events.Stream) *Readers {
	if s == nil {
		return nil
	}
	readers := s.all
	if own, ok := s.readers[stream]; ok {
		readers = own
	}
	if len(readers.views)+len(readers.events) == 0 {
		return nil
	}
	return readers
}

// removeOthers removes the entries of models that are not enabled any more: they
// are not kept up to date from now on, and nobody would know.
func (s *Store) removeOthers(batch *pebble.Batch) (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{Prefix}, UpperBound: []byte{Prefix + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); {
		name, _, ok := bytes.Cut(it.Key()[1:], []byte{0x00})
		if !ok {
			return fmt.Errorf("key %q is no model's", it.Key())
		}
		lower := modelKey(string(name))
		upper := append(slices.Clone(lower[:len(lower)-1]), 0x01)
		enabled := slices.ContainsFunc(s.models, func(r *running) bool { return r.model.Name == string(name) })
		if !enabled {
			if err := batch.DeleteRange(lower, upper, nil); err != nil {
				return err
			}
		}
		it.SeekGE(upper)
	}
	return it.Error()
}

// resume finds out what a model was doing, and has it go on or begin.
func (s *Store) resume(batch *pebble.Batch, r *running, at events.Vector) (err error) {
	r.record, err = readRecord(s.db, r.model.Name)
	if err != nil || r.record.Version == r.model.Version && r.record.OfEvents == r.model.OfEvents() {
		return err
	}
	if r.record, err = r.begin(batch, at, nil); err != nil || !r.model.OfEvents() || len(at) == 0 {
		return err
	}
	r.record.Owed = true
	return r.record.store(batch, r.model.Name)
}

// begin starts a new generation of a model, in place of one that is being built,
// and gives the record that the model has once the batch is committed. Again says, for a
// model of events, where its logs begin that are read again; nil: it begins now.
func (r *running) begin(batch *pebble.Batch, at events.Vector, again map[events.Log]int64) (record, error) {
	rec := r.record
	if err := rec.drop(batch, r.model.Name, rec.Building); err != nil {
		return rec, err
	}
	rec.Last, rec.Version, rec.OfEvents = rec.Last+1, r.model.Version, r.model.OfEvents()
	rec.Building, rec.Stopped, rec.Owed = nil, "", false
	g := &generation{Number: rec.Last, Version: rec.Version, OfEvents: rec.OfEvents, Begun: time.Now().UTC()}
	switch {
	case g.OfEvents && again == nil:
		g.Since = at // what came before cannot be had from the state
	case g.OfEvents:
		g.Since, g.Again = planned(&r.model, at, again)
	}
	if g.OfEvents && len(g.Again) == 0 || len(at) == 0 {
		return rec, rec.serve(batch, r.model.Name, g)
	}
	if old := rec.Serving; old != nil && (old.Version != g.Version || old.OfEvents != g.OfEvents) {
		rec.freeze(fmt.Sprintf("they were made by version %d of the model, this program has %d", old.Version, g.Version), at)
	}
	rec.Building = g
	return rec, rec.store(batch, r.model.Name)
}

// serve makes a generation the one that is served, and drops the other.
func (r *record) serve(batch *pebble.Batch, name string, g *generation) error {
	if err := r.drop(batch, name, r.Serving); err != nil {
		return err
	}
	r.Serving, r.Building = g, nil
	return r.store(batch, name)
}

// drop removes the entries of a generation, if there is one.
func (r *record) drop(batch *pebble.Batch, name string, g *generation) error {
	if g == nil {
		return nil
	}
	lower, upper := span(name, g.Number)
	return batch.DeleteRange(lower, upper, nil)
}

func (r *record) store(batch *pebble.Batch, name string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return batch.Set(recordKey(name), text, nil)
}

// show makes a record what everybody sees. The caller holds work.
func (s *Store) show(r *running, rec record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Stopped != "" && r.record.Stopped == "" {
		r.failures++
		s.log.Error("read model has stopped, what it has is stale", "model", r.model.Name, "reason", rec.Stopped)
	}
	if rec.Building == nil && r.record.Building != nil && rec.Stopped == "" {
		s.log.Info("read model is built", "model", r.model.Name, "version", rec.Version)
	}
	r.record, r.waiting = rec, ""
	close(s.changed)
	s.changed = make(chan struct{})
}

// Status is how the models are, by name, and a channel that is closed at the next
// change.
func (s *Store) Status() ([]Status, <-chan struct{}) {
	if s == nil {
		return nil, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []Status
	for _, r := range s.models {
		all = append(all, r.status())
	}
	return all, s.changed
}

// lookup finds a model by its name.
func (s *Store) lookup(name string) (*running, error) {
	var names []string
	if s != nil {
		for _, r := range s.models {
			if r.model.Name == name {
				return r, nil
			}
			names = append(names, r.model.Name)
		}
	}
	if len(names) == 0 {
		return nil, events.Errorf(events.KindNotFound, "model %q is not enabled; none is", name)
	}
	return nil, events.Errorf(events.KindNotFound, "model %q is not enabled; there is %s", name, strings.Join(names, ", "))
}

// Building reports whether anything is to be built out of the state.
func (s *Store) Building() bool {
	if s == nil {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.ContainsFunc(s.models, (*running).isBuiltOfViews)
}

func (r *running) isBuiltOfViews() bool { return r.record.Building != nil && !r.record.OfEvents }
