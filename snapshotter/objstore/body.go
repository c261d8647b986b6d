package objstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// body is an object's body that knows how long it must be and turns every way
// of ending otherwise into an error with a kind.
type body struct {
	rc      io.ReadCloser
	stopped func() error // the Err of the context that opened the body
	fail    func(kind, cause error) error
	want    int64
	got     int64
	err     error // sticky
}

func newBody(rc io.ReadCloser, want int64, stopped func() error, fail func(kind, cause error) error) *body {
	return &body{rc: rc, want: want, stopped: stopped, fail: fail}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if err := b.stopped(); err != nil {
		b.err = b.fail(nil, err)
		return 0, b.err
	}
	n, err := b.rc.Read(p)
	b.got += int64(n)
	if err != nil || b.got > b.want {
		b.err = b.end(err)
	}
	return n, b.err
}

// end classifies why the body ended; io.EOF only if it is whole.
func (b *body) end(err error) error {
	if ctxErr := b.stopped(); ctxErr != nil && !errors.Is(err, io.EOF) {
		return b.fail(nil, ctxErr)
	}
	switch {
	case b.got > b.want:
		return b.fail(ErrCorrupt, fmt.Errorf("body is longer than its %d bytes", b.want))
	case errors.Is(err, io.EOF) && b.got == b.want:
		return io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return b.fail(ErrCorrupt, fmt.Errorf("body ended after %d of %d bytes", b.got, b.want))
	case strings.Contains(err.Error(), "checksum did not match"): // the SDK's type is internal
		return b.fail(ErrCorrupt, errors.New("body does not have the checksum that the store keeps for it"))
	}
	return b.fail(ErrUnavailable, fmt.Errorf("after %d of %d bytes: %w", b.got, b.want, err))
}

// Close implements io.Closer.
func (b *body) Close() error { return b.rc.Close() }

// checkRange says whether the range lies inside an object of size bytes.
func checkRange(offset, length, size int64) error {
	if offset < 0 || length < 0 {
		return fmt.Errorf("negative range: offset %d, length %d", offset, length)
	}
	if offset > size || length > size-offset {
		return fmt.Errorf("%d bytes from offset %d are not inside the object's %d bytes", length, offset, size)
	}
	return nil
}

// checkSize says whether a body may be one object.
func checkSize(size int) error {
	if size > MaxObjectBytes {
		return fmt.Errorf("body of %d bytes, at most %d are allowed; split it", size, MaxObjectBytes)
	}
	return nil
}

// equalBody reports whether r holds exactly want. It stops at the first
// difference.
func equalBody(r io.Reader, want []byte) (bool, error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > len(want) || !bytes.Equal(buf[:n], want[:n]) {
			return false, nil
		}
		want = want[n:]
		if errors.Is(err, io.EOF) {
			return len(want) == 0, nil
		}
		if err != nil {
			return false, err
		}
	}
}
