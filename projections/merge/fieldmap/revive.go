package fieldmap

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Revives tells whether an event that is about to be written to a log would bring back
// counts that resets of other origins have taken away, and if so below which offset the log has
// to be reset first (by a delete whose context has that offset of the log, and nothing else);
// 0: it would not. Such a delete takes away only what does not count. Read gives the slices that
// the key has; it is called if the event increments anything.
func (Rule) Revives(e *events.Event, log events.Log, read func() ([]merge.Slice, error)) (below int64, err error) {
	r := newReader()
	defer r.done()
	changes, err := r.changesOf(e)
	isCounter := func(c change) bool { return c.kind == counter }
	if err != nil || !slices.ContainsFunc(changes, isCounter) {
		return 0, nil // what has no meaning changes nothing
	}
	all, err := read()
	if err != nil {
		return 0, err
	}
	var own *state
	for _, s := range all {
		if s.Log.Partition != log.Partition {
			continue
		}
		d, err := decode(s)
		if err != nil {
			return 0, fmt.Errorf("slice of %s: fieldmap slice: %w", s.Log, err)
		}
		if s.Log == log {
			own = d
		}
		below = max(below, d.resets.Next(log.Origin))
	}
	if own == nil {
		return 0, nil
	}
	for _, f := range own.held {
		counts := func(c change) bool { return c.kind == counter && bytes.Equal(c.name, f.name) }
		if f.kinds&counter != 0 && f.sum.offset < below && slices.ContainsFunc(changes, counts) {
			return below, nil
		}
	}
	return 0, nil
}
