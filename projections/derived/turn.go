package derived

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// Turn is what one batch of the shard does to its models. It is of one goroutine;
// until End no other turn and no step of building begins. A nil Turn does nothing.
type Turn struct {
	store *Store
	at    func() events.Vector // the cut before the batch
	next  map[*running]record
}

// Begin begins a turn of the shard, which stands at a cut.
func (s *Store) Begin(at func() events.Vector) *Turn {
	if s == nil {
		return nil
	}
	s.work.Lock()
	return &Turn{store: s, at: at}
}

// End forgets what was not committed.
func (t *Turn) End() {
	if t == nil {
		return
	}
	for _, r := range t.store.models {
		r.reset()
	}
	t.store.work.Unlock()
}

func (r *running) reset() {
	r.failed, r.served, r.building = "", nil, nil
	if r.batch != nil {
		r.batch.Close()
		r.batch = nil
	}
}

// OfViews reports whether any of the models wants to be told of views.
func (r *Readers) OfViews() bool {
	return r != nil && slices.ContainsFunc(r.views, (*running).wanted)
}

// wanted reports whether a model's entries are kept up to date.
func (r *running) wanted() bool {
	return r.failed == "" && r.record.Stopped == "" && (r.record.Building != nil || r.serves())
}

// serves reports whether what is served is kept up to date.
func (r *running) serves() bool { return r.record.Serving != nil && r.record.Serving.Stale == "" }

// Event gives an event to the models of events. The error is one of the database.
func (t *Turn) Event(readers *Readers, e Event) error {
	if t == nil || readers == nil {
		return nil
	}
	for _, r := range readers.events {
		if r.wanted() && r.serves() {
			if r.served == nil {
				r.served = newEntries(t.store.db, r.model.Name, r.record.Serving)
			}
			if err := r.fold(e, r.served); err != nil {
				return fmt.Errorf("model %s: %w", r.model.Name, err)
			}
		}
		if r.wanted() && r.gathers(e.Position.Log) {
			if r.building == nil {
				r.building = newEntries(t.store.db, r.model.Name, r.record.Building)
			}
			if err := r.fold(e, r.building); err != nil {
				return fmt.Errorf("model %s: %w", r.model.Name, err)
			}
		}
	}
	return nil
}

// gathers reports whether the events of a log go into entries that are being built.
func (r *running) gathers(log events.Log) bool {
	return r.record.Building != nil && !slices.ContainsFunc(r.record.Building.Again, func(a Again) bool { return a.Log == log })
}

// fold has the model fold an event. The error is one of the database; if it is the model
// that fails it is noted.
func (r *running) fold(e Event, entries *Entries) error {
	entries.begin(e.Position.Log)
	err := r.call(e, entries)
	if entries.database != nil {
		return entries.database
	}
	if err = errors.Join(err, entries.problem); err != nil {
		r.failed = fmt.Sprintf("%s: %s", e.Position, err)
	}
	return nil
}

func (r *running) call(e Event, entries *Entries) (err error) {
	defer guard(&err)
	return r.model.Fold(e, entries)
}

// View tells the models of views that a key's view has changed, or may have. The
// entity is the part of the key in the database.
func (t *Turn) View(readers *Readers, entity []byte, before, after *View) error {
	if t == nil || readers == nil || before.Position == after.Position && reflect.DeepEqual(before, after) {
		return nil
	}
	for _, r := range readers.views {
		if !r.wanted() {
			continue
		}
		// What the builder has not come to yet it will find as it is then.
		built := r.record.Building != nil && bytes.Compare(entity, r.record.Building.Cursor) <= 0
		if !built && !r.serves() {
			continue
		}
		err := errors.Join(r.list(&r.rows[0], before), r.list(&r.rows[1], after))
		if err != nil {
			r.failed = fmt.Sprintf("stream %s, key %q: %s", after.Stream, after.Key, err)
			continue
		}
		if r.batch == nil {
			r.batch = t.store.db.NewBatch()
		}
		if err := r.change(after, built); err != nil {
			return err
		}
	}
	return nil
}

