package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// camera takes a picture of a disk, as a crash would leave it, before some of the
// operations on it.
type camera struct {
	fs  *vfs.MemFS
	rng *rand.Rand
	one int // of so many operations

	// whole: what was not synced is kept or lost as a whole. A database that is being opened asks
	// for that: Pebble's mark of its newest manifest is made before the directory is synced.
	whole bool

	mu       sync.Mutex
	ops      int
	pictures []*vfs.MemFS
	at       []string // before which operation
	synced   []bool   // nothing that was not synced is in it
}

func (c *camera) MaybeError(op errorfs.Op) error {
	c.take(fmt.Sprint(op.Kind, " ", op.Path))
	return nil
}

// take takes a picture, perhaps.
func (c *camera) take(at string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ops++; c.rng.IntN(c.one) == 0 {
		kept := 25 * c.rng.IntN(5)
		if c.whole {
			kept = 100 * c.rng.IntN(2)
		}
		c.pictures = append(c.pictures, c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: c.rng}))
		c.at, c.synced = append(c.at, at), append(c.synced, kept == 0)
	}
}

func (c *camera) String() string { return "camera" }

// film is the disk of a camera, of which no picture is taken while MemFS locks or links a
// file: for that it takes its mutexes in another order, or one twice, and with a
// picture in between they would wait for ever.
type film struct {
	*vfs.MemFS
	c *camera
}

func (f film) Lock(name string) (io.Closer, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.MemFS.Lock(name)
}

func (f film) Link(oldname, newname string) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.MemFS.Link(oldname, newname)
}

// A restore that is killed at any operation on its disk goes on when it is asked for
// again, and comes to the same.
func TestRestoreKilledAnywhere(t *testing.T) {
	t.Parallel()
	seeds, resumed, fresh, over := uint64(4), 0, 0, 0
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			p := some(t)
			defer p.close()
			fs := vfs.NewCrashableMem()
			c := &camera{fs: fs, rng: rand.New(rand.NewPCG(seed, 1)), one: 12}
			target := timeline.Target{Time: second(int(100 + 60*(seed%6)))}
			job := p.job(errorfs.Wrap(film{fs, c}, c), target)
			want, err := pipeline.Restore(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.pictures) < 10 {
				t.Fatalf("%d pictures of %d operations", len(c.pictures), c.ops)
			}
			for i, picture := range c.pictures {
				again := p.job(picture, target)
				got, err := pipeline.Restore(t.Context(), again)
				if events.KindOf(err) == events.KindRefused && strings.Contains(err.Error(), "not empty") {
					// It was over, and only what it had noted was left.
					got, err = pipeline.ProveRestored(picture, again.Dir)
				}
				if err != nil {
					t.Fatalf("picture %d, %s: %v", i, c.at[i], err)
				}
				if got.Vector.Compare(want.Vector) != events.Equal || got.Digest != want.Digest {
					t.Fatalf("picture %d: %s with %s, want %s with %s", i, got.Vector, got.Digest, want.Vector, want.Digest)
				}
				if err := p.is(picture, again.Dir, want.Vector); err != nil {
					t.Fatalf("picture %d: %v", i, err)
				}
				if _, err := pipeline.ProveRestored(picture, again.Dir); err != nil {
					t.Fatalf("picture %d: %v", i, err)
				}
				if names, err := picture.List("/restored"); err != nil || len(names) != 1 {
					ls, _ := picture.List("/restored/state.restoring")
					t.Fatalf("picture %d, %s: there is %v (%v), %v", i, c.at[i], names, ls, err)
				}
				switch {
				case got.Lineage == want.Lineage && got.Resumed:
					resumed++
				case got.Lineage == want.Lineage:
					over++
				default:
					fresh++
				}
			}
		})
	}
	if resumed == 0 || fresh == 0 {
		t.Errorf("%d restores went on, %d began anew, %d were over: want some of each", resumed, fresh, over)
	}
}

