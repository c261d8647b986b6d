package pipeline_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// filmed is a bucket of whose calls pictures are taken as well: before one, when it is not
// done yet, and behind it, when its answer is lost.
type filmed struct {
	objstore.Bucket
	c *camera
}

func (f filmed) call(op, name string, do func()) {
	f.c.take("before " + op + " " + name)
	do()
	f.c.take("behind " + op + " " + name)
}

func (f filmed) Get(ctx context.Context, name string) (body io.ReadCloser, info objstore.Info, err error) {
	f.call(objstore.OpGet, name, func() { body, info, err = f.Bucket.Get(ctx, name) })
	return body, info, err
}

func (f filmed) GetRange(ctx context.Context, name string, offset, length int64) (body io.ReadCloser, err error) {
	f.call(objstore.OpGetRange, name, func() { body, err = f.Bucket.GetRange(ctx, name, offset, length) })
	return body, err
}

func (f filmed) Stat(ctx context.Context, name string) (info objstore.Info, err error) {
	f.call(objstore.OpStat, name, func() { info, err = f.Bucket.Stat(ctx, name) })
	return info, err
}

func (f filmed) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	f.c.take("before " + objstore.OpList + " " + prefix)
	return f.Bucket.ListAfter(ctx, prefix, after)
}

func (f filmed) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return f.ListAfter(ctx, prefix, "")
}

func (f filmed) Create(ctx context.Context, name string, body []byte) (err error) {
	f.call(objstore.OpCreate, name, func() { err = f.Bucket.Create(ctx, name, body) })
	return err
}

func (f filmed) Delete(ctx context.Context, name string) (err error) {
	f.call(objstore.OpDelete, name, func() { err = f.Bucket.Delete(ctx, name) })
	return err
}

// Whatever goes wrong with any call that a node makes of its bucket while it restores its
// shards, they come to the same.
func TestRestoreShardsSurvivesEveryFault(t *testing.T) {
	long(t)
	effects := []faults.Effect{faults.FailBefore, faults.FailAfter, faults.TearBody, faults.TruncateBody, faults.FlipBit}
	places := []bool{false, true}
	for _, effect := range effects {
		for _, inPlace := range places {
			t.Run(fmt.Sprintf("%s, in place %v", effect, inPlace), func(t *testing.T) { restoreShardsFaulty(t, effect, inPlace) })
		}
	}
}

func restoreShardsFaulty(t *testing.T, effect faults.Effect, inPlace bool) {
	var ops []string
	if effect >= faults.TearBody {
		ops = []string{objstore.OpGet, objstore.OpGetRange}
	}
	one(t, func(r *region) {
		if inPlace {
			r.cfg.Restore.InstantFromBytes = 0
		}
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		r.start()
		for i := range 40 {
			r.put(fmt.Sprintf("key-%02d", i), strings.Repeat("value", 100))
		}
		r.eventsFolded(40)
		r.backup()
		r.put("later", "value")
		r.eventsFolded(41)
		want := r.status()
		restore := func(rule faults.Rule) (struck []faults.Injected) {
			before := len(bucket.Log())
			bucket.SetRules(rule)
			lineages := r.restoreShards(timeline.Request{})
			r.restored(lineages)
			r.here(want)
			bucket.SetRules()
			return bucket.Log()[before:]
		}
		calls := len(restore(faults.Rule{Ops: ops})) // which waits for nothing
		struck := 0
		for nth := 1; nth <= calls; nth++ {
			struck += len(restore(faults.Rule{Ops: ops, Nth: nth, Effect: effect}))
			for _, row := range r.status().Shards {
				if row.Restoring != nil && row.Restoring.Step == api.RestoreFailed {
					t.Fatalf("call %d: %+v", nth, row.Restoring)
				}
			}
		}
		if calls < 10 || struck < calls/2 {
			t.Errorf("%d of %d calls went wrong", struck, calls)
		}
	})
}
