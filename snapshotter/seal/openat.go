package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"
)

// ReadRange fills p with the bytes of one object from an offset on, or fails. It is
// called from several goroutines.
type ReadRange func(ctx context.Context, p []byte, offset int64) error

// ReaderAt reads what was sealed at any place. It asks for as few bytes as age's
// chunks allow, with one ReadRange for each reading, and keeps a bounded number of
// them. It is safe for concurrent use.
type ReaderAt struct {
	read    ReadRange
	stored  int64       // bytes of the object
	size    int64       // bytes of what was sealed
	payload int64       // where in the object the first chunk begins
	opened  io.ReaderAt // age's, over windows; nil: it was not sealed
	windows windows
}

const (
	chunkBytes       = 64 << 10
	storedChunkBytes = chunkBytes + 16 // with its tag

	// The head holds age's header: some hundred bytes for each key, 1,600 for one that
	// withstands quantum computers. What is not found in it is looked for in a larger one.
	headBytesLeast = 8 << 10
	headBytesMost  = 1 << 20

	// keptBytes bounds what a ReaderAt keeps of what it has read last, and also of the tail once
	// more of that was read.
	keptBytes = 2 * storedChunkBytes
)

// Ends are the chunks that an opening reads and keeps, because they are asked for next.
type Ends struct {
	First bool  // the first
	Last  int64 // so many of the last; at least ShortTail.Last
}

var (
	// ShortTail is the least: age wants to see the last chunk first.
	ShortTail = Ends{Last: 2}

	// TableTail is for a table that Pebble reads, which begins with 512 KiB up to the end of its index.
	TableTail = Ends{Last: 10}

	// TableStart is for a table of which only the beginning is wanted.
	TableStart = Ends{First: true, Last: ShortTail.Last}
)

// OpenAt opens an object of the given size that was sealed for the keys with these
// ids; no ids: it was not sealed. It reads the object's ends. Errors are
// as those of Open; an object of another size than was sealed is ErrDamaged.
func (o *Opener) OpenAt(ctx context.Context, read ReadRange, storedBytes int64, keys []string, ends Ends) (*ReaderAt, error) {
	r := &ReaderAt{read: read, stored: storedBytes, size: storedBytes}
	if len(keys) == 0 {
		return r, nil
	}
	if err := o.Fits(keys); err != nil {
		return nil, err
	}
	var head, tail *window
	rest := max(0, storedBytes-ends.Last*storedChunkBytes) // besides the tail
	headBytes := int64(headBytesLeast)
	if ends.First {
		headBytes += storedChunkBytes
	}
	g, both := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		tail, err = r.fetch(both, rest, storedBytes, buffer(storedBytes-rest))
		return err
	})
	g.Go(func() (err error) {
		head, err = r.fetch(both, 0, min(headBytes, rest), nil)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	defer r.windows.use(tail)()
	for {
		err := r.open(o.identities, head)
		if err == nil {
			tail.isTail, r.windows.tail = true, tail
			if ends.First && len(head.data) <= keptBytes {
				r.windows.keep(head)
			}
			return r, nil
		}
		if !errors.Is(err, errNotLoaded) || head.end() == rest || head.end() >= headBytesMost {
			return nil, err
		}
		if head, err = r.fetch(ctx, 0, min(2*head.end(), rest), nil); err != nil {
			return nil, err
		}
	}
}

// open reads age's header out of the object's first bytes.
func (r *ReaderAt) open(identities []age.Identity, head *window) error {
	defer r.windows.use(head)()
	var err error
	if r.opened, r.size, err = age.DecryptReaderAt(&r.windows, r.stored, identities...); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	chunks := max(1, (r.size+chunkBytes-1)/chunkBytes)
	r.payload = r.stored - r.size - chunks*(storedChunkBytes-chunkBytes)
	return nil
}

// Size is the number of bytes that were sealed.
func (r *ReaderAt) Size() int64 { return r.size }

// ReadAt fills p with what was sealed from an offset on, or fails: with ErrDamaged
// where the bytes are not those that were sealed, and with the error of ReadRange.
func (r *ReaderAt) ReadAt(ctx context.Context, p []byte, offset int64) error {
	end := offset + int64(len(p))
	if offset < 0 || end > r.size {
		return fmt.Errorf("%d bytes from offset %d are not inside the %d bytes that there are", len(p), offset, r.size)
	}
	if len(p) == 0 {
		return nil
	}
	if r.opened == nil {
		return r.read(ctx, p, offset)
	}
	from := r.payload + offset/chunkBytes*storedChunkBytes
	to := min(r.payload+(end+chunkBytes-1)/chunkBytes*storedChunkBytes, r.stored)
	w, done := r.windows.useKept(from, to)
	if w == nil {
		var err error
		if w, err = r.fetch(ctx, from, to, buffer(to-from)); err != nil {
			return err
		}
		done = r.windows.use(w)
	}
	_, err := r.opened.ReadAt(p, offset)
	done()
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		r.Forget() // some of it is damaged
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case w.isTail:
		r.windows.trim(from)
	case len(w.data) <= keptBytes:
		r.windows.keep(w)
	default:
		buffers.Put(&w.data) // nobody else reads out of it any more
	}
	return nil
}

