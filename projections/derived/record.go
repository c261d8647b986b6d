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
}

// generation is one set of a model's entries.
type generation struct {
	Number   uint64    `json:"number"`
	Version  int       `json:"version"` // of the model
	OfEvents bool      `json:"of_events,omitempty"`
	Begun    time.Time `json:"begun"`

	// Since is, for a model of events, the cut before which nothing is in it.
	Since events.Vector `json:"since,omitempty"`

	// Cursor is, while it is built, the database's part of the last entity that is
	// in it; Slices counts those gone through.
	Cursor []byte `json:"cursor,omitempty"`
	Slices int64  `json:"slices,omitempty"`

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

	Done  int64 `json:"done,omitempty"`  // slices that were gone through to make the new ones
	Total int64 `json:"total,omitempty"` // slices that hold something, about
}

func (r *running) status() Status {
	rec := r.record
	st := Status{
		Name: r.model.Name, Version: r.model.Version, OfEvents: r.model.OfEvents(), Streams: r.model.Streams,
		State: Running, Stopped: rec.Stopped, Failures: r.failures,
	}
	switch {
	case rec.Stopped != "":
		st.State = Stopped
	case rec.Building != nil:
		st.State, st.Done = Building, rec.Building.Slices
	}
	if g := rec.Serving; g != nil {
		st.Served, st.ServedVersion, st.Begun = true, g.Version, &g.Begun
		st.Since, st.Stale, st.Until = g.Since, g.Stale, g.Until
	}
	return st
}