// Whatever goes wrong with any call of the bucket, a restore fails or comes to the right
// state, and the same asked again comes to it.
func TestRestoreSurvivesEveryFault(t *testing.T) {
	long(t)
	effects := []faults.Effect{faults.FailBefore, faults.FailAfter, faults.TearBody, faults.TruncateBody, faults.FlipBit}
	bodies := []string{objstore.OpGet, objstore.OpGetRange}
	ops := map[faults.Effect][]string{faults.TearBody: bodies, faults.TruncateBody: bodies, faults.FlipBit: bodies}
	for _, effect := range effects {
		t.Run(effect.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := some(t)
				defer p.close()
				struck, failed := 0, 0
				for nth := 1; ; nth++ {
					bucket := faults.New(p.bucket, faults.Rule{Ops: ops[effect], Nth: nth, Effect: effect})
					fs := vfs.NewMem()
					job := p.job(fs, timeline.Target{})
					job.Bucket, job.Keep = bucket, true
					got, err := pipeline.Restore(t.Context(), job)
					if len(bucket.Log()) == 0 {
						break // there are no more calls
					}
					struck++
					if err != nil {
						failed++
						if names, err := fs.List(job.Dir); err == nil && len(names) > 0 {
							t.Fatalf("call %d: it failed, and there is %v", nth, names)
						}
						bucket.SetRules()
						if got, err = pipeline.Restore(t.Context(), job); err != nil {
							t.Fatalf("call %d, again: %v", nth, err)
						}
					}
					if err := p.is(fs, job.Dir, got.Vector); err != nil {
						t.Fatalf("call %d: %v", nth, err)
					}
				}
				if struck < 30 || failed == struck {
					t.Errorf("%d faults, of which %d were felt", struck, failed)
				}
			})
		})
	}
}

// stopAfter ends a restore once some of its objects were fetched.
func stopAfter(ctx context.Context, job *pipeline.RestoreJob, objects int) context.Context {
	ctx, stop := context.WithCancel(ctx)
	job.Fetched = func(int64) {
		if objects--; objects == 0 {
			stop()
		}
	}
	return ctx
}

// What was proved of a shard is not fetched again; another target is refused, unless what
// was done is to be forgotten.
func TestRestoreGoesOn(t *testing.T) {
	p := some(t)
	defer p.close()
	fs := vfs.NewMem()
	job := p.job(fs, timeline.Target{})
	job.Request.Shards = []int32{0} // one at a time, so that it is known what was done
	job.Keep = true
	var mu sync.Mutex
	tables, segments := 0, 0
	job.Bucket = watched{p.bucket, func(name string) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.Contains(name, "/tables/"):
			tables++
		case strings.Contains(name, "/segments/"):
			segments++
		}
	}}
	ctx := stopAfter(t.Context(), &job, 4)
	if _, err := pipeline.Restore(ctx, job); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	fetched := tables

	other := job
	other.Request.Target = timeline.Target{Time: second(200)}
	_, err := pipeline.Restore(t.Context(), other)
	wantKind(t, err, events.KindRefused, "/restored/state.restoring", "the newest", "--anew")

	tables, segments = 0, 0
	job.Fetched = nil
	got, err := pipeline.Restore(t.Context(), job)
	if err != nil || !got.Resumed {
		t.Fatalf("%+v, %v", got, err)
	}
	if fetched == 0 || tables > 0 || segments > 9 {
		t.Errorf("%d tables and %d segments were fetched again", tables, segments)
	}
	if err := fs.RemoveAll("/restored"); err != nil {
		t.Fatal(err)
	}
	ctx = stopAfter(t.Context(), &job, 4)
	if _, err := pipeline.Restore(ctx, job); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	other.Anew, other.Fetched = true, nil
	if got, err := pipeline.Restore(t.Context(), other); err != nil || got.Resumed {
		t.Errorf("%+v, %v", got, err)
	}
}

// watched is a bucket whose whole objects are read in sight of somebody.
type watched struct {
	objstore.Bucket
	saw func(name string)
}

func (w watched) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	w.saw(name)
	return w.Bucket.Get(ctx, name)
}