// Forget lets go of what is kept of earlier readings.
func (r *ReaderAt) Forget() { r.windows.forget() }

// buffers are those of large readings, one after the other as tables are opened or copied as a whole.
var buffers sync.Pool

// buffer is one for a large reading, if there is one.
func buffer(size int64) []byte {
	if size > keptBytes {
		if used, _ := buffers.Get().(*[]byte); used != nil && int64(cap(*used)) >= size {
			return (*used)[:size]
		}
	}
	return nil
}

// fetch reads the object's bytes in [from, to), into data if that is not nil.
func (r *ReaderAt) fetch(ctx context.Context, from, to int64, data []byte) (*window, error) {
	w := &window{offset: from, data: data}
	if from == to {
		return w, nil
	}
	if data == nil {
		w.data = make([]byte, to-from)
	}
	return w, r.read(ctx, w.data, from)
}

// window is a stretch of an object.
type window struct {
	offset int64
	data   []byte
	isTail bool
}

func (w *window) end() int64 { return w.offset + int64(len(w.data)) }

// windows are the stretches of an object that are there at present: those that
// readings are using, and two that are kept. age, which knows of no contexts, reads out of
// them and never waits.
type windows struct {
	mu   sync.Mutex
	used []*window
	kept *window // what was read last, but in the tail
	tail *window // where a file's index is, and filters
}

var _ io.ReaderAt = (*windows)(nil)

var errNotLoaded = errors.New("these bytes are not there")

// use has a window read from until done is called.
func (w *windows) use(one *window) (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.using(one)
}

func (w *windows) using(one *window) (done func()) {
	w.used = append(w.used, one)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		i := slices.Index(w.used, one)
		w.used = slices.Delete(w.used, i, i+1)
	}
}

// keep keeps one window, instead of the one before.
func (w *windows) keep(one *window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = one
}

// trim lets go of most of the tail if something in front of its end was read.
func (w *windows) trim(from int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tail == nil {
		return
	}
	if cut := w.tail.end() - keptBytes; from < cut {
		long := w.tail
		w.tail = &window{cut, bytes.Clone(long.data[cut-long.offset:]), true}
		if !slices.Contains(w.used, long) {
			buffers.Put(&long.data)
		}
	}
}

// forget lets go of all that is kept.
func (w *windows) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept, w.tail = nil, nil
}

// useKept is use of a window that is kept and has all of [from, to), if one does.
func (w *windows) useKept(from, to int64) (one *window, done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range []*window{w.kept, w.tail} {
		if one != nil && one.offset <= from && to <= one.end() {
			return one, w.using(one)
		}
	}
	return nil, nil
}

// ReadAt implements io.ReaderAt out of what is there.
func (w *windows) ReadAt(p []byte, offset int64) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n < len(p) {
		at := offset + int64(n)
		i := slices.IndexFunc(w.used, func(one *window) bool { return one.offset <= at && at < one.end() })
		if i < 0 {
			return n, errNotLoaded
		}
		n += copy(p[n:], w.used[i].data[at-w.used[i].offset:])
	}
	return n, nil
}
