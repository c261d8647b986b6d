package derived

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// Entries are the entries of one log in an event model. They are valid during one
// call of Fold.
//
// Entries whose key begins with 0x00 are the model's own notes: queries do not show
// them.
type Entries struct {
	db       pebble.Reader
	prefix   []byte // of the generation
	log      events.Log
	source   []byte // log, as text
	pending  map[string]*entry
	key      []byte // scratch
	problem  error  // of the model: it broke a bound
	database error  // of the database
}

// entry is what an entry will be once the batch is committed.
type entry struct {
	value   []byte // nil: there is none
	changed bool
}

func newEntries(db pebble.Reader, model string, g *generation) *Entries {
	return &Entries{db: db, prefix: entriesKey(model, g.Number), pending: map[string]*entry{}}
}

// begin makes the entries those of a log.
func (e *Entries) begin(l events.Log) {
	if e.log != l {
		e.log, e.source = l, append(e.source[:0], l.String()...)
	}
}

// Get is the value of an entry, nil if there is none. It is not to be changed.
func (e *Entries) Get(key string) []byte { return e.find(key).value }

// Put makes or replaces an entry. The value is copied.
func (e *Entries) Put(key string, value []byte) {
	if err := checkEntry(key, value); err != nil {
		e.problem = err
		return
	}
	*e.find(key) = entry{append(make([]byte, 0, len(value)), value...), true}
}

// Delete removes an entry, if there is one.
func (e *Entries) Delete(key string) {
	if found := e.find(key); found.value != nil {
		*found = entry{nil, true}
	}
}

// Add adds to a number, kept as decimal digits; what is not there counts as 0.
func (e *Entries) Add(key string, n int64) {
	if value := e.Get(key); value != nil {
		was, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			e.problem = errors.New("a number was to be added to an entry that holds none")
			return
		}
		n += was
	}
	var digits [20]byte
	e.Put(key, strconv.AppendInt(digits[:0], n, 10))
}

// find is the entry as the batch has it so far.
func (e *Entries) find(key string) *entry {
	e.key = append(appendKey(append(e.key[:0], e.prefix...), key), e.source...)
	if found, ok := e.pending[string(e.key)]; ok {
		return found
	}
	found := &entry{}
	value, closer, err := e.db.Get(e.key)
	switch {
	case err == nil:
		found.value = append(make([]byte, 0, len(value)), value...)
		err = closer.Close()
	case errors.Is(err, pebble.ErrNotFound):
		err = nil
	}
	e.database = errors.Join(e.database, err)
	e.pending[string(e.key)] = found
	return found
}

// write puts what changed into a batch; nil entries have changed nothing.
func (e *Entries) write(batch *pebble.Batch) error {
	if e == nil {
		return nil
	}
	for key, entry := range e.pending {
		var err error
		switch {
		case !entry.changed:
		case entry.value == nil:
			err = batch.Delete([]byte(key), nil)
		default:
			err = batch.Set([]byte(key), entry.value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rowSet are the entries that one view has, by key in the order of bytes.
type rowSet struct {
	rows []row
	err  error // the model broke a bound
}

type row struct {
	key   string
	value []byte
}

func (r *rowSet) emit(key string, value []byte) {
	if r.err != nil {
		return
	}
	if r.err = checkEntry(key, value); r.err == nil && len(r.rows) == MaxRows {
		r.err = fmt.Errorf("one view has more than %d entries", MaxRows)
	}
	if r.err == nil {
		r.rows = append(r.rows, row{key, bytes.Clone(value)})
	}
}
