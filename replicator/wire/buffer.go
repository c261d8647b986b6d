package wire

import "sync"

// Buffer holds the bytes of one answer.
type Buffer struct {
	Bytes []byte
	pool  *sync.Pool
}

// pools keep buffers by size class: 64 KiB, 512 KiB, 4 MiB, 32 MiB. Answers of
// a link are large, and made anew for each would be most of what the garbage
// collector has to do.
var pools [4]sync.Pool

const (
	poolLeastBytes = 4 << 10
	firstClass     = 64 << 10
	classFactor    = 8
)

func newBuffer(size int) *Buffer {
	if size < poolLeastBytes {
		return &Buffer{Bytes: make([]byte, size)}
	}
	for i, class := 0, firstClass; i < len(pools); i, class = i+1, class*classFactor {
		if size > class {
			continue
		}
		if b, ok := pools[i].Get().(*Buffer); ok && cap(b.Bytes) >= size {
			b.Bytes = b.Bytes[:size]
			return b
		}
		return &Buffer{Bytes: make([]byte, size, roomFor(size, class)), pool: &pools[i]}
	}
	return &Buffer{Bytes: make([]byte, size)}
}

// roomFor rounds up, so that the next answer of about the same size fits too.
func roomFor(size, class int) int { return min(class, size+size/4) }

// Release gives the bytes back. Nothing may point into them any more. A nil
// buffer is fine.
func (b *Buffer) Release() {
	if b != nil && b.pool != nil {
		pool := b.pool
		pool.Put(b)
	}
}
