package backupbench

import (
	"context"
	"io"
	"iter"
	"sync/atomic"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// countingBucket counts requests. (A creation is two: the store is asked afterwards what
// it holds.)
type countingBucket struct {
	objstore.Bucket
	requests, stored atomic.Int64
}

func (b *countingBucket) Create(ctx context.Context, name string, body []byte) error {
	b.requests.Add(2)
	b.stored.Add(int64(len(body)))
	return b.Bucket.Create(ctx, name, body)
}

func (b *countingBucket) Stat(ctx context.Context, name string) (objstore.Info, error) {
	b.requests.Add(1)
	return b.Bucket.Stat(ctx, name)
}

func (b *countingBucket) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	b.requests.Add(1)
	return b.Bucket.Get(ctx, name)
}

func (b *countingBucket) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	b.requests.Add(1)
	return b.Bucket.GetRange(ctx, name, offset, length)
}

func (b *countingBucket) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	b.requests.Add(1)
	return b.Bucket.List(ctx, prefix)
}

func (b *countingBucket) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	b.requests.Add(1)
	return b.Bucket.ListAfter(ctx, prefix, after)
}
