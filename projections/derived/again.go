package derived

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// Again is a log that is read again for a model of events, up to where the shard has
// folded it. From then on its events come to the new entries as they come to the old.
type Again struct {
	Log   events.Log `json:"log"`
	First int64      `json:"first"` // where it began
	Next  int64      `json:"next"`  // the offset that comes next
}

// planned says which logs are read again, and what a model will not have then. A log of
// which nothing is planned has begun since, and is there from its beginning.
func planned(m *Model, at events.Vector, first map[events.Log]int64) (since events.Vector, again []Again) {
	since = events.Vector{}
	for _, p := range at.Positions() {
		if !m.reads(p.Stream) || p.Offset == 0 {
			continue
		}
		begin := min(first[p.Log], p.Offset)
		if begin > 0 {
			since[p.Log] = begin
		}
		if begin < p.Offset {
			again = append(again, Again{Log: p.Log, First: begin, Next: begin})
		}
	}
	return since, again
}

// wouldLose is an error if a model would come to have less than what is served, and is
// kept up to date.
func (r *running) wouldLose(rec record) error {
	g := cmp.Or(rec.Building, rec.Serving)
	if old := r.record.Serving; old != nil && old.Stale == "" {
		for _, p := range g.Since.Positions() {
			if has := old.Since[p.Log]; p.Offset > has {
				return events.Errorf(events.KindRefused, "model %s has the events of %s from offset %d on, and only those from offset %d on can be read again; "+
					"what it has is kept; accept less if the new entries are wanted all the same", r.model.Name, p.Log, has, p.Offset)
			}
		}
	}
	return nil
}

// Owed are the models of events of which nobody has looked yet whether their logs can be read
// again, by name.
func (s *Store) Owed() (names []string) {
	if s == nil {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.models {
		if r.record.Owed {
			names = append(names, r.model.Name)
		}
	}
	return names
}

// RebuildOwed makes the entries of a model anew that are owed, if that gives it anything: events
// of some log from before those that it has. First says where its logs begin if they are read
// again. Of a log that cannot be, what has come since the model began is given up for it.
func (s *Store) RebuildOwed(name string, first map[events.Log]int64, at func() events.Vector) error {
	r, err := s.lookup(name)
	if err != nil {
		return err
	}
	s.work.Lock()
	defer s.work.Unlock()
	if !r.record.Owed {
		return nil // somebody has asked for another meanwhile
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	rec := r.record
	if rec.Owed = false; r.wouldGain(first) {
		rec, err = r.begin(batch, at(), first)
	} else {
		err = rec.store(batch, name)
	}
	if err == nil {
		err = batch.Commit(pebble.NoSync)
	}
	if err != nil {
		return err
	}
	s.show(r, rec)
	return nil
}

// wouldGain reports whether logs can be read again from before where the entries begin that
// are served.
func (r *running) wouldGain(first map[events.Log]int64) bool {
	for log, from := range first {
		if r.model.reads(log.Stream) && r.record.Serving != nil && from < r.record.Serving.Since[log] {
			return true
		}
	}
	return false
}

// WaitOwed shows why nobody can look at present whether logs can be read again.
func (s *Store) WaitOwed(name string, reason error) {
	r, err := s.lookup(name)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.record.Owed {
		r.waiting = reason.Error()
	}
}

// Job is what is to be read again next, and for which entries.
type Job struct {
	Again
	model      *running
	generation uint64
}

// NextJob is what is to be read again next, if there is anything.
func (s *Store) NextJob() (j Job, ok bool) {
	if s == nil {
		return Job{}, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.models {
		if g := r.record.Building; g != nil && len(g.Again) > 0 {
			return Job{Again: g.Again[0], model: r, generation: g.Number}, true
		}
	}
	return Job{}, false
}

// Wait shows why a job does not go on at present.
func (s *Store) Wait(j Job, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := j.model.record.Building; g != nil && g.Number == j.generation {
		j.model.waiting = reason.Error()
	}
}

// Taken are the next events of a log: all that there are with offsets below Next.
type Taken struct {
	Events []Event
	Next   int64
}

// Fold goes on with a job. Take gives the next events from an offset on, all of them below
// the one up to which the shard has folded the log; it is called with the shard's batches held
// up. There is no more to do if the log is through, or something else is built by now.
func (s *Store) Fold(j Job, at func() events.Vector, take func(from, below int64) (Taken, error)) (more bool, err error) {
	s.work.Lock()
	defer s.work.Unlock()
	g, i := j.current()
	if i < 0 {
		return false, nil
	}
	r, log := j.model, &g.Again[i]
	below := at()[log.Log]
	taken, err := take(log.Next, below)
	if err != nil {
		return false, err
	}
	defer r.reset()
	r.batch = s.db.NewBatch()
	if err := r.foldAgain(s.db, g, taken.Events); err != nil {
		return false, fmt.Errorf("model %s: %w", r.model.Name, err)
	}
	if len(taken.Events) > 0 && log.First > 0 {
		if begun := taken.Events[0].Clock.Time(); log.Next == log.First && (g.Reaches == nil || g.Reaches.Before(begun)) {
			g.Reaches = &begun
		}
	}
	g.Done += taken.Next - log.Next
	log.Next = taken.Next
	if more = log.Next < below; !more {
		g.Again = slices.Delete(g.Again, i, i+1)
	}
	rec := r.record
	switch {
	case r.failed != "":
		more = false
		r.batch.Reset()
		rec, err = r.stop(r.batch, at())
	case len(g.Again) == 0:
		err = rec.serve(r.batch, r.model.Name, g)
	default:
		rec.Building = g
		err = rec.store(r.batch, r.model.Name)
	}
	if err == nil {
		err = r.batch.Commit(pebble.NoSync)
	}
	if err != nil {
		return false, err
	}
	s.show(r, rec)
	return more, nil
}

// current is a copy of the generation that a job is about, and the place of its log; -1 if
// there is no more to do. The caller holds work.
func (j Job) current() (g *generation, i int) {
	if j.model.record.Building == nil || j.model.record.Building.Number != j.generation {
		return nil, -1
	}
	g = new(*j.model.record.Building)
	g.Again = slices.Clone(g.Again)
	return g, slices.IndexFunc(g.Again, func(a Again) bool { return a.Log == j.Log })
}

// foldAgain puts what events make of a generation's entries into the batch, unless the
// model fails.
func (r *running) foldAgain(db *pebble.DB, g *generation, list []Event) error {
	entries := newEntries(db, r.model.Name, g)
	for _, e := range list {
		if err := r.fold(e, entries); err != nil || r.failed != "" {
			return err
		}
	}
	return entries.write(r.batch)
}

// Restart begins a job's entries anew because records of its log cannot be had any more:
// of that log they begin with the offset first now.
func (s *Store) Restart(j Job, first int64, at func() events.Vector) error {
	s.work.Lock()
	defer s.work.Unlock()
	g, i := j.current()
	if i < 0 {
		return nil
	}
	begin := map[events.Log]int64{}
	for log := range g.Since {
		begin[log] = g.Since[log]
	}
	begin[j.Log] = first
	batch := s.db.NewBatch()
	defer batch.Close()
	rec, err := j.model.begin(batch, at(), begin)
	if err == nil {
		err = batch.Commit(pebble.NoSync)
	}
	if err != nil {
		return err
	}
	s.log.Warn("read model will have less: records of a log cannot be read any more", "model", j.model.model.Name, "log", j.Log.String(), "from", first)
	s.show(j.model, rec)
	return nil
}
