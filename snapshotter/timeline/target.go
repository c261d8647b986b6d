package timeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Target says what to bring back. At most one field is set; the zero Target is all that
// there is.
type Target struct {
	Backup  string        `json:"backup,omitzero"`  // id
	Vector  events.Vector `json:"vector,omitzero"`  // logs that are not in it are at offset 0
	Offsets events.Vector `json:"offsets,omitzero"` // of these logs; of the others all there is
	Time    time.Time     `json:"time,omitzero"`
	Ago     time.Duration `json:"ago_ns,omitzero"` // so long before now
}

// Request is a Target, and of what.
type Request struct {
	Target
	Base    string          `json:"base,omitzero"`    // id of the backup to begin with; empty: the best
	Streams []events.Stream `json:"streams,omitzero"` // none: all
	Shards  []int32         `json:"shards,omitzero"`  // none: all
}

// Same tells whether two requests ask for the same.
func (r Request) Same(other Request) bool {
	x, errX := json.Marshal(r)
	y, errY := json.Marshal(other)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// IsNewest says whether nothing is named. (It is not called IsZero, which would be that of
// a Request as well.)
func (t Target) IsNewest() bool {
	_, isTime := t.at(time.Time{})
	return t.Backup == "" && len(t.Vector)+len(t.Offsets) == 0 && !isTime
}

// String is the target for people, as flags say it.
func (t Target) String() string {
	switch {
	case t.Backup != "":
		return "backup " + t.Backup
	case len(t.Vector) > 0:
		return "vector " + t.Vector.String()
	case len(t.Offsets) > 0:
		return "offsets " + t.Offsets.String()
	case !t.Time.IsZero():
		return "time " + t.Time.Format(time.RFC3339Nano)
	case t.Ago != 0:
		return fmt.Sprintf("%s ago", t.Ago)
	}
	return "the newest"
}

// Validate refuses what is no target.
func (t Target) Validate() error {
	set := 0
	for _, is := range []bool{t.Backup != "", len(t.Vector) > 0, len(t.Offsets) > 0, !t.Time.IsZero(), t.Ago != 0} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return events.Errorf(events.KindInvalid, "restore: one target, not several: a backup, a vector, offsets, a time, or the newest")
	case t.Ago < 0:
		return events.Errorf(events.KindInvalid, "restore: a time %s from now is not over yet", -t.Ago)
	}
	for _, v := range []events.Vector{t.Vector, t.Offsets} {
		if err := v.Validate(); err != nil {
			return events.Errorf(events.KindInvalid, "restore: %w", err)
		}
	}
	return nil
}

// at is the time that is asked for, if it is one.
func (t Target) at(now time.Time) (at time.Time, is bool) {
	if t.Ago != 0 {
		return now.Add(-t.Ago), true
	}
	return t.Time, !t.Time.IsZero()
}
