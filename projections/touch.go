package projections

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// touched is a slice that a batch may change.
type touched struct {
	dbKey   string
	turn    *logTurn
	key     string
	now     []byte // nil if there is none
	hash    digest.Sum
	live    bool
	bucket  int
	changed bool
}

// touch notes that a batch needs a slice.
func (a *applier) touch(t *logTurn, key string) *touched {
	a.key = appendEntityKey(a.key[:0], t.meta.log.Stream, key)
	a.key = append(a.key, t.meta.origin...)
	if slice, ok := a.touched[string(a.key)]; ok {
		return slice
	}
	slice := &touched{dbKey: string(a.key), turn: t, key: key, bucket: digest.BucketOf(key)}
	a.touched[slice.dbKey] = slice
	a.order = append(a.order, slice)
	return slice
}

// readTouched reads the slices that a batch needs, in the order of the database:
// neighbours share blocks.
func (s *Shard) readTouched() error {
	a := &s.apply
	slices.SortFunc(a.order, func(x, y *touched) int { return strings.Compare(x.dbKey, y.dbKey) })
	for _, slice := range a.order {
		if slice.turn.readers.OfViews() {
			continue // readViews reads it with its neighbours
		}
		a.key = append(a.key[:0], slice.dbKey...)
		was, err := get(s.db, a.key)
		if err != nil {
			return fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
		}
		if was != nil {
			a.found(slice, was)
		}
	}
	return nil
}

// found notes what the database has of a slice.
func (a *applier) found(slice *touched, was []byte) {
	slice.now, slice.live = was, slice.turn.rule.Live(was)
	slice.hash = a.hasher.Slice(slice.turn.meta.log.Stream, slice.key, was)
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
