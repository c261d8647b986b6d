package faults

import (
	"io"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// spoil applies an effect on bodies to a body of size bytes.
func (f *Bucket) spoil(hit fault, op, name string, rc io.ReadCloser, size int64) io.ReadCloser {
	if size == 0 || hit.effect < TearBody {
		return rc
	}
	at := int64(hit.roll % uint64(size))
	switch hit.effect {
	case FlipBit:
		return &flipped{ReadCloser: rc, left: at, bit: 1 << (hit.roll >> 61)}
	case TruncateBody:
		return &cut{ReadCloser: rc, left: at, end: io.EOF}
	}
	return &cut{ReadCloser: rc, left: at, end: f.fail(op, name, objstore.ErrCorrupt, "injected: body cut")}
}

// cut ends a body after left bytes with the error end.
type cut struct {
	io.ReadCloser
	left int64
	end  error
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, c.end
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// flipped flips one bit of the byte after left bytes.
type flipped struct {
	io.ReadCloser
	left int64
	bit  byte
}

func (r *flipped) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if r.left >= 0 && r.left < int64(n) {
		p[r.left] ^= r.bit
	}
	r.left -= int64(n)
	return n, err
}
