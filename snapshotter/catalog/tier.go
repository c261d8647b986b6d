package catalog

import (
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// Steps are those in which deltas are compacted. The first backup in an interval of a
// step builds on the last one that was the first in such an interval, or in one of a
// longer step, and not on the deltas since: so a chain has one delta for each hour, then
// one for each ten minutes, then the rest, whatever the schedule is.
var Steps = []time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour}

// Tier is the longest step in which a delta and its parent lie in different intervals,
// by their ids; 0: none, it is of the finest tier.
func Tier(m *format.Manifest) time.Duration { return tier(m.Parent(), m.ID) }

func tier(parent, id string) time.Duration {
	was, err := format.IDTime(parent)
	is, otherErr := format.IDTime(id)
	if err != nil || otherErr != nil {
		return 0
	}
	return longestStep(was, is)
}

// longestStep is the longest of Steps in which two times lie in different intervals.
func longestStep(was, is time.Time) time.Duration {
	for _, step := range slices.Backward(Steps) {
		if !was.Truncate(step).Equal(is.Truncate(step)) {
			return step
		}
	}
	return 0
}

// ParentFor is on which of the backups in the path of the newest one a delta that is
// made now is to build, so that chains stay short.
func ParentFor(now time.Time, newest *format.Manifest) string {
	path := newest.Path()
	last, err := format.IDTime(newest.ID)
	if err != nil {
		return newest.ID
	}
	step := longestStep(last, now)
	for i := len(path) - 1; i > 0; i-- {
		if tier(path[i-1], path[i]) >= step {
			return path[i]
		}
	}
	return path[0]
}
