package sim

import (
	"context"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// Last says what becomes of the call of a bucket at which a process dies.
type Last int

// What becomes of it.
const (
	Undone Last = iota // nothing of it is done
	Done               // all of it is, and the process does not hear of that
	Torn               // of an object that it makes the beginning is stored, as no store may do
)

// mortalBucket is a process's way to its region's bucket. The process may die at one of its calls,
// and nothing comes there from one that is dead.
type mortalBucket struct {
	objstore.Bucket
	region *Region
	passes func(context.Context) error // waits until a call passes
	died   func()                      // told once the last call is done

	mu    sync.Mutex
	calls int // until it dies; 0: it does not
	last  Last
	dead  bool
}

// dieAt has the process die at one of its next calls, the first being 1; 0: at none.
func (b *mortalBucket) dieAt(call int, last Last) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls, b.last = call, last
}

func (b *mortalBucket) isDead() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dead
}

// burn counts a call.
func (b *mortalBucket) burn() (last Last, dies bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return 0, false, errDead
	}
	if b.calls == 0 {
		return 0, false, nil
	}
	b.calls--
	b.dead = b.calls == 0
	return b.last, b.dead, nil
}

// call makes a call if the process lives, and has it die of that if it is to. Of a call that makes an
// object tear makes the beginning.
func (b *mortalBucket) call(ctx context.Context, do, tear func() error) error {
	if err := b.passes(ctx); err != nil {
		return err
	}
	last, dies, err := b.burn()
	switch {
	case err != nil:
		return err
	case !dies:
		return do()
	case last == Torn && tear != nil:
		_ = tear()
	case last != Undone:
		_ = do()
	}
	b.died()
	return errDead
}

func (b *mortalBucket) Create(ctx context.Context, name string, body []byte) error {
	return b.call(ctx, func() error { return b.Bucket.Create(ctx, name, body) }, func() error {
		err := b.Bucket.Create(ctx, name, body[:len(body)/2])
		if err == nil { // or there is the whole of it already
			b.region.torn.Store(&name)
		}
		return err
	})
}

func (b *mortalBucket) Delete(ctx context.Context, name string) error {
	return b.call(ctx, func() error { return b.Bucket.Delete(ctx, name) }, nil)
}

// DeleteAll may end anywhere in between, as a request does that is cut.
func (b *mortalBucket) DeleteAll(ctx context.Context, names []string) []error {
	errs := make([]error, len(names))
	for i, name := range names {
		errs[i] = b.Delete(ctx, name)
	}
	return errs
}

func (b *mortalBucket) Get(ctx context.Context, name string) (body io.ReadCloser, info objstore.Info, err error) {
	err = b.call(ctx, func() (err error) { body, info, err = b.Bucket.Get(ctx, name); return err }, nil)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	return body, info, nil
}

func (b *mortalBucket) GetRange(ctx context.Context, name string, offset, length int64) (body io.ReadCloser, err error) {
	err = b.call(ctx, func() (err error) { body, err = b.Bucket.GetRange(ctx, name, offset, length); return err }, nil)
	if err != nil {
		return nil, err
	}
	return body, nil
}

func (b *mortalBucket) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return b.list(ctx, b.Bucket.List(ctx, prefix))
}

func (b *mortalBucket) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return b.list(ctx, b.Bucket.ListAfter(ctx, prefix, after))
}

func (b *mortalBucket) list(ctx context.Context, all iter.Seq2[objstore.Info, error]) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		if err := b.call(ctx, func() error { return nil }, nil); err != nil {
			yield(objstore.Info{}, err)
			return
		}
		all(yield)
	}
}

// DieAt has the node's process die at one of its next calls of the bucket, the first being 1; 0: at
// none. Died tells whether it has.
func (n *Node) DieAt(call int, last Last) { n.card.way.dieAt(call, last) }

// Died says whether the node's process has died of a call of the bucket. It is to be killed then, as
// one that lives.
func (n *Node) Died() bool { return n.Up() && n.card.way.isDead() }

// Mended takes away what was torn, as a person does who is told of it, and says what that was; empty:
// nothing was. A segment may also be left until the archive has gone on behind it.
func (r *Region) Mended() string {
	name := r.torn.Swap(nil)
	if name == nil {
		return ""
	}
	shard, isSegment := format.ParseShardOfSegment(r.Name, *name)
	if isSegment && r.world.Rand.IntN(2) == 0 {
		for range 200 {
			if _, err := segment.Newest(context.Background(), r.Bucket, r.Name, shard); err == nil {
				return *name
			}
			time.Sleep(time.Second)
		}
	}
	if err := r.Bucket.Lose(*name); err != nil {
		r.world.t.Errorf("%s: %v", r.Name, err)
	}
	return *name
}
