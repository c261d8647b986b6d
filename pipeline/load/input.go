package load

import (
	"encoding/hex"
	"fmt"
	"hash"
	"iter"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Item is one event of an input.
type Item struct {
	Place  int           // counts from 1: the line, or the number of the file
	Region events.Region // empty: the load's default
	Event  api.LoadEvent // its ID is set by the load
}

// Input is something that can be loaded. Items gives the same items each time.
// An *ItemError is about one item, and the items after it follow; any other
// error ends the input, also that it is not what it was when it was opened.
type Input struct {
	Name  string
	ID    string // hash of all that decides what the items are
	Items func() iter.Seq2[Item, error]
}

// ItemError says what is wrong with one item.
type ItemError struct {
	Input  string
	Place  int
	Reason string
}

func (e *ItemError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Input, e.Place, e.Reason) }

func idOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:16]) }

// errChanged says that an input is not what it was when its ID was made. What
// has been written of it could not be told from the rest any more.
func errChanged(path string) error {
	return fmt.Errorf("%s has changed since the load began; load files that nobody writes to", path)
}
