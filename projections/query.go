package projections

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/escape"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// Entry is a key and its view.
type Entry struct {
	Stream events.Stream
	Key    string
	merge.View
}

// Get reads the view of one key out of a set of shards. All are asked, because
// producers with different partitioners can put one key into different
// partitions. The entry's Exists is false if the key is not there.
func Get(shards []*Shard, stream events.Stream, key string) (Entry, error) {
	for e, err := range scan(shards, stream, appendEntityKey(nil, stream, key), "") {
		return e, err
	}
	return Entry{Stream: stream, Key: key}, nil
}

// Scan reads, in the order of keys, the views of all keys of a stream that
// begin with prefix and come after the key after. Only keys that exist are
// given. Each shard is read as it was when the scan began.
func Scan(shards []*Shard, stream events.Stream, prefix, after string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range scan(shards, stream, appendEntityPrefix(nil, stream, prefix), after) {
			if err == nil && !e.Exists {
				continue
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// scan joins the slices of all entities below a database key's prefix, whether
// the entity exists or not.
func scan(shards []*Shard, stream events.Stream, dbPrefix []byte, after string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		lower := dbPrefix
		if after != "" {
			past := escape.Past(appendEntityKey(nil, stream, after))
			if bytes.Compare(past, lower) > 0 {
				lower = past
			}
		}
		cursors, err := openCursors(shards, lower, escape.Past(dbPrefix))
		defer closeCursors(cursors)
		for err == nil {
			var slices []merge.Slice
			var e Entry
			e, slices, err = nextEntity(cursors)
			if err != nil || slices == nil {
				break
			}
			rule, ok := shards[0].cfg.Rules[e.Stream]
			if !ok {
				err = events.Errorf(events.KindNotFound, "stream %s is not configured", e.Stream)
				break
			}
			if e.View, err = rule.Join(slices); err != nil {
				err = fmt.Errorf("stream %s, key %q: %w", e.Stream, e.Key, err)
				break
			}
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

// cursor walks the slices of one shard.
type cursor struct {
	shard *Shard
	it    *pebble.Iterator
}

func openCursors(shards []*Shard, lower, upper []byte) ([]cursor, error) {
	var cursors []cursor
	for _, s := range shards {
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			return cursors, err
		}
		it.First()
		cursors = append(cursors, cursor{s, it})
	}
	return cursors, nil
}

func closeCursors(cursors []cursor) {
	for _, c := range cursors {
		// What could have gone wrong was reported by Error while walking.
		_ = c.it.Close()
	}
}

// nextEntity takes the smallest entity off the cursors, with its slices from
// all of them. No slices: the end.
func nextEntity(cursors []cursor) (e Entry, slices []merge.Slice, err error) {
	var smallest []byte // the entity's part of the key
	for _, c := range cursors {
		if err := c.it.Error(); err != nil {
			return e, nil, err
		}
		if !c.it.Valid() || smallest != nil && bytes.Compare(c.it.Key(), smallest) > 0 {
			continue // at the end, at a later entity, or at the same
		}
		stream, key, entity, _, err := splitSliceKey(c.it.Key())
		if err != nil {
			return e, nil, err
		}
		e.Stream, e.Key, smallest = stream, key, bytes.Clone(entity)
	}
	if smallest == nil {
		return e, nil, nil
	}
	for _, c := range cursors {
		for ; c.it.Valid() && bytes.HasPrefix(c.it.Key(), smallest); c.it.Next() {
			origin, err := events.ParseOrigin(string(c.it.Key()[len(smallest):]))
			if err != nil {
				return e, nil, fmt.Errorf("key %q: %w", c.it.Key(), err)
			}
			log := events.Log{Origin: origin, Stream: e.Stream, Partition: c.shard.cfg.Partition}
			slices = append(slices, merge.Slice{Log: log, Data: bytes.Clone(c.it.Value())})
		}
		if err := c.it.Error(); err != nil {
			return e, nil, err
		}
	}
	return e, slices, nil
}
