package multivalue

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Back implements merge.Rule: all that is there is replaced by what was. Values that
// stood side by side are written by writers who do not know of each other, the one that
// was shown last.
func (r Rule) Back(now, then []merge.Slice) ([]merge.Change, error) {
	is, was, err := merge.JoinBoth(r, now, then)
	if err != nil {
		return nil, err
	}
	have, want := valuesOf(is), valuesOf(was)
	switch {
	case slices.EqualFunc(have, want, func(a, b merge.Sibling) bool { return compareValues(a, b) == 0 }):
		return nil, nil
	case len(want) == 0:
		return []merge.Change{merge.Deletion()}, nil
	case len(want) > maxSiblings:
		return nil, events.Errorf(events.KindRefused, "merge rule %s: there were %d values side by side, and one region can write at most %d; write one that settles it", name, len(want), maxSiblings)
	}
	slices.SortStableFunc(want, func(a, b merge.Sibling) int {
		return cmp.Or(cmp.Compare(a.Clock, b.Clock), a.Position.Compare(b.Position))
	})
	var changes []merge.Change
	for _, v := range want {
		changes = append(changes, merge.Putting(v.Type, v.ContentType, v.Value))
	}
	return changes, nil
}

// valuesOf are the values of a view, in the order of their bytes.
func valuesOf(v merge.View) []merge.Sibling {
	values := slices.Clone(v.Siblings)
	if v.Exists && len(values) == 0 {
		values = []merge.Sibling{{Value: v.Value, ContentType: v.ContentType, Type: v.Type, Clock: v.Clock, Position: v.Position}}
	}
	slices.SortFunc(values, compareValues)
	return values
}

func compareValues(a, b merge.Sibling) int {
	return cmp.Or(bytes.Compare(a.Value, b.Value), cmp.Compare(a.ContentType, b.ContentType))
}
