package derived

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/escape"
)

// Row is an entry of a model, and what it comes from: the key of a stream, or a
// log.
type Row struct {
	Key    string
	Value  []byte
	Stream events.Stream // of a model of views
	Of     string        // the stream's key
	Log    events.Log    // of a model of events
	Next   []byte        // to go on behind this row
}

// Part is a store that is read, and the number of its shard.
type Part struct {
	Partition int32
	Store     *Store
}

// Query reads the entries of a model whose keys begin with prefix, in order, over
// the shards of all parts, each as it is when the query begins. After is the Next
// of the row to go on behind, nil for the beginning. A model of which there are no
// entries yet is not ready; stale ones are given, and Status says so.
func Query(parts []Part, name, prefix string, after []byte) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		q := query{name: name, prefix: prefix, after: after}
		defer q.close()
		for _, p := range parts {
			if err := q.open(p); err != nil {
				yield(Row{}, err)
				return
			}
		}
		for {
			row, ok, err := q.next()
			if !ok && err == nil || !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// CompareNext compares the places of two rows, by their Next, in the order in which a query
// gives them.
func CompareNext(a, b []byte) int {
	keyA, partitionA := splitNext(a)
	keyB, partitionB := splitNext(b)
	return cmp.Or(bytes.Compare(keyA, keyB), cmp.Compare(partitionA, partitionB))
}

// splitNext takes a row's Next apart; of what is none the key is nil.
func splitNext(next []byte) (key []byte, partition int32) {
	n := len(next) - 4
	if n < 0 {
		return nil, 0
	}
	return next[:n], int32(binary.BigEndian.Uint32(next[n:]))
}

type query struct {
	name, prefix string
	after        []byte
	walks        []*walk
}

// walk goes through the entries of one shard.
type walk struct {
	it        *pebble.Iterator
	cut       int // length of the generation's part of keys
	ofEvents  bool
	partition int32
}

func (q *query) open(p Part) (err error) {
	if _, err := p.Store.lookup(q.name); err != nil {
		return err
	}
	// What is served and its entries must be of one moment.
	snapshot := p.Store.db.NewSnapshot()
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	rec, err := readRecord(snapshot, q.name)
	if err != nil {
		return err
	}
	g := rec.Serving
	if g == nil && rec.Stopped != "" {
		return events.Errorf(events.KindNotReady, "model %s of shard %d was stopped before it had entries: %s", q.name, p.Partition, rec.Stopped)
	}
	if g == nil {
		return events.Errorf(events.KindNotReady, "model %s of shard %d is being built", q.name, p.Partition)
	}
	begin, _ := span(q.name, g.Number)
	w := &walk{cut: len(begin), ofEvents: g.OfEvents, partition: p.Partition}
	lower := escape.Append(bytes.Clone(begin), q.prefix)
	upper := escape.Past(lower)
	for _, from := range [][]byte{{0x01}, w.from(q.after)} { // a model's notes come before 0x01
		if from = append(bytes.Clone(begin), from...); bytes.Compare(from, lower) > 0 {
			lower = from
		}
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	if w.it, err = snapshot.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper}); err != nil {
		return err
	}
	w.it.First()
	q.walks = append(q.walks, w)
	return nil
}

// from is where a walk goes on behind a row, which has its shard at the end.
func (w *walk) from(next []byte) []byte {
	key, partition := splitNext(next)
	if key == nil {
		return nil
	}
	if w.partition <= partition {
		return append(bytes.Clone(key), 0x00) // the smallest key behind it
	}
	return key
}

// next takes the smallest row, of the lowest shard.
func (q *query) next() (row Row, ok bool, err error) {
	var least *walk
	for _, w := range q.walks {
		if err := w.it.Error(); err != nil {
			return row, false, err
		}
		if w.it.Valid() && (least == nil || w.before(least)) {
			least = w
		}
	}
	if least == nil {
		return row, false, nil
	}
	key := least.it.Key()[least.cut:]
	if row, err = splitEntry(key, least.ofEvents); err != nil {
		return row, false, err
	}
	row.Value = bytes.Clone(least.it.Value())
	row.Next = binary.BigEndian.AppendUint32(bytes.Clone(key), uint32(least.partition))
	least.it.Next()
	return row, true, nil
}

func (w *walk) before(x *walk) bool {
	order := bytes.Compare(w.it.Key()[w.cut:], x.it.Key()[x.cut:])
	return order < 0 || order == 0 && w.partition < x.partition
}

func (q *query) close() {
	for _, w := range q.walks {
		// What could have gone wrong was reported by Error while walking.
		_ = w.it.Close()
	}
}
