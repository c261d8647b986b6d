package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// MaxObjectBytes is the size limit of one object. Callers split what is larger;
// the limit keeps an upload one request, held in memory and verified as a whole.
const MaxObjectBytes = 256 << 20

// Info describes an object.
type Info struct {
	// Name is relative to the bucket it was asked of, without that bucket's prefix.
	Name string
	// Size is the length of the body in bytes.
	Size int64
	// Modified is when the store says that it got the object, by the store's
	// clock. For people to read, and for one who wants a clock besides his own so as to
	// delete less by it; nothing may be deleted because of it.
	Modified time.Time
	// Class is the store's name for the class that keeps the object; empty: the
	// usual one, or the store does not say.
	Class string
	// Archived says that the body cannot be read before it was thawed. Only Stat
	// tells.
	Archived bool
}

// MayArchive says whether a class of storage keeps objects, or some of them, so that they
// are to be thawed before they can be read.
func MayArchive(class string) bool {
	switch class {
	case "", "STANDARD", "STANDARD_IA", "ONEZONE_IA", "REDUCED_REDUNDANCY", "GLACIER_IR", "EXPRESS_ONEZONE", "OUTPOSTS":
		return false
	}
	return true
}

// Reader reads objects. The caller closes every body it gets.
type Reader interface {
	// Get opens a whole object. Read returns [ErrCorrupt] instead of io.EOF if
	// the body is not as long as Info.Size, or does not have the checksum that
	// the store keeps for it.
	Get(ctx context.Context, name string) (io.ReadCloser, Info, error)

	// GetRange opens exactly length bytes from offset on. A range that is not
	// wholly inside the object is [ErrInvalid]; a length of 0 is allowed up to
	// and including the object's end. Only the length of the body is verified.
	GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)

	// Stat says how large an object is, or [ErrNotFound].
	Stat(ctx context.Context, name string) (Info, error)

	// List yields every object whose name starts with prefix (any string of name
	// characters; it need not end at a "/"), in ascending byte order, fetching
	// pages as it goes. An error is yielded once and ends it.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]

	// ListAfter is List of the names that are greater than after only, without
	// looking at those before; empty: all.
	ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// Creator adds objects.
type Creator interface {
	// Create stores a new object and never overwrites. [ErrExists] if the name
	// holds other bytes; success if it holds exactly these. On any other error
	// the object may or may not be stored: call again with the same bytes, or
	// leave it to a collector. The body is not kept or changed.
	Create(ctx context.Context, name string, body []byte) error
}

// Deleter removes objects.
type Deleter interface {
	// Delete removes an object; no error if there is none. The name must never
	// be used again.
	Delete(ctx context.Context, name string) error

	// DeleteAll is Delete of many objects, in as few requests as the store allows,
	// and in no order. For each name there is an error, nil if the object is gone.
	DeleteAll(ctx context.Context, names []string) []error
}

// Thawer makes archived objects readable. Some classes of storage are cheap because
// reading from them takes hours of notice: there Get and GetRange are [ErrArchived].
type Thawer interface {
	// Thaw asks for an object to be readable for some days from the time on that
	// it is, and says whether it is readable now. Asking again is no harm. An
	// object that is not archived is readable.
	Thaw(ctx context.Context, name string, days int) (ready bool, err error)
}

// Holder tells what the store does not let go. To try does not: where a bucket keeps versions,
// as one with Object Lock does on AWS, Delete of a locked object succeeds, hides the object
// behind a marker, and frees nothing.
type Holder interface {
	// Holds says for each of the objects what holds it, which is nothing where there is none
	// of the name. It costs one request if nothing can be locked in the bucket, and one for
	// each object if something can. [ErrAccess] if the credentials may not ask: then nobody
	// knows.
	Holds(ctx context.Context, names []string) ([]Hold, error)
}

// Bucket is everything that can be done with one bucket.
type Bucket interface {
	Reader
	Creator
	Deleter
	Thawer
	Holder

	// Check proves with one cheap request that the bucket exists and may be
	// listed. It tells apart [ErrNoBucket], [ErrAccess] and [ErrUnavailable], and
	// gives up within seconds.
	Check(ctx context.Context) error

	// String names the bucket for messages, without secrets.
	String() string
}

// GetUnchecked is Get for those who compare the body with a hash that they have from
// elsewhere: it is not hashed a second time for the checksum that the store keeps. That it
// is as long as Info.Size is seen to.
func GetUnchecked(ctx context.Context, r Reader, name string) (io.ReadCloser, Info, error) {
	if u, ok := r.(uncheckedGetter); ok {
		return u.getUnchecked(ctx, name)
	}
	return r.Get(ctx, name)
}

// uncheckedGetter is a Reader whose Get hashes what comes.
type uncheckedGetter interface {
	getUnchecked(ctx context.Context, name string) (io.ReadCloser, Info, error)
}

var _ uncheckedGetter = (*S3)(nil)

// ReadAll reads a whole object of at most maxBytes bytes, so that a damaged or
// foreign object cannot fill the memory. A larger one is [ErrInvalid].
func ReadAll(ctx context.Context, r Reader, name string, maxBytes int64) (body []byte, err error) {
	rc, info, err := r.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	fail := func(kind error, format string, args ...any) error {
		e := &Error{Op: OpGet, Object: name, Kind: kind, Err: fmt.Errorf(format, args...)}
		if s, ok := r.(fmt.Stringer); ok {
			e.Bucket = s.String()
		}
		return e
	}
	if info.Size > maxBytes {
		return nil, fail(ErrInvalid, "object has %d bytes, at most %d expected", info.Size, maxBytes)
	}
	var buf bytes.Buffer
	buf.Grow(int(info.Size) + bytes.MinRead)
	if _, err := buf.ReadFrom(rc); err != nil {
		return nil, err
	}
	if int64(buf.Len()) != info.Size {
		return nil, fail(ErrCorrupt, "body ended after %d of %d bytes", buf.Len(), info.Size)
	}
	return buf.Bytes(), nil
}
