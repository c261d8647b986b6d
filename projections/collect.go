package projections

import (
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/escape"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// aim finds the slices that an event is about: one, or those of the tombstones that
// it collects.
func (a *applier) aim(i *item) {
	if !i.event.IsCollection() {
		i.slice = a.touch(i.turn, i.event.Key)
		return
	}
	if i.tombstones, i.parked = i.event.Collection(); i.parked != nil {
		return
	}
	for _, t := range i.tombstones {
		i.collected = append(i.collected, a.touch(i.turn, t.Key))
	}
}

// collect takes tombstones out of the state: those that still are what the event
// says. It reads nothing but slices of the event's own log, so that every region
// takes the same ones at the same place.
func (s *Shard) collect(i *item, done *Applied) error {
	t := i.turn
	for n, slice := range i.collected {
		if slice.now == nil || slice.live {
			continue
		}
		last, err := t.rule.Join([]merge.Slice{{Log: t.meta.log, Data: slice.now}})
		if err != nil {
			return fmt.Errorf("slice in %s, of %s: %w", s.cfg.Dir, t.meta.log, err)
		}
		if last.Position != t.meta.log.At(i.tombstones[n].Offset) {
			continue
		}
		t.meta.remove(&t.changes, slice)
		slice.now, slice.changed = nil, true
		done.Collected++
	}
	return nil
}

// Dead is a tombstone that could be collected: no region's slice of its key in this partition
// holds anything.
type Dead struct {
	events.Tombstone
	Clock events.HLC // of the key's newest event, as folded

	// Seen is the least context that has seen the last event of each slice of the key. Whoever has not
	// seen that may hold what the tombstone hides.
	Seen events.Context
}

// DeadPage is what Dead has found among some keys.
type DeadPage struct {
	Dead       []Dead
	Tombstones int    // of the log, whether or not they could go
	Next       string // where to go on; empty: it has come to the end
}

// Dead finds tombstones of a log that could go, among the keys of its stream behind the key after. It looks
// at so many keys at most.
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
	for range most {
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
	}
	return page, nil
}

// look takes in what a key has of the log that could go. A rule that does not tell which event a
// tombstone is of keeps it.
func (p *DeadPage) look(rule merge.Rule, log events.Log, e Entity) error {
	isLive := func(s merge.Slice) bool { return rule.Live(s.Data) }
	own := slices.IndexFunc(e.Slices, func(s merge.Slice) bool { return s.Log == log })
	if own < 0 || isLive(e.Slices[own]) {
		return nil
	}
	p.Tombstones++
	if slices.ContainsFunc(e.Slices, isLive) {
		return nil
	}
	var d Dead
	for i, part := range e.Slices {
		last, err := rule.Join([]merge.Slice{part})
		if err != nil || last.Position.Log != part.Log {
			return err
		}
		d.Clock = max(d.Clock, last.Clock)
		d.Seen = append(d.Seen, events.Seen{Origin: part.Log.Origin, Next: last.Position.Offset + 1})
		if i == own {
			d.Tombstone = events.Tombstone{Key: e.Key, Offset: last.Position.Offset}
		}
	}
	slices.SortFunc(d.Seen, func(a, b events.Seen) int { return a.Origin.Compare(b.Origin) })
	p.Dead = append(p.Dead, d)
	return nil
}
