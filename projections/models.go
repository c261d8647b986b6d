package projections

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/derived/builtin"
	"github.com/evenkeel/evenkeel/projections/escape"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Models lists every read model, one line each.
func Models() []derived.Model {
	return []derived.Model{
		builtin.EventCounts(),
		builtin.RegistryByCapability(),
		builtin.SessionsByUser(),
	}
}

// LookupModel finds a read model by its name.
func LookupModel(name string) (derived.Model, error) {
	var names []string
	for _, m := range Models() {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return derived.Model{}, events.Errorf(events.KindInvalid, "model %q is unknown; there is %s", name, strings.Join(names, ", "))
}

// The builder of read models works one part of the time and rests three, so that
// folding goes on. What cannot be read or written is tried again.
const (
	buildRests     = 3
	buildRestLeast = time.Millisecond
	buildRestMost  = time.Second
)

// builder makes the entries of read models that are new, in a goroutine that Close
// ends. There is one for what is made of the state, and one for what is made of logs.
type builder struct {
	step   func(context.Context) (more bool, err error)
	cancel context.CancelFunc
	wake   chan struct{} // holds a token if there may be something to do
	ended  chan struct{}
}

// openModels opens the store of the read models and starts the builders.
func (s *Shard) openModels() (err error) {
	if s.models, err = derived.Open(s.db, s.cfg.Models, s.vector(), s.cfg.Log); err != nil || s.models == nil {
		return err
	}
	for _, step := range []func(context.Context) (bool, error){s.buildStep, s.foldAgain} {
		ctx, cancel := context.WithCancel(context.Background())
		b := &builder{step: step, cancel: cancel, wake: make(chan struct{}, 1), ended: make(chan struct{})}
		s.builders = append(s.builders, b)
		go s.build(ctx, b)
	}
	s.wakeBuilders()
	return nil
}

// closeModels ends the builders.
func (s *Shard) closeModels() {
	for _, b := range s.builders {
		b.cancel()
		<-b.ended
	}
}

func (s *Shard) build(ctx context.Context, b *builder) {
	defer close(b.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		}
		failed := false // the last step; it is told once
		for more := true; more && ctx.Err() == nil && s.fenced() == nil; {
			begun := time.Now()
			var err error
			if more, err = b.step(ctx); err != nil && ctx.Err() == nil {
				if !failed {
					s.cfg.Log.Error("read models cannot be built; it is tried again", "error", err)
				}
				more, begun = true, begun.Add(-buildRestMost)
			}
			failed = err != nil
			if more {
				restAfter(ctx, begun)
			}
		}
	}
}

// restAfter rests in proportion to work that has begun at a time.
func restAfter(ctx context.Context, begun time.Time) {
	rest(ctx, min(max(buildRests*time.Since(begun), buildRestLeast), buildRestMost))
}

// rest waits for a time, or for the end of the context.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (s *Shard) buildStep(context.Context) (more bool, err error) {
	if !s.models.Building() || s.InPlace() != nil {
		return false, nil // to read everything out of the bucket would be in Hydrate's way
	}
	if err := s.checkWritable(); err != nil {
		return true, err
	}
	return s.models.Step(s.vector, s.scanFrom)
}

// scanFrom gives the entities of some streams (nil: all) behind one.
func (s *Shard) scanFrom(behind []byte, streams []events.Stream) iter.Seq2[derived.Scanned, error] {
	return func(yield func(derived.Scanned, error) bool) {
		lower := []byte{prefixSlice}
		if len(behind) > 0 {
			lower = escape.Past(behind)
		}
		cursors, err := openCursors([]*Shard{s}, lower, []byte{prefixSlice + 1})
		defer closeCursors(cursors)
		for err == nil {
			var found Entity
			found, err = nextEntity(cursors)
			if err != nil || found.Slices == nil {
				break
			}
			e := Entry{Stream: found.Stream, Key: found.Key}
			rule, ok := s.cfg.Rules[e.Stream]
			if !ok || streams != nil && !slices.Contains(streams, e.Stream) {
				cursors[0].it.SeekGE(escape.Past(appendEntityPrefix(nil, e.Stream, "")))
				continue
			}
			if e.View, err = rule.Join(found.Slices); err != nil {
				break
			}
			scanned := derived.Scanned{Entity: appendEntityKey(nil, e.Stream, e.Key), View: derived.View(e)}
			for _, slice := range found.Slices {
				if rule.Live(slice.Data) {
					scanned.Slices++
				}
			}
			if !yield(scanned, nil) {
				return
			}
		}
		if err != nil {
			yield(derived.Scanned{}, err)
		}
	}
}

// vector is the cut at which the shard stands.
func (s *Shard) vector() events.Vector { return events.VectorOf(s.Logs()) }

// Models is how the read models are, by name.
func (s *Shard) Models() []derived.Status {
	all, _ := s.models.Status()
	logs := s.Logs()
	for i := range all {
		m := &all[i]
		if m.State != derived.Building {
			continue
		}
		for _, l := range logs {
			if !m.OfEvents && (m.Streams == nil || slices.Contains(m.Streams, l.Log.Stream)) {
				m.Total += l.Keys
			}
			for _, again := range m.Again {
				if again.Log == l.Log {
					m.Total += l.Next - again.Next
				}
			}
		}
		if m.OfEvents {
			m.Total += m.Done
		}
		m.Total = max(m.Total, m.Done)
	}
	return all
}