// list makes the rows of a view, in order, each key once.
func (r *running) list(set *rowSet, v *View) (err error) {
	clear(set.rows)
	set.rows, set.err = set.rows[:0], nil
	if !v.Exists {
		return nil
	}
	if err := r.emit(set, v); err != nil {
		return err
	}
	slices.SortStableFunc(set.rows, func(a, b row) int { return strings.Compare(a.key, b.key) })
	last := 0
	for i := range set.rows {
		if i > 0 && set.rows[i].key != set.rows[last].key {
			last++
		}
		set.rows[last] = set.rows[i]
	}
	set.rows = set.rows[:min(last+1, len(set.rows))]
	return set.err
}

func (r *running) emit(set *rowSet, v *View) (err error) {
	defer guard(&err)
	return r.model.Rows(*v, set.emit)
}

// change writes what is different between the rows before and after.
func (r *running) change(v *View, built bool) error {
	before, after := r.rows[0].rows, r.rows[1].rows
	for len(before) > 0 || len(after) > 0 {
		var order int
		switch {
		case len(before) == 0:
			order = +1
		case len(after) == 0:
			order = -1
		default:
			order = strings.Compare(before[0].key, after[0].key)
		}
		var err error
		switch {
		case order < 0:
			err, before = r.write(v, before[0].key, nil, built), before[1:]
		case order > 0:
			err, after = r.write(v, after[0].key, &after[0].value, built), after[1:]
		default:
			if !bytes.Equal(before[0].value, after[0].value) {
				err = r.write(v, after[0].key, &after[0].value, built)
			}
			before, after = before[1:], after[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// write puts a row, or the end of one, into the generations that have the entity.
func (r *running) write(v *View, key string, value *[]byte, built bool) error {
	var generations [2]*generation
	if r.serves() {
		generations[0] = r.record.Serving
	}
	if built {
		generations[1] = r.record.Building
	}
	for _, g := range generations {
		if g == nil {
			continue
		}
		r.key = append(r.key[:0], entriesKey(r.model.Name, g.Number)...)
		r.key = appendViewSource(appendKey(r.key, key), v)
		var err error
		if value == nil {
			err = r.batch.Delete(r.key, nil)
		} else {
			err = r.batch.Set(r.key, *value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Write puts what the turn changes into the shard's batch. Models that failed are
// stopped: nothing of theirs is written, and what they have is as it was before.
func (t *Turn) Write(batch *pebble.Batch) error {
	if t == nil {
		return nil
	}
	for _, r := range t.store.models {
		var err error
		switch {
		case r.failed != "":
			err = t.stop(batch, r)
		case r.batch != nil:
			err = batch.Apply(r.batch, nil)
		default:
			err = errors.Join(r.served.write(batch), r.building.write(batch))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Turn) stop(batch *pebble.Batch, r *running) error {
	rec, err := r.stop(batch, t.at())
	if t.next == nil {
		t.next = map[*running]record{}
	}
	t.next[r] = rec
	return err
}

// stop gives the record of a model that has failed.
func (r *running) stop(batch *pebble.Batch, at events.Vector) (record, error) {
	rec := r.record
	if err := rec.drop(batch, r.model.Name, rec.Building); err != nil {
		return rec, err
	}
	rec.Building, rec.Stopped, rec.Owed = nil, r.failed, false
	rec.freeze("the model was stopped", at)
	return rec, rec.store(batch, r.model.Name)
}

// Committed shows what the turn did.
func (t *Turn) Committed() {
	if t == nil {
		return
	}
	for r, rec := range t.next {
		t.store.show(r, rec)
	}
}

// guard makes an error of a panic. It tells the place and, unless it may come from
// the data, the reason.
func guard(err *error) {
	p := recover()
	if p == nil {
		return
	}
	reason := fmt.Sprintf("a %T", p)
	if e, ok := p.(runtime.Error); ok {
		reason = e.Error()
	}
	*err = fmt.Errorf("it panicked at %s: %s", panicked(), reason)
}

// panicked is where the panic under way began.
func panicked() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", f.File[strings.LastIndexByte(f.File, '/')+1:], f.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}
