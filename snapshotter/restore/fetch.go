package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Source is where backups are read from, and how they are opened.
type Source struct {
	Bucket objstore.Bucket
	Opener *seal.Opener // nil: opens what is not sealed
	Owner  string       // who reads, for people who look at pins
}

const (
	fetchAttempts = 3 // of one table; damage may be that of one reading
	fetchPause    = time.Second
)

// Fetch copies one table, opened, into what create makes, and verifies it: what the
// object holds as well as the table. A reading that failed in a way that may pass is
// tried again, and create is called again. Damage is of kind
// events.KindInconsistent.
func (src Source) Fetch(ctx context.Context, t format.Table, create func() (io.WriteCloser, error)) error {
	return Retry(ctx, func() error { return src.fetchOnce(ctx, t, create) })
}

// Hash verifies what an object holds, without opening it.
func (src Source) Hash(ctx context.Context, t format.Table) error {
	return Retry(ctx, func() error {
		stored, err := src.open(ctx, t)
		if err != nil {
			return err
		}
		defer stored.Close()
		if _, err := io.Copy(io.Discard, stored); err != nil {
			return err
		}
		return stored.verify()
	})
}

// Retry does something that reads a bucket, up to three times while its errors may
// pass: damage may be that of one reading. Damage that stays is of kind
// events.KindInconsistent.
func Retry(ctx context.Context, do func() error) error {
	return retryIf(ctx, objstore.IsTemporary, do)
}

// retryIf is Retry, where errors that are no damage may pass if passes says so.
func retryIf(ctx context.Context, passes func(error) bool, do func() error) error {
	for attempt := 1; ; attempt++ {
		err := do()
		damaged := errors.Is(err, objstore.ErrCorrupt)
		if attempt < fetchAttempts && (damaged || passes(err)) {
			if stopped := pause(ctx); stopped != nil { // one reading proves no damage
				return fmt.Errorf("%w after attempt %d: %w", stopped, attempt, err)
			}
			continue
		}
		if damaged {
			return events.Errorf(events.KindInconsistent, "%w", err)
		}
		return err
	}
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(fetchPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (src Source) fetchOnce(ctx context.Context, t format.Table, create func() (io.WriteCloser, error)) (err error) {
	stored, err := src.open(ctx, t)
	if err != nil {
		return err
	}
	defer stored.Close()
	out, err := create()
	if err != nil {
		return err
	}
	plain := &counted{sum: sha256.New()}
	if err := errors.Join(src.copy(io.MultiWriter(out, plain), stored, t), out.Close()); err != nil {
		return err
	}
	if err := stored.verify(); err != nil {
		return err
	}
	return plain.verify("table", t.Size, t.SHA256)
}

// copy opens the table; damage to what is sealed is objstore.ErrCorrupt.
func (src Source) copy(out io.Writer, stored io.Reader, t format.Table) error {
	table, err := src.Opener.Open(stored, t.Keys)
	if err == nil {
		_, err = io.Copy(out, table)
	}
	if errors.Is(err, seal.ErrDamaged) {
		return fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
	}
	return err
}

// object is what an object holds, counted and hashed while it is read.
type object struct {
	io.Reader
	io.Closer
	counted
	table format.Table
}

// open opens the object of a table. One byte more than promised is enough to see
// that there is more.
func (src Source) open(ctx context.Context, t format.Table) (*object, error) {
	body, _, err := src.Bucket.Get(ctx, t.Name)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, events.Errorf(events.KindInconsistent, "missing from the bucket: the backup is not complete: %w", err)
	}
	if err != nil {
		return nil, err
	}
	o := &object{Closer: body, counted: counted{sum: sha256.New()}, table: t}
	size, _ := t.Stored()
	o.Reader = io.TeeReader(io.LimitReader(body, size+1), &o.counted)
	return o, nil
}

// verify compares what was read with the manifest.
func (o *object) verify() error {
	size, sum := o.table.Stored()
	return o.counted.verify("object", size, sum)
}

// counted counts and hashes what is written to it.
type counted struct {
	sum  hash.Hash
	size int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	return c.sum.Write(p)
}

func (c *counted) verify(what string, size int64, sum string) error {
	if got := hex.EncodeToString(c.sum.Sum(nil)); c.size != size || got != sum {
		return fmt.Errorf("%w: %s of %d bytes with SHA-256 %s, the manifest says %d bytes with %s", objstore.ErrCorrupt, what, c.size, got, size, sum)
	}
	return nil
}
