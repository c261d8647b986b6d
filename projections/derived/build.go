package derived

import (
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// A step of building holds up the shard's batches, so it is small.
const (
	stepEntities = 256
	stepBytes    = 1 << 20 // of entries
)

// Scanned is an entity of the shard as it is now.
type Scanned struct {
	Entity []byte // the part of its key in the database; valid until the next
	Slices int    // that hold something
	View   View
}

// Scan gives the shard's entities of some streams (nil: all) behind one, in the
// order of the database.
type Scan func(behind []byte, streams []events.Stream) iter.Seq2[Scanned, error]

// Step goes on with what is to be built, for a few entities, and reports whether
// there is more to do. Each step is committed with the place up to which it came,
// so it can be stopped at any time. An error is one of the database.
func (s *Store) Step(at func() events.Vector, scan Scan) (more bool, err error) {
	if s == nil {
		return false, nil
	}
	s.work.Lock()
	defer s.work.Unlock()
	i := slices.IndexFunc(s.models, (*running).isBuiltOfViews)
	if i < 0 {
		return false, nil
	}
	r := s.models[i]
	defer r.reset()
	r.batch = s.db.NewBatch()
	g := *r.record.Building
	finished, err := r.step(&g, scan)
	if err != nil {
		return false, fmt.Errorf("model %s: %w", r.model.Name, err)
	}
	rec := r.record
	switch {
	case r.failed != "":
		r.batch.Reset()
		rec, err = r.stop(r.batch, at())
	case finished:
		g.Cursor = nil
		err = rec.serve(r.batch, r.model.Name, &g)
	default:
		rec.Building = &g
		err = rec.store(r.batch, r.model.Name)
	}
	if err != nil {
		return false, err
	}
	if err := r.batch.Commit(pebble.NoSync); err != nil {
		return false, err
	}
	s.show(r, rec)
	return true, nil
}

// step puts the rows of the next entities into the batch. It is finished when
// there are no more.
func (r *running) step(g *generation, scan Scan) (finished bool, err error) {
	n := 0
	for e, err := range scan(g.Cursor, r.model.Streams) {
		if err != nil {
			return false, err
		}
		if n == stepEntities || r.batch.Len() > stepBytes {
			return false, nil
		}
		set := &r.rows[0]
		if err := r.list(set, &e.View); err != nil {
			r.failed = fmt.Sprintf("stream %s, key %q: %s", e.View.Stream, e.View.Key, err)
			return false, nil
		}
		for _, row := range set.rows {
			r.key = append(r.key[:0], entriesKey(r.model.Name, g.Number)...)
			r.key = appendViewSource(appendKey(r.key, row.key), &e.View)
			if err := r.batch.Set(r.key, row.value, nil); err != nil {
				return false, err
			}
		}
		g.Cursor = append([]byte(nil), e.Entity...)
		g.Done += int64(e.Slices)
		n++
	}
	return true, nil
}

// Rebuild says how the entries of a model are made anew. Those of a model of events
// cannot be had from the state: its logs are read again, as far as they can be.
type Rebuild struct {
	FromNow    bool // of a model of events: what it has is given up, and gathered from now on
	AcceptLess bool // of a model of events: it may come to have less than it has now
}

// Rebuild makes the entries of a model anew. What was served is served on until the new
// ones are there. First says, for a model of events, where each of its logs begins if it
// is read again; nil: they cannot be.
func (s *Store) Rebuild(name string, how Rebuild, first map[events.Log]int64, at func() events.Vector) error {
	r, err := s.lookup(name)
	if err != nil {
		return err
	}
	switch {
	case !r.model.OfEvents() && how != Rebuild{}:
		return events.Errorf(events.KindInvalid, "model %s is made of views: it is rebuilt whole, out of the state", name)
	case r.model.OfEvents() && !how.FromNow && first == nil:
		return events.Errorf(events.KindRefused, "model %s is made of events, and its logs cannot be read again here: "+
			"what it has can only be given up and gathered anew from now on; say so if that is meant", name)
	case how.FromNow:
		first = nil
	}
	s.work.Lock()
	defer s.work.Unlock()
	batch := s.db.NewBatch()
	defer batch.Close()
	rec, err := r.begin(batch, at(), first)
	if err != nil {
		return err
	}
	if first != nil && !how.AcceptLess {
		if err := r.wouldLose(rec); err != nil {
			return err
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	s.show(r, rec)
	return nil
}
