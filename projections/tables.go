package projections

import (
	"context"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2/objstorage"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// tables writes sorted tables in Pebble's format, in order and disjoint, each of about
// bytes (before compression, rounded up to a whole entry). For each table it calls
// create once, with the table's first key, and closes the writer that it got.
type tables struct {
	bytes  int64
	create func(first []byte) (io.WriteCloser, error)

	table   *sstable.Writer // nil: the next entry begins one
	written int64           // into it
}

// set adds a key with its value; keys ascend.
func (t *tables) set(ctx context.Context, key, value []byte) error {
	return t.add(ctx, key, len(value), func() error { return t.table.Set(key, value) })
}

// remove adds that a key is not there any more.
func (t *tables) remove(ctx context.Context, key []byte) error {
	return t.add(ctx, key, 0, func() error { return t.table.Delete(key) })
}

func (t *tables) add(ctx context.Context, key []byte, valueBytes int, write func() error) error {
	if t.table == nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		out, err := t.create(key)
		if err != nil {
			return err
		}
		t.table, t.written = sstable.NewWriter(&tableWriter{out}, tableOptions()), 0
	}
	if err := write(); err != nil {
		return errors.Join(err, t.close())
	}
	t.written += int64(len(key) + valueBytes)
	if t.written >= t.bytes {
		return t.close()
	}
	return nil
}

// close ends the table that is begun, if there is one.
func (t *tables) close() error {
	if t.table == nil {
		return nil
	}
	table := t.table
	t.table = nil
	return table.Close()
}

// tableWriter lets Pebble write a table to any writer.
type tableWriter struct{ io.WriteCloser }

var _ objstorage.Writable = (*tableWriter)(nil)

func (t *tableWriter) Write(p []byte) error {
	_, err := t.WriteCloser.Write(p)
	return err
}

func (t *tableWriter) Finish() error { return t.Close() }

func (t *tableWriter) Abort() { _ = t.Close() } // the caller gets the error that led here
