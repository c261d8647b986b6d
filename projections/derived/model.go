package derived

import (
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Model is a read model: what it is called, what it reads, and one function that
// makes entries of it.
type Model struct {
	// Name is how configuration and operators call the model, e.g.
	// "sessions-by-user": 1 to 64 lower-case letters, digits and dashes.
	Name string

	// Version, from 1, is raised when the function gives other entries than
	// before; they are then made anew.
	Version int

	// Streams are what the model reads; nil: all.
	Streams []events.Stream

	// One of two functions; the package comment says what each may do.
	//
	// Rows emits the entries that a key has because its view is what it is. It is
	// called for views that exist. Entries of different keys never collide; of one
	// key's, the last that is emitted under a key of its own stays.
	Rows func(v View, emit func(key string, value []byte)) error

	// Fold takes an event into the entries of its log, in the log's order. Entries
	// of different logs never collide.
	Fold func(e Event, entries *Entries) error
}

// View is a key of a stream and what a reader sees of it.
type View struct {
	Stream events.Stream
	Key    string
	merge.View
}

// Event is an event and where it was found.
type Event struct {
	*events.Event
	Position events.Position
}

// Bounds of what a model may make. One that goes beyond them is stopped.
const (
	MaxKeyBytes   = 4096    // of an entry's key, at least 1
	MaxValueBytes = 1 << 20 // of an entry's value
	MaxRows       = 10_000  // entries of one view
)

const maxNameBytes = 64

// Validate reports whether a model can be used.
func (m *Model) Validate() error {
	if n := len(m.Name); n == 0 || n > maxNameBytes || strings.Trim(m.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return events.Errorf(events.KindInvalid, "model %q: want a name of 1 to %d lower-case letters, digits and dashes", m.Name, maxNameBytes)
	}
	if m.Version < 1 {
		return events.Errorf(events.KindInvalid, "model %s: version %d: want 1 or more", m.Name, m.Version)
	}
	if (m.Rows == nil) == (m.Fold == nil) {
		return events.Errorf(events.KindInvalid, "model %s: want either Rows or Fold", m.Name)
	}
	for _, s := range m.Streams {
		if err := s.Validate(); err != nil {
			return events.Errorf(events.KindInvalid, "model %s: %w", m.Name, err)
		}
	}
	return nil
}

// reads reports whether the model reads a stream.
func (m *Model) reads(s events.Stream) bool { return m.Streams == nil || slices.Contains(m.Streams, s) }

// OfEvents reports whether the model folds events, rather than making rows of
// views.
func (m *Model) OfEvents() bool { return m.Fold != nil }
