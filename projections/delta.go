package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// WriteDelta writes what differs between the cut and the state at an earlier vector,
// as WriteTables writes all of it. touched names, for every log that has moved since,
// at least the keys that its records since then are about (package touched); what
// is written is each of their slices as it is at the cut, or that there is none. Its
// cost depends on how much was touched and not on how large the state is.
//
// RestoreLayers makes the cut's state out of that at the earlier vector and a
// delta, whichever database either was written from.
func (c *Cut) WriteDelta(ctx context.Context, since events.Vector, touched map[events.Log][]string, tableBytes int64, create func(first []byte) (io.WriteCloser, error)) error {
	d := delta{cut: c}
	for _, st := range c.states {
		switch from := since[st.Log]; {
		case from == st.Next:
			continue
		case from > st.Next:
			return events.Errorf(events.KindRefused, "shard %d: %s stands at offset %d and not at %d or behind it", c.partition, st.Log, st.Next, from)
		}
		keys, known := touched[st.Log]
		if !known {
			return events.Errorf(events.KindInvalid, "shard %d: %s has moved, and nobody says which of its keys were touched", c.partition, st.Log)
		}
		if err := d.log(st, since[st.Log], keys); err != nil {
			return err
		}
	}
	for log, next := range since {
		if _, there := c.logs[log]; !there && next > 0 {
			return events.Errorf(events.KindRefused, "shard %d: nothing of %s is there, of which %d offsets should be", c.partition, log, next)
		}
	}
	return d.write(ctx, tables{bytes: tableBytes, create: create})
}

// delta collects what is to be written.
type delta struct {
	cut     *Cut
	parts   []part
	keys    [][]byte       // of slices; they sort behind all parts
	buckets digest.Changes // of the log at hand
}

// part is a key, or a range of keys, of which the delta has what the cut has.
type part struct {
	key   []byte
	end   []byte // nil: key alone
	value []byte // of key; nil: what the cut has, if it has anything
	gone  bool   // key is not there, whatever the cut has
}

// log adds the parts of a log that has moved.
func (d *delta) log(st events.LogState, from int64, keys []string) error {
	l := st.Log
	d.parts = append(d.parts,
		part{key: logKey(l)},
		part{key: parkedKey(l.At(from)), end: parkedKey(l.At(st.Next))},
		part{key: markKey(l, from), end: markKey(l, st.Next)},
	)
	origin := l.Origin.String()
	d.buckets.Reset()
	for _, key := range keys {
		d.keys = append(d.keys, append(appendEntityKey(nil, l.Stream, key), origin...))
		d.buckets.Touch(digest.BucketOf(key))
	}
	if d.buckets.Len() > 0 {
		// Numbers of entries are lower than the offset at which they are written, in
		// whichever database; see bucketJournal.
		buckets := d.cut.logs[l].buckets.AppendChanged(nil, &d.buckets)
		d.parts = append(d.parts, part{key: bucketKey(l, uint64(st.Next)), value: buckets})
	}
	return d.oldMarks(l, from, st.Next)
}

// oldMarks adds that the marks are gone which those since an offset have replaced.
func (d *delta) oldMarks(l events.Log, from, next int64) (err error) {
	it, err := d.cut.snapshot.NewIter(&pebble.IterOptions{LowerBound: markKey(l, from), UpperBound: markKey(l, next)})
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	for it.First(); it.Valid(); it.Next() {
		_, at, err := splitNumberedKey(prefixMark, it.Key())
		if err != nil {
			return err
		}
		if old := int64(at) - keptMarks*markEvery; old > 0 && old < from {
			d.parts = append(d.parts, part{key: markKey(l, old), gone: true})
		}
	}
	return it.Error()
}

// write writes everything in the order of keys.
func (d *delta) write(ctx context.Context, out tables) error {
	slices.SortFunc(d.parts, func(a, b part) int { return bytes.Compare(a.key, b.key) })
	slices.SortFunc(d.keys, bytes.Compare)
	for _, p := range d.parts {
		if err := d.writePart(ctx, &out, p); err != nil {
			return errors.Join(fmt.Errorf("shard %d: %w", d.cut.partition, err), out.close())
		}
	}
	for i, key := range d.keys {
		if i > 0 && bytes.Equal(key, d.keys[i-1]) {
			continue
		}
		if err := d.writeKey(ctx, &out, key); err != nil {
			return errors.Join(fmt.Errorf("shard %d: %w", d.cut.partition, err), out.close())
		}
	}
	return out.close()
}

func (d *delta) writePart(ctx context.Context, out *tables, p part) error {
	switch {
	case p.gone:
		return out.remove(ctx, p.key)
	case p.value != nil:
		return out.set(ctx, p.key, p.value)
	case p.end != nil:
		return d.writeRange(ctx, out, p)
	}
	return d.writeKey(ctx, out, p.key)
}

func (d *delta) writeKey(ctx context.Context, out *tables, key []byte) error {
	value, closer, err := d.cut.snapshot.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return out.remove(ctx, key)
	}
	if err != nil {
		return err
	}
	return errors.Join(out.set(ctx, key, value), closer.Close())
}

func (d *delta) writeRange(ctx context.Context, out *tables, p part) (err error) {
	it, err := d.cut.snapshot.NewIter(&pebble.IterOptions{LowerBound: p.key, UpperBound: p.end})
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	for it.First(); it.Valid(); it.Next() {
		if err := out.set(ctx, it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}
