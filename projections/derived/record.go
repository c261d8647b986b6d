package derived

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// record is what the database holds of a model besides its entries.
type record struct {
	Version  int         `json:"version"` // of the model that began the newest generation
	OfEvents bool        `json:"of_events,omitempty"`
	Last     uint64      `json:"last"` // number of the newest generation ever
	Serving  *generation `json:"serving,omitempty"`
	Building *generation `json:"building,omitempty"`
	Stopped  string      `json:"stopped,omitempty"` // why nothing is done any more

	// Owed says, of a model of events that began behind the beginning of its logs, that
	// nobody has looked yet whether they can be read again.
	Owed bool `json:"owed,omitempty"`
}

// generation is one set of a model's entries.
type generation struct {
	Number   uint64    `json:"number"`
	Version  int       `json:"version"` // of the model
	OfEvents bool      `json:"of_events,omitempty"`
	Begun    time.Time `json:"begun"`

	// Since is, for a model of events, the cut before which nothing is in it.
	Since events.Vector `json:"since,omitempty"`

	// Reaches is, for a model of events that was made by reading logs again, the clock
	// of the first event of the log of which least was there; null if all began with
	// their first.
	Reaches *time.Time `json:"reaches,omitempty"`

	// Of a generation that is built: Cursor is the database's part of the last entity
	// that is in it; Again is what is left of the logs that are read again; Done counts
	// slices, or offsets, gone through.
	Cursor []byte  `json:"cursor,omitempty"`
	Again  []Again `json:"again,omitempty"`
	Done   int64   `json:"done,omitempty"`

	// Stale says why it is not kept up to date any more, empty if it is; Until is
	// the cut that it shows then.
	Stale string        `json:"stale,omitempty"`
	Until events.Vector `json:"until,omitempty"`
}

// readRecord reads a model's record, an empty one if there is none.
func readRecord(r pebble.Reader, name string) (rec record, err error) {
	value, closer, err := r.Get(recordKey(name))
	if errors.Is(err, pebble.ErrNotFound) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	if err := json.Unmarshal(value, &rec); err != nil {
		return record{}, fmt.Errorf("record of model %s is corrupt: %w", name, err)
	}
	return rec, nil
}

// freeze marks what is served as not kept up to date any more, at a cut.
func (r *record) freeze(reason string, at events.Vector) {
	if r.Serving == nil || r.Serving.Stale != "" {
		return
	}
	frozen := *r.Serving
	frozen.Stale, frozen.Until = reason, at
	r.Serving = &frozen
}

// State is what a model is doing in a shard.
type State string

// The states.
const (
	Running  State = "running"  // its entries are kept up to date
	Building State = "building" // its entries are made; older ones may be served meanwhile
	Stopped  State = "stopped"  // it failed; what is served is stale
)

// Status is how a model is in a shard.
type Status struct {
	Name     string          `json:"name"`
	Version  int             `json:"version"`
	OfEvents bool            `json:"of_events"`
	Streams  []events.Stream `json:"streams"` // null: all
	State    State           `json:"state"`
	Stopped  string          `json:"stopped,omitempty"` // why
	Failures int64           `json:"failures"`          // since the shard was opened

	Served        bool          `json:"served"`                   // there are entries to be read
	ServedVersion int           `json:"served_version,omitempty"` // of the model, when they were made
	Begun         *time.Time    `json:"begun,omitempty"`          // when the first of them was made
	Since         events.Vector `json:"since,omitempty"`          // of a model of events: what came before is not in them
	Stale         string        `json:"stale,omitempty"`          // why they are not kept up to date
	Until         events.Vector `json:"until,omitempty"`          // the cut that they show then

	// Reaches is, of a model of events that was made by reading logs again, the time from
	// which on the entries have all events; null if that is from the first.
	Reaches *time.Time `json:"reaches,omitempty"`

	// Owed says, of a model of events that has begun with less than the shard has folded, that
	// nobody has looked yet whether the logs can be read again for it.
	Owed bool `json:"owed,omitempty"`

	// While new entries are made. Of a model of views slices are gone through, of one of
	// events the offsets of the logs that are read again.
	Done    int64   `json:"done,omitempty"`
	Total   int64   `json:"total,omitempty"`   // about
	Again   []Again `json:"again,omitempty"`   // logs that are not through yet
	Waiting string  `json:"waiting,omitempty"` // why it does not go on at present
}

func (r *running) status() Status {
	rec := r.record
	st := Status{
		Name: r.model.Name, Version: r.model.Version, OfEvents: r.model.OfEvents(), Streams: r.model.Streams,
		State: Running, Stopped: rec.Stopped, Failures: r.failures, Owed: rec.Owed, Waiting: r.waiting,
	}
	switch {
	case rec.Stopped != "":
		st.State = Stopped
	case rec.Building != nil:
		st.State, st.Done, st.Again = Building, rec.Building.Done, rec.Building.Again
	}
	if g := rec.Serving; g != nil {
		st.Served, st.ServedVersion, st.Begun = true, g.Version, &g.Begun
		st.Since, st.Reaches, st.Stale, st.Until = g.Since, g.Reaches, g.Stale, g.Until
	}
	return st
}
