package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// TableAt is a table that stays in the bucket and is read at any place. It is safe
// for concurrent use.
//
// What is sealed is authenticated with each reading, against its key and its place in
// its object; of what is not, only blocks have checksums, which whoever reads the table
// compares. That it is the right object of the right backup shows in the proof of
// what was made of it.
type TableAt struct {
	src   Source
	table format.Table
	at    *seal.ReaderAt
}

// OpenAt opens a table for reading at any place, and reads its ends. A reading that was damaged is tried
// again, as in Fetch; that of a bucket out of reach is not, beyond what the bucket does by
// itself: somebody waits for it. Errors name the object; damage is of kind
// events.KindInconsistent.
func (src Source) OpenAt(ctx context.Context, t format.Table, ends seal.Ends) (*TableAt, error) {
	opened := &TableAt{src: src, table: t}
	err := opened.try(ctx, func() (err error) {
		size, _ := t.Stored()
		opened.at, err = src.Opener.OpenAt(ctx, opened.read, size, t.Keys, ends)
		return err
	})
	if err != nil {
		return nil, err
	}
	if opened.at.Size() != t.Size {
		return nil, opened.name(events.Errorf(events.KindInconsistent, "it holds a table of %d bytes, the manifest says %d", opened.at.Size(), t.Size))
	}
	return opened, nil
}

// Size is that of the table, in bytes.
func (t *TableAt) Size() int64 { return t.table.Size }

// ReadAt fills p with the table's bytes from an offset on, or fails.
func (t *TableAt) ReadAt(ctx context.Context, p []byte, offset int64) error {
	t.src.Kept.use(t)
	return t.try(ctx, func() error { return t.at.ReadAt(ctx, p, offset) })
}

// Close lets go of the table. Readings under way go on.
func (t *TableAt) Close() error {
	t.src.Kept.close(t)
	return nil
}

// try reads, again if that was damaged, and names the object in the error.
func (t *TableAt) try(ctx context.Context, read func() error) error {
	never := func(error) bool { return false }
	err := retryIf(ctx, never, func() error {
		err := read()
		if errors.Is(err, seal.ErrDamaged) {
			err = fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, objstore.ErrNotFound):
		err = events.Errorf(events.KindInconsistent, "missing from the bucket: the backup is not complete: %w", err)
	case errors.Is(err, objstore.ErrInvalid):
		err = events.Errorf(events.KindInconsistent, "the object is not as long as the manifest says: %w", err)
	}
	return t.name(err)
}

func (t *TableAt) name(err error) error { return fmt.Errorf("object %s: %w", t.table.Name, err) }

// read reads the object.
func (t *TableAt) read(ctx context.Context, p []byte, offset int64) (err error) {
	if len(p) == 0 {
		return nil
	}
	body, err := t.src.Bucket.GetRange(ctx, t.table.Name, offset, int64(len(p)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if _, err = io.ReadFull(body, p); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: less came than the %d bytes from offset %d on", objstore.ErrCorrupt, len(p), offset)
	}
	return err
}

const parallelFirsts = 16

// Firsts are the first keys of a shard's tables. They stand in the manifest; if not,
// they are read out of the tables with first.
func (src Source) Firsts(ctx context.Context, shard format.Shard, first func(context.Context, *TableAt) ([]byte, error)) ([][]byte, error) {
	if shard.Firsts == nil {
		return src.readFirsts(ctx, shard, first)
	}
	r, err := src.Opener.Open(bytes.NewReader(shard.Firsts), shard.Tables[0].Keys)
	if err != nil {
		return nil, fmt.Errorf("first keys of the tables of shard %d: %w", shard.Partition, err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, events.Errorf(events.KindInconsistent, "first keys of the tables of shard %d: %w", shard.Partition, err)
	}
	return format.DecodeFirsts(text, len(shard.Tables))
}

func (src Source) readFirsts(ctx context.Context, shard format.Shard, first func(context.Context, *TableAt) ([]byte, error)) ([][]byte, error) {
	firsts := make([][]byte, len(shard.Tables))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFirsts)
	for i, t := range shard.Tables {
		g.Go(func() error {
			table, err := src.OpenAt(ctx, t, seal.TableStart)
			if err != nil {
				return err
			}
			if firsts[i], err = first(ctx, table); err != nil {
				return table.name(err)
			}
			return nil
		})
	}
	return firsts, g.Wait()
}