// WaitModels returns when no read model is being built any more.
func (s *Shard) WaitModels(ctx context.Context) error {
	for {
		all, changed := s.models.Status()
		if !slices.ContainsFunc(all, func(m derived.Status) bool { return m.State == derived.Building }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// RebuildModel makes the entries of a read model anew, in the background. For those of a
// model of events the shard's logs are read again, from where they begin.
func (s *Shard) RebuildModel(ctx context.Context, name string, how derived.Rebuild) error {
	if err := s.checkWritable(); err != nil {
		return err
	}
	first, err := s.firsts(ctx, name, how)
	if err != nil {
		return err
	}
	if err := s.models.Rebuild(name, how, first, s.vector); err != nil {
		return err
	}
	s.wakeBuilders()
	return nil
}

// RebuildOwed makes those read models of events anew, in the background, that have begun
// with less than the shard has folded, because it was restored or they are new, as far as
// the logs can be read again. It returns once it is known how far; an error says why that cannot be found out at
// present, and then it is to be called again.
func (s *Shard) RebuildOwed(ctx context.Context) error {
	if s.cfg.History == nil {
		return nil // somebody else has to
	}
	for _, name := range s.models.Owed() {
		first, err := s.firsts(ctx, name, derived.Rebuild{})
		if err == nil {
			err = s.checkWritable()
		}
		if err != nil {
			s.models.WaitOwed(name, err)
			return err
		}
		if err := s.models.RebuildOwed(name, first, s.vector); err != nil {
			return err
		}
	}
	s.wakeBuilders()
	return nil
}

// wakeBuilders has the builders of read models look again whether there is something to do.
func (s *Shard) wakeBuilders() {
	for _, b := range s.builders {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// QueryModel reads the entries of a read model whose keys begin with prefix, in
// order, out of a set of shards; see derived.Query.
func QueryModel(shards []*Shard, name, prefix string, after []byte) iter.Seq2[derived.Row, error] {
	var parts []derived.Part
	for _, s := range shards {
		parts = append(parts, derived.Part{Partition: s.cfg.Partition, Store: s.models})
	}
	return derived.Query(parts, name, prefix, after)
}

// entity is a key whose view a batch may change, with its slices from all origins
// as they were before.
type entity struct {
	key     []byte // of the database, the part that all slices share
	view    derived.View
	turn    *logTurn // one of those that touch it
	slices  []merge.Slice
	touched []*touched // by slice, nil for those that the batch does not touch
}

// readViews reads the slices that are touched of the streams that models of views
// read, together with those of the other origins, which lie beside them.
func (s *Shard) readViews() (err error) {
	a := &s.apply
	if s.models == nil {
		return nil
	}
	var it *pebble.Iterator
	for i := 0; i < len(a.order); {
		first, n := a.order[i], 1
		entityKey := first.dbKey[:len(first.dbKey)-len(first.turn.meta.origin)]
		for i+n < len(a.order) && bytes.HasPrefix(a.order[i+n].dbKey, entityKey) {
			n++
		}
		group := a.order[i : i+n]
		i += n
		if !first.turn.readers.OfViews() {
			continue
		}
		if it == nil {
			if it, err = s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixSlice}, UpperBound: []byte{prefixSlice + 1}}); err != nil {
				return err
			}
			defer closeIter(it, &err)
		}
		e := entity{
			key: slices.Clip(entityKey), turn: first.turn, touched: slices.Clone(group),
			view: derived.View{Stream: first.turn.meta.log.Stream, Key: first.key},
		}
		if err := a.readEntity(it, &e, group); err != nil {
			return err
		}
		a.entities = append(a.entities, e)
	}
	return nil
}

// readEntity reads the slices of an entity.
func (a *applier) readEntity(it *pebble.Iterator, e *entity, group []*touched) error {
	for it.SeekGE(e.key); it.Valid() && bytes.HasPrefix(it.Key(), e.key); it.Next() {
		origin, value := it.Key()[len(e.key):], append(make([]byte, 0, len(it.Value())), it.Value()...)
		if i := slices.IndexFunc(group, func(t *touched) bool { return t.turn.meta.origin == string(origin) }); i >= 0 {
			group[i].found(value, &a.hasher)
			continue
		}
		l := e.turn.meta.log
		var err error
		if l.Origin, err = events.ParseOrigin(string(origin)); err != nil {
			return fmt.Errorf("key %q: %w", it.Key(), err)
		}
		e.slices, e.touched = append(e.slices, merge.Slice{Log: l, Data: value}), append(e.touched, nil)
	}
	for i, t := range group { // before those of others, in e.touched as well
		e.slices = slices.Insert(e.slices, i, merge.Slice{Log: t.turn.meta.log, Data: t.now})
	}
	return it.Error()
}

// tellViews tells the read models which views the batch changes.
func (s *Shard) tellViews() error {
	for i := range s.apply.entities {
		e := &s.apply.entities[i]
		before, err := e.join()
		if err != nil {
			return err
		}
		changed := false
		for i, t := range e.touched {
			if t != nil && t.changed {
				e.slices[i].Data, changed = t.now, true
			}
		}
		if !changed {
			continue
		}
		after, err := e.join()
		if err != nil {
			return err
		}
		if err := s.apply.models.View(e.turn.readers, e.key, &before, &after); err != nil {
			return err
		}
	}
	return nil
}

// join makes the view out of the slices that are there.
func (e *entity) join() (derived.View, error) {
	view := e.view
	there := slices.DeleteFunc(slices.Clone(e.slices), func(s merge.Slice) bool { return s.Data == nil })
	if len(there) == 0 {
		return view, nil
	}
	var err error
	view.View, err = e.turn.rule.Join(there)
	return view, err
}

// writeModels puts what the batch means to the read models into it.
func (s *Shard) writeModels(batch *pebble.Batch) error {
	if err := s.tellViews(); err != nil {
		return err
	}
	return s.apply.models.Write(batch)
}
