package projections

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

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
	e, err := EntityOf(shards, stream, key)
	if err != nil || len(e.Slices) == 0 {
		return Entry{Stream: stream, Key: key}, err
	}
	return join(shards[0].cfg.Rules, e)
}

// Scan reads, in the order of keys, the views of all keys of a stream that
// begin with prefix and come after the key after. Only keys that exist are
// given. Each shard is read as it was when the scan began.
func Scan(shards []*Shard, stream events.Stream, prefix, after string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range Entities(shards, stream, prefix, after) {
			var entry Entry
			if err == nil {
				entry, err = join(shards[0].cfg.Rules, e)
			}
			if err == nil && !entry.Exists {
				continue
			}
			if !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

func join(rules map[events.Stream]merge.Rule, e Entity) (Entry, error) {
	rule, ok := rules[e.Stream]
	if !ok {
		return Entry{}, events.Errorf(events.KindNotFound, "stream %s is not configured", e.Stream)
	}
	return e.Join(rule)
}

// Entity is a key of a stream with its slices in some shards.
type Entity struct {
	Stream events.Stream
	Key    string
	Slices []merge.Slice
}

// Join makes the view of the slices.
func (e Entity) Join(rule merge.Rule) (Entry, error) {
	view, err := rule.Join(e.Slices)
	if err != nil {
		return Entry{}, fmt.Errorf("stream %s, key %q: %w", e.Stream, e.Key, err)
	}
	return Entry{Stream: e.Stream, Key: e.Key, View: view}, nil
}

// EntityOf reads the slices of one key out of a set of shards, for somebody who
// joins them with those of other shards. There are none if the key is not there.
func EntityOf(shards []*Shard, stream events.Stream, key string) (Entity, error) {
	e := Entity{Stream: stream, Key: key}
	entity := appendEntityKey(nil, stream, key)
	if slices.ContainsFunc(shards, (*Shard).IsInPlace) {
		return e.findAside(shards, entity)
	}
	for _, s := range shards {
		found, err := s.find(stream, entity)
		if err != nil {
			return Entity{Stream: stream, Key: key}, err
		}
		e.Slices = append(e.Slices, found...)
	}
	return e, nil
}

const parallelFinds = 8

// findAside asks the shards side by side, since each waits for the bucket.
func (e Entity) findAside(shards []*Shard, entity []byte) (Entity, error) {
	found := make([][]merge.Slice, len(shards))
	var g errgroup.Group
	g.SetLimit(parallelFinds)
	for i, s := range shards {
		g.Go(func() (err error) {
			found[i], err = s.find(e.Stream, entity)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return e, err
	}
	e.Slices = slices.Concat(found...)
	return e, nil
}

// Entities reads, in the order of keys, the slices of all keys of a stream that
// begin with prefix and come after the key after, whether or not they exist. Each
// shard is read as it was when the walk began.
func Entities(shards []*Shard, stream events.Stream, prefix, after string) iter.Seq2[Entity, error] {
	return entities(shards, stream, appendEntityPrefix(nil, stream, prefix), after)
}

// EntitiesOf reads, in order, the slices of those of some keys that are there. The keys
// ascend. Each shard is read as it was when the walk began.
func EntitiesOf(shards []*Shard, stream events.Stream, keys []string) iter.Seq2[Entity, error] {
	return func(yield func(Entity, error) bool) {
		prefix := appendEntityPrefix(nil, stream, "")
		cursors, err := openCursors(shards, prefix, escape.Past(prefix))
		defer closeCursors(cursors)
		for _, key := range keys {
			if err != nil {
				break
			}
			entity := appendEntityKey(nil, stream, key)
			for _, c := range cursors {
				c.it.SeekGE(entity)
			}
			e := Entity{Stream: stream, Key: key}
			if err = e.take(cursors, entity); err == nil && len(e.Slices) > 0 && !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Entity{}, err)
		}
	}
}

// entities walks all entities below a database key's prefix.
func entities(shards []*Shard, stream events.Stream, dbPrefix []byte, after string) iter.Seq2[Entity, error] {
	return func(yield func(Entity, error) bool) {
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
			var e Entity
			e, err = nextEntity(cursors)
			if err != nil || e.Slices == nil {
				break
			}
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(Entity{}, err)
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
		done := s.lookAhead(oneSpan(lower, lower)) // from there on tables follow one another
		it.First()
		done()
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
func nextEntity(cursors []cursor) (e Entity, err error) {
	var smallest []byte // the entity's part of the key
	for _, c := range cursors {
		if err := c.it.Error(); err != nil {
			return e, err
		}
		if !c.it.Valid() || smallest != nil && bytes.Compare(c.it.Key(), smallest) > 0 {
			continue // at the end, at a later entity, or at the same
		}
		stream, key, entity, _, err := splitSliceKey(c.it.Key())
		if err != nil {
			return e, err
		}
		e.Stream, e.Key, smallest = stream, key, bytes.Clone(entity)
	}
	if smallest == nil {
		return e, nil
	}
	err = e.take(cursors, smallest)
	return e, err
}

// take takes the slices of the entity off the cursors that stand at it.
func (e *Entity) take(cursors []cursor, entity []byte) error {
	for _, c := range cursors {
		for ; c.it.Valid() && bytes.HasPrefix(c.it.Key(), entity); c.it.Next() {
			origin, err := events.ParseOrigin(string(c.it.Key()[len(entity):]))
			if err != nil {
				return fmt.Errorf("key %q: %w", c.it.Key(), err)
			}
			log := events.Log{Origin: origin, Stream: e.Stream, Partition: c.shard.cfg.Partition}
			e.Slices = append(e.Slices, merge.Slice{Log: log, Data: bytes.Clone(c.it.Value())})
		}
		if err := c.it.Error(); err != nil {
			return err
		}
	}
	return nil
}
