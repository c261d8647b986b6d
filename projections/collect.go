package projections

import (
	"fmt"

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

// Dead is a tombstone that could be collected: no region's slice of its key holds
// anything.
type Dead struct {
	events.Tombstone
	Clock events.HLC // of its event, as folded
}

// Dead finds tombstones of a log, among the keys of its stream behind the key
// after. It looks at so many keys at most, and tells where to go on; an empty key:
// it has come to the end.
func (s *Shard) Dead(log events.Log, after string, most int) (dead []Dead, next string, err error) {
	rule, ok := s.cfg.Rules[log.Stream]
	if !ok {
		return nil, "", events.Errorf(events.KindNotFound, "stream %s is not configured", log.Stream)
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
			return nil, "", err
		}
		var e Entity
		if e, err = nextEntity(cursors); err != nil || e.Slices == nil {
			return dead, "", err
		}
		next = e.Key
		d, ok, err := deadSlice(rule, log, e.Key, e.Slices)
		if err != nil {
			return nil, "", fmt.Errorf("stream %s, key %q: %w", log.Stream, e.Key, err)
		}
		if ok {
			dead = append(dead, d)
		}
	}
	return dead, next, nil
}

// deadSlice is the log's tombstone among the slices of a key of which none is live. A
// rule that does not tell which event a tombstone is of keeps it.
func deadSlice(rule merge.Rule, log events.Log, key string, parts []merge.Slice) (d Dead, ok bool, err error) {
	for _, part := range parts {
		if rule.Live(part.Data) {
			return Dead{}, false, nil
		}
		if part.Log != log {
			continue
		}
		last, err := rule.Join([]merge.Slice{part})
		if err != nil {
			return Dead{}, false, err
		}
		d, ok = Dead{Tombstone: events.Tombstone{Key: key, Offset: last.Position.Offset}, Clock: last.Clock}, last.Position.Log == log
	}
	return d, ok, nil
}
