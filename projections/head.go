package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
)

// pastHead comes after the keys that say where the logs stand, with their digests and marks. They
// are few, and an opening reads them; what is parked and the slices come behind.
var pastHead = []byte{prefixParked}

// parallelHeads is how many tables of a shard are read side by side.
const parallelHeads = 16

// readHead reads what layers say together of where the logs stand, out of the beginnings of their tables.
func readHead(ctx context.Context, outside Outside, layers []Layer) (map[string][]byte, error) {
	type change struct {
		key   string
		value []byte // nil: the key is gone
	}
	changes := make([][]change, len(layers))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelHeads)
	for i, l := range layers {
		g.Go(func() error {
			for _, t := range l.Tables {
				if bytes.Compare(t.First, pastHead) >= 0 {
					break
				}
				table, err := outside.OpenTable(ctx, l.Backup, t.Name, ReadStart)
				if err != nil {
					return outsideError(err)
				}
				err = eachKey(ctx, table, pastHead, func(key, value []byte) bool {
					changes[i] = append(changes[i], change{string(key), bytes.Clone(value)})
					return true
				})
				if err != nil {
					return fmt.Errorf("table %s: %w", t.Name, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	head := map[string][]byte{}
	for _, layer := range changes {
		for _, c := range layer {
			if c.value == nil {
				delete(head, c.key)
			} else {
				head[c.key] = c.value
			}
		}
	}
	return head, nil
}

// FirstKey reads the first key of a table that lies outside, and closes it.
func FirstKey(ctx context.Context, table OutsideTable) (first []byte, err error) {
	err = eachKey(ctx, table, nil, func(key, _ []byte) bool {
		first = bytes.Clone(key)
		return false
	})
	if err == nil && first == nil {
		err = events.Errorf(events.KindInconsistent, "the table is empty")
	}
	return first, err
}

// eachKey reads a table from its beginning on, up to a key if that is not nil, and closes it. A value that is nil says that the key
// is gone. Nothing of key and value may be kept.
func eachKey(ctx context.Context, table OutsideTable, end []byte, each func(key, value []byte) (more bool)) (err error) {
	defer func() { err = damage(err) }()
	r, err := sstable.NewReader(ctx, directReadable{outsideReader{table: table, reading: &reading{}}}, sstable.ReaderOptions{})
	if err != nil {
		return err // and it has closed the table
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, end, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for kv := it.First(); kv != nil; kv = it.Next() {
		var value []byte
		switch kind := kv.K.Kind(); kind {
		case pebble.InternalKeyKindSet:
			if value, _, err = kv.Value(nil); err != nil {
				return err
			}
			if value == nil {
				value = []byte{}
			}
		case pebble.InternalKeyKindDelete:
		default:
			return events.Errorf(events.KindInconsistent, "key %q is of kind %s, which no backup has", kv.K.UserKey, kind)
		}
		if !each(kv.K.UserKey, value) {
			return nil
		}
	}
	return it.Error()
}

// directReadable reads a table as it is asked to. Pebble's own reads half a megabyte where it is asked for an index.
type directReadable struct{ outsideReader }

var _ objstorage.Readable = directReadable{}

// Size implements objstorage.Readable.
func (d directReadable) Size() int64 { return d.table.Size() }

// NewReadHandle implements objstorage.Readable.
func (d directReadable) NewReadHandle(objstorage.ReadBeforeSize) objstorage.ReadHandle {
	h := objstorage.MakeNoopReadHandle(d)
	return &h
}
