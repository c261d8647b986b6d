package projections

import (
	"bytes"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/escape"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// origins are those by stream of which a shard may have slices, in the order of slices'
// keys. One is there before its first slice is, so whoever reads at a moment and asks
// then is told of all that were there at that moment.
type origins map[events.Stream][]origin

// origin is an origin with its name, as slices' keys hold it.
type origin struct {
	events.Origin
	name string
}

// add adds the origin of a log. What was handed out before does not change.
func (o origins) add(l events.Log) {
	added := origin{l.Origin, l.Origin.String()}
	i, there := slices.BinarySearchFunc(o[l.Stream], added, func(a, b origin) int { return strings.Compare(a.name, b.name) })
	if !there {
		o[l.Stream] = slices.Insert(slices.Clone(o[l.Stream]), i, added)
	}
}

func (s *Shard) expect(l events.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.origins.add(l)
}

func (s *Shard) originsOf(stream events.Stream) []origin {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.origins[stream]
}

// find reads the slices of an entity that a shard has, as they are at one moment. It
// asks for each of them by its whole key: so the filters of tables can tell that it is not
// there, and of most tables nothing else is read.
func (s *Shard) find(stream events.Stream, entity []byte) (found []merge.Slice, err error) {
	defer s.lookAhead(oneSpan(entity, escape.Past(entity)))()
	it, err := s.db.NewIter(&pebble.IterOptions{
		LowerBound: entity, UpperBound: escape.Past(entity),
		// Those of the lowest level are large, and worth it only where a block that is
		// read for nothing comes from the bucket.
		UseL6Filters: s.IsInPlace(),
	})
	if err != nil {
		return nil, err
	}
	defer closeIter(it, &err)
	var key []byte
	for _, o := range s.originsOf(stream) { // after the iterator's moment
		key = append(append(key[:0], entity...), o.name...)
		if it.SeekPrefixGE(key) {
			log := events.Log{Origin: o.Origin, Stream: stream, Partition: s.cfg.Partition}
			found = append(found, merge.Slice{Log: log, Data: bytes.Clone(it.Value())})
		} else if err := it.Error(); err != nil {
			return nil, err // which the next seek would forget
		}
	}
	return found, nil
}
