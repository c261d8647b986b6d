package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// inflater decompresses into memory that it uses again. The client library's
// own decompressor would do, but for its limit of 2 GiB: here a few bytes from
// outside must not be able to take that much.
type inflater struct {
	limitBytes int
	src        bytes.Reader
	gzip       *gzip.Reader
	lz4        *lz4.Reader
	zstd       *zstd.Decoder
}

// An InflatedError says that records decompress to more bytes than are allowed.
type InflatedError struct{ Limit int }

func (e *InflatedError) Error() string {
	return fmt.Sprintf("decompresses to more than %d bytes", e.Limit)
}

func (d *inflater) errLimit() error { return &InflatedError{d.limitBytes} }

// Inflater decompresses the records of batches, for one goroutine.
type Inflater struct {
	inflater
	scratch []byte
}

// scratchBytesMost is how much memory an Inflater keeps between batches.
const scratchBytesMost = 4 << 20

// NewInflater makes an Inflater that never takes much more than limitBytes.
func NewInflater(limitBytes int) *Inflater {
	return &Inflater{inflater: inflater{limitBytes: limitBytes}}
}

// Inflate decompresses into new memory. If there is more than the limit the error is an *InflatedError.
// What is given out may be held for long, and so has no more memory than it needs.
func (i *Inflater) Inflate(src []byte, codec Codec) ([]byte, error) {
	if saysItsLength(src, codec) {
		return i.inflate(nil, src, codec)
	}
	plain, err := i.inflate(i.scratch, src, codec)
	if err != nil {
		return nil, err
	}
	if i.scratch = plain; cap(plain) > scratchBytesMost {
		i.scratch = nil
	}
	return bytes.Clone(plain), nil
}

// saysItsLength says whether as much memory is taken as is needed, from the start.
func saysItsLength(src []byte, codec Codec) bool {
	switch codec {
	case Snappy:
		return !isXerial(src)
	case Zstd:
		var head zstd.Header
		return head.Decode(src) == nil && head.HasFCS
	}
	return false
}

func isXerial(src []byte) bool {
	return len(src) >= xerialHeadBytes && string(src[:len(xerialMagic)]) == xerialMagic
}

// inflate decompresses src into the memory of dst, or into new memory if that is
// too small.
func (d *inflater) inflate(dst, src []byte, codec Codec) ([]byte, error) {
	switch dst = dst[:0]; codec {
	case Gzip:
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		d.src.Reset(src)
		if err := d.gzip.Reset(&d.src); err != nil {
			return nil, err
		}
		return d.readAll(dst, d.gzip)
	case Snappy:
		return d.unsnap(dst, src)
	case LZ4:
		if d.lz4 == nil {
			d.lz4 = lz4.NewReader(nil)
		}
		d.src.Reset(src)
		d.lz4.Reset(&d.src)
		return d.readAll(dst, d.lz4)
	case Zstd:
		return d.unzstd(dst, src)
	}
	return nil, fmt.Errorf("codec %v cannot be decompressed", codec)
}

func (d *inflater) readAll(dst []byte, r io.Reader) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	limited := io.LimitedReader{R: r, N: int64(d.limitBytes) + 1}
	n, err := out.ReadFrom(&limited)
	if err == nil && n > int64(d.limitBytes) {
		err = d.errLimit()
	}
	return out.Bytes(), err
}

func (d *inflater) unzstd(dst, src []byte) ([]byte, error) {
	if d.zstd == nil {
		var err error
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(d.limitBytes)))
		if err != nil {
			return nil, err
		}
	}
	out, err := d.zstd.DecodeAll(src, dst)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = d.errLimit()
	}
	return out, err
}

// The frame in which Java producers put snappy: a head of 16 bytes, then blocks
// of snappy, each after its length.
const (
	xerialMagic     = "\x82SNAPPY\x00"
	xerialHeadBytes = 16
	xerialLength    = 4
)

func (d *inflater) unsnap(dst, src []byte) ([]byte, error) {
	if !isXerial(src) {
		return d.unsnapBlock(dst, src)
	}
	for src = src[xerialHeadBytes:]; len(src) > 0; {
		if len(src) < xerialLength {
			return nil, errors.New("snappy: a block's length is cut off")
		}
		n := binary.BigEndian.Uint32(src)
		if src = src[xerialLength:]; uint64(n) > uint64(len(src)) {
			return nil, errors.New("snappy: a block is cut off")
		}
		var err error
		if dst, err = d.unsnapBlock(dst, src[:n]); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return dst, nil
}

// snappyRatioMax is what snappy can save at most: three bytes stand for 64.
const snappyRatioMax = 64

func (d *inflater) unsnapBlock(dst, block []byte) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if n > d.limitBytes-len(dst) {
		return nil, d.errLimit()
	}
	if n > snappyRatioMax*len(block) {
		return nil, errors.New("snappy: the length is wrong")
	}
	if cap(dst) == 0 {
		return s2.Decode(nil, block) // in memory that is cleared only once
	}
	dst = slices.Grow(dst, n)
	if _, err := s2.Decode(dst[len(dst):len(dst)+n], block); err != nil {
		return nil, err
	}
	return dst[:len(dst)+n], nil
}
