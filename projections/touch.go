package projections

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// sliceID tells a slice from all others of a batch.
type sliceID struct {
	turn *logTurn
	key  string
}

// touched is a slice that a batch may change.
type touched struct {
	turn    *logTurn
	key     string
	dbKey   []byte
	now     []byte // nil if there is none
	hash    digest.Sum
	live    bool
	bucket  int
	changed bool
	written bool // by an event of the key
}

// write puts the changed slice into a batch.
func (t *touched) write(batch *pebble.Batch) error {
	if t.now == nil { // collected
		return batch.Delete(t.dbKey, nil)
	}
	return batch.Set(t.dbKey, t.now, nil)
}

// touch notes that a batch needs a slice.
func (a *applier) touch(t *logTurn, key string) *touched {
	id := sliceID{t, key}
	if slice, ok := a.touched[id]; ok {
		return slice
	}
	a.key = appendEntityKey(a.key[:0], t.meta.log.Stream, key)
	a.key = append(a.key, t.meta.origin...)
	slice := &touched{turn: t, key: key, dbKey: a.memory.copyOf(a.key), bucket: digest.BucketOf(key)}
	a.touched[id] = slice
	a.order = append(a.order, slice)
	return slice
}

// Slices of a large batch are read by several readers side by side: where blocks
// come from a disk it is waiting that takes the time, and where they are in memory
// there may be another processor. Each has so many slices that it is worth
// the start.
const (
	readersMax    = 4
	readSlicesMin = 256
)

// reader is what one of them needs for itself.
type reader struct {
	memory arena
	hasher digest.Hasher
}

// readTouched reads the slices that a batch needs, in the order of the database:
// neighbours share blocks.
func (s *Shard) readTouched() error {
	a := &s.apply
	slices.SortFunc(a.order, func(x, y *touched) int { return bytes.Compare(x.dbKey, y.dbKey) })
	n := min(readersMax, 1+len(a.order)/readSlicesMin)
	if n == 1 {
		return s.read(a.order, &a.readers[0])
	}
	var g errgroup.Group
	for i := range n {
		part := a.order[i*len(a.order)/n : (i+1)*len(a.order)/n]
		g.Go(func() error { return s.read(part, &a.readers[i]) })
	}
	return g.Wait()
}

// read reads some of the slices.
func (s *Shard) read(some []*touched, r *reader) error {
	r.memory.reset()
	defer s.lookAhead(func(yield func(keySpan) bool) {
		for _, slice := range some {
			if !yield(keySpan{slice.dbKey, slice.dbKey}) {
				return
			}
		}
	})()
	for _, slice := range some {
		if slice.turn.readers.OfViews() {
			continue // readViews reads it with its neighbours
		}
		value, closer, err := s.db.Get(slice.dbKey)
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
		}
		slice.found(r.memory.copyOf(value), &r.hasher)
		if err := closer.Close(); err != nil {
			return fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
		}
	}
	return nil
}

// found notes what the database has of a slice.
func (t *touched) found(was []byte, h *digest.Hasher) {
	t.now, t.live = was, t.turn.rule.Live(was)
	t.hash = h.Slice(t.turn.meta.log.Stream, t.key, was)
}

// arena hands out pieces of memory that are all let go of at once.
type arena struct{ chunk []byte }

// chunkBytes is what an arena takes at a time. It keeps no more from one batch to
// the next: there are many shards.
const chunkBytes = 256 << 10

func (m *arena) reset() {
	if m.chunk = m.chunk[:0]; cap(m.chunk) > chunkBytes {
		m.chunk = nil
	}
}

// room is space for n bytes to be appended to. What was appended must be kept before
// the next call, or else is overwritten.
func (m *arena) room(n int) []byte {
	if m.chunk == nil || cap(m.chunk)-len(m.chunk) < n {
		m.chunk = make([]byte, 0, max(n, chunkBytes))
	}
	return m.chunk[len(m.chunk):len(m.chunk):cap(m.chunk)]
}

// keep keeps what was appended to the last room.
func (m *arena) keep(b []byte) {
	if n := len(m.chunk) + len(b); n <= cap(m.chunk) { // else append has moved it away
		m.chunk = m.chunk[:n]
	}
}

// copyOf copies bytes, and never to nil.
func (m *arena) copyOf(b []byte) []byte {
	copied := append(m.room(len(b)), b...)
	m.keep(copied)
	return copied[:len(b):len(b)]
}

// get reads a key's value, nil if there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	copied := append(make([]byte, 0, len(value)), value...)
	return copied, closer.Close()
}

func isNoMeaning(err error) bool {
	var noMeaning *merge.NoMeaningError
	return errors.As(err, &noMeaning)
}
