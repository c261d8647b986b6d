package lww

import (
	"bytes"

	"github.com/evenkeel/evenkeel/projections/merge"
)

// Back implements merge.Rule: it writes the value again, or deletes it.
func (r Rule) Back(now, then []merge.Slice) ([]merge.Change, error) {
	is, was, err := merge.JoinBoth(r, now, then)
	switch {
	case err != nil:
		return nil, err
	case is.Exists == was.Exists && is.ContentType == was.ContentType && bytes.Equal(is.Value, was.Value), !is.Exists && !was.Exists:
		return nil, nil
	case !was.Exists:
		return []merge.Change{merge.Deletion()}, nil
	}
	return []merge.Change{merge.Putting(was.Type, was.ContentType, was.Value)}, nil
}
