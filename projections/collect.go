package projections

import (
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/escape"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// aim finds the slices that an event is about: one, or those that an event of upkeep names.
func (a *applier) aim(i *item) {
	if !i.event.IsUpkeep() {
		i.slice = a.touch(i.turn, i.event.Key)
		return
	}
	if i.named, i.parked = i.event.Upkeep(); i.parked != nil {
		return
	}
	for _, t := range i.named {
		i.slices = append(i.slices, a.touch(i.turn, t.Key))
	}
}

// upkeep collects or buries slices: those whose last event still is the one that is named. It reads nothing
// but slices of the event's own log, so that every region does the same at the same place.
func (s *Shard) upkeep(i *item, done *Applied) error {
	t, buries := i.turn, i.event.IsBurial()
	for n, slice := range i.slices {
		if slice.now == nil || slice.live != buries {
			continue
		}
		last, _, err := t.rule.Last(merge.Slice{Log: t.meta.log, Data: slice.now})
		if err != nil {
			return fmt.Errorf("slice in %s, of %s: %w", s.cfg.Dir, t.meta.log, err)
		}
		switch {
		case last.Offset != i.named[n].Offset:
		case buries:
			if err := s.bury(i, slice, done); err != nil {
				return err
			}
		default:
			t.meta.remove(&t.changes, slice)
			slice.now, slice.changed = nil, true
			done.Collected++
		}
	}
	return nil
}

// bury makes a tombstone of a slice, unless the stream's rule has none.
func (s *Shard) bury(i *item, slice *touched, done *Applied) error {
	t, memory := i.turn, &s.apply.memory
	now, err := t.rule.Bury(memory.room(len(slice.now)+foldExtraBytes), slice.now, t.meta.log.At(i.record.Offset))
	if isNoMeaning(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("slice in %s, of %s: %w", s.cfg.Dir, t.meta.log, err)
	}
	memory.keep(now)
	s.replace(t, slice, now)
	done.Buried++
	return nil
}

// Dead is a slice of a log that could go: a tombstone that could be collected, because no region's slice of its key in
// this partition holds anything; or one that could be buried, because others hide all that it holds.
type Dead struct {
	events.Tombstone
	Holds bool       // it could be buried; else it is a tombstone
	Bytes int        // of the slice, which folding its burial or collection reads
	Clock events.HLC // newest of the key that its slices know

	// Seen is the least context that has seen the last event of each slice of the key. Whoever has not
	// seen that may hold what the tombstone hides, or may not know yet what hides the slice.
	Seen events.Context
}

// DeadPage is what Dead has found among some keys.
type DeadPage struct {
	Dead []Dead // ascending by key
	Next string // where to go on; empty: it has come to the end

	// Tombstones are those of the log, whether or not they could go.
	Tombstones []Tombstone // ascending by key
}

// Tombstone is counted among those that there are.
type Tombstone struct {
	Key   string
	Hides []events.Origin // while nobody sees the key: whose slices of it hold something yet
}

// deadBytes bounds the slices that are read for a page, but for those of its last key.
const deadBytes = 16 << 20

// Dead finds slices of a log that could go, among the keys of its stream behind the key after. It looks
// at so many keys at most, and at fewer if they are large.
func (s *Shard) Dead(log events.Log, after string, most int) (page DeadPage, err error) {
	rule, ok := s.cfg.Rules[log.Stream]
	if !ok {
		return page, events.Errorf(events.KindNotFound, "stream %s is not configured", log.Stream)
	}
	prefix := appendEntityPrefix(nil, log.Stream, "")
	lower := prefix
	if after != "" {
		lower = escape.Past(appendEntityKey(nil, log.Stream, after))
	}
	cursors, err := openCursors([]*Shard{s}, lower, escape.Past(prefix))
	defer closeCursors(cursors)
	for bytes := 0; most > 0 && bytes < deadBytes; most-- {
		if err != nil {
			return DeadPage{}, err
		}
		var e Entity
		if e, err = nextEntity(cursors); err != nil || e.Slices == nil {
			page.Next = ""
			return page, err
		}
		page.Next = e.Key
		if err := page.look(rule, log, e); err != nil {
			return DeadPage{}, fmt.Errorf("stream %s, key %q: %w", log.Stream, e.Key, err)
		}
		for _, part := range e.Slices {
			bytes += len(part.Data)
		}
	}
	return page, nil
}

// look takes in what a key has of the log that could go.
func (p *DeadPage) look(rule merge.Rule, log events.Log, e Entity) error {
	own := slices.IndexFunc(e.Slices, func(s merge.Slice) bool { return s.Log == log })
	if own < 0 {
		return nil
	}
	holds, others := rule.Live(e.Slices[own].Data), holders(rule, e.Slices, log)
	if !holds {
		p.Tombstones = append(p.Tombstones, Tombstone{Key: e.Key})
	}
	if holds || len(others) > 0 {
		if hidden, err := isHidden(rule, e.Slices); err != nil || !hidden {
			return err
		}
	}
	if !holds && len(others) > 0 {
		p.Tombstones[len(p.Tombstones)-1].Hides = others
		return nil
	}
	d, err := deadOf(rule, e, own)
	if err != nil {
		return err
	}
	d.Holds, d.Bytes = holds, len(e.Slices[own].Data)
	p.Dead = append(p.Dead, d)
	return nil
}

// holders are the origins of other logs than one of which slices hold something.
func holders(rule merge.Rule, all []merge.Slice, but events.Log) (origins []events.Origin) {
	for _, s := range all {
		if s.Log != but && rule.Live(s.Data) {
			origins = append(origins, s.Log.Origin)
		}
	}
	return origins
}

// isHidden reports whether nothing is seen of slices that hold something.
func isHidden(rule merge.Rule, all []merge.Slice) (bool, error) {
	if len(all) == 1 {
		return false, nil
	}
	view, err := rule.Join(all)
	return !view.Exists, err
}

// deadOf is what is told of a key's slice.
func deadOf(rule merge.Rule, e Entity, own int) (d Dead, err error) {
	for i, part := range e.Slices {
		last, clock, err := rule.Last(part)
		if err != nil {
			return Dead{}, err
		}
		d.Clock = max(d.Clock, clock)
		d.Seen = append(d.Seen, events.Seen{Origin: part.Log.Origin, Next: last.Offset + 1})
		if i == own {
			d.Tombstone = events.Tombstone{Key: e.Key, Offset: last.Offset}
		}
	}
	slices.SortFunc(d.Seen, func(a, b events.Seen) int { return a.Origin.Compare(b.Origin) })
	return d, nil
}
