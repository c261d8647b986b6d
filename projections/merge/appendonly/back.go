package appendonly

import (
	"bytes"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Back implements merge.Rule: events that were written stay.
func (r Rule) Back(now, then []merge.Slice) ([]merge.Change, error) {
	is, was, err := merge.JoinBoth(r, now, then)
	if err == nil && !bytes.Equal(is.Value, was.Value) {
		err = events.Errorf(events.KindRefused, "merge rule %s: the events of a key are its data, and what was written cannot be taken back", name)
	}
	return nil, err
}
