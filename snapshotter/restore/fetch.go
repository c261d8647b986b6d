package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
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
	Kept   *Kept        // bounds what tables keep that are read in place; nil: nothing does
	Line   *Line        // where shards that are restored at the same time wait; nil: each by itself
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
		size, sum := t.Stored()
		stored, err := src.open(ctx, t)
		if err != nil {
			return err
		}
		defer stored.Close()
		hashed := newHashed()
		if err := copyAll(hashed, stored); err != nil {
			return err
		}
		return hashed.verify("object", size, sum)
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

// fetchOnce hashes a table once, as it is opened. What a sealed object holds is
// authenticated meanwhile, chunk by chunk and to its end, so that whatever gives this
// table is the object that was stored.
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
	table := newHashed()
	if err := errors.Join(src.copy(io.MultiWriter(table, out), stored, t), out.Close()); err != nil {
		return err
	}
	if err := stored.verify(); err != nil {
		return err
	}
	return table.verify("table", t.Size, t.SHA256)
}

// copy opens the table; damage to what is sealed is objstore.ErrCorrupt.
func (src Source) copy(out io.Writer, stored io.Reader, t format.Table) error {
	table, err := src.Opener.Open(stored, t.Keys)
	if err == nil {
		err = copyAll(out, table)
	}
	if errors.Is(err, seal.ErrDamaged) {
		return fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
	}
	return err
}

// copyBytes is how much is copied at a time: what is sealed comes in chunks of so many.
const copyBytes = 64 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBytes]byte) }}

func copyAll(out io.Writer, in io.Reader) error {
	buf := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buf)
	_, err := io.CopyBuffer(out, in, buf[:])
	return err
}

// object is what an object holds, counted while it is read.
type object struct {
	io.LimitedReader
	io.Closer
	table format.Table
}

// open opens the object of a table. One byte more than promised is enough to see
// that there is more.
func (src Source) open(ctx context.Context, t format.Table) (*object, error) {
	body, _, err := objstore.GetUnchecked(ctx, src.Bucket, t.Name)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, events.Errorf(events.KindInconsistent, "missing from the bucket: the backup is not complete: %w", err)
	}
	if err != nil {
		return nil, err
	}
	size, _ := t.Stored()
	return &object{LimitedReader: io.LimitedReader{R: body, N: size + 1}, Closer: body, table: t}, nil
}

// verify compares the length of what was read with the manifest.
func (o *object) verify() error {
	if size, _ := o.table.Stored(); o.N != 1 {
		return fmt.Errorf("%w: object of %d bytes, the manifest says %d", objstore.ErrCorrupt, size+1-o.N, size)
	}
	return nil
}

// hashed counts and hashes what is written to it.
type hashed struct {
	sum  hash.Hash
	size int64
}

func newHashed() *hashed { return &hashed{sum: sha256.New()} }

func (h *hashed) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	return h.sum.Write(p)
}

func (h *hashed) verify(what string, size int64, sum string) error {
	if got := hex.EncodeToString(h.sum.Sum(nil)); h.size != size || got != sum {
		return fmt.Errorf("%w: %s of %d bytes with SHA-256 %s, the manifest says %d bytes with %s", objstore.ErrCorrupt, what, h.size, got, size, sum)
	}
	return nil
}
