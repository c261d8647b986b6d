package prune_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
)

// Writers, pruners and restores are at work on one bucket for weeks of simulated
// time. Every call may take a while, now and then days, fail, or lose its answer.
// A restore that has begun ends well or for want of the bucket; a backup whose writer
// was told that it exists does, until it is old; and in the end all that exists can
// be restored and nothing else is left.
func TestRaces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		race(t, rt, seed, 0, 12*time.Hour)
	})
}

// The same with four deltas for each full, of writers who do not wait for each other.
func TestDeltaRaces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		race(t, rt, seed, 4, 6*time.Hour)
	})
}

func race(t *testing.T, rt *rapid.T, seed uint64, deltas int, pause time.Duration) {
	w := &world{seed: seed, bucket: objstore.NewMemory("b"), source: newSource(seed), deltas: deltas, acked: map[string]time.Time{}}
	synctest.Test(t, func(t *testing.T) {
		w.T, w.begun = t, time.Now()
		for range 3 {
			w.actor(w.write, pause)
			w.actor(w.restore, pause)
		}
		w.actor(w.prune, pause)
		w.actor(w.prune, pause)
		w.actor(w.look(&looker{}), pause)
		w.actors.Wait()
		w.finish()
	})
	if len(w.wrong) > 0 { // only here: what fails in a bubble ends it without a word
		rt.Fatalf("seed %d: %s", w.seed, strings.Join(w.wrong, "\n"))
	}
}

const (
	span   = 12 * day
	policy = 3 * day
)

type world struct {
	*testing.T
	seed   uint64
	bucket *objstore.Memory
	source *source
	deltas int // for each full
	begun  time.Time
	actors sync.WaitGroup
	count  uint64

	mu    sync.Mutex
	acked map[string]time.Time // ids of backups, when their writers were told

	told  sync.Mutex
	wrong []string // what the test has found
}

// Errorf notes what is wrong, and when it was found.
func (w *world) Errorf(format string, args ...any) {
	w.told.Lock()
	defer w.told.Unlock()
	w.wrong = append(w.wrong, time.Since(w.begun).String()+": "+fmt.Sprintf(format, args...))
}

// actor does something again and again, through a bucket of its own that is slow and
// breaks.
func (w *world) actor(do func(ctx context.Context, bucket objstore.Bucket, rng *rand.Rand), pause time.Duration) {
	w.count++
	rng := rand.New(rand.NewPCG(w.seed, w.count))
	writes := []string{objstore.OpCreate, objstore.OpDelete}
	faulty := faults.NewSeed(w.bucket, w.seed+w.count,
		faults.Rule{Probability: 0.5, Delay: time.Minute},
		faults.Rule{Probability: 0.1, Delay: 2 * time.Hour},
		faults.Rule{Probability: 0.02, Delay: 3 * day},
		faults.Rule{Ops: writes, Probability: 0.02, Effect: faults.FailBefore},
		faults.Rule{Ops: writes, Probability: 0.02, Effect: faults.FailAfter},
	)
	w.actors.Go(func() {
		for time.Since(w.begun) < span {
			time.Sleep(time.Duration(rng.Int64N(int64(pause))))
			do(context.Background(), faulty, rng)
		}
	})
}

func (w *world) write(ctx context.Context, bucket objstore.Bucket, rng *rand.Rand) {
	w.source.write(3)
	delta := rng.IntN(1+w.deltas) > 0
	m, err := w.source.backup(ctx, bucket, delta)
	if err != nil {
		kind := events.KindOf(err)
		gone := delta && kind == events.KindNotFound // what it was to build on
		if kind != events.KindRefused && !gone && !errors.Is(err, objstore.ErrUnavailable) {
			w.Errorf("backup: %v", err)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked[m.ID] = time.Now()
}

func (w *world) prune(ctx context.Context, bucket objstore.Bucket, _ *rand.Rand) {
	_, err := prune.Run(ctx, bucket, prune.Config{Region: region, Policy: prune.Policy{Full: policy, Last: 2, Deltas: prune.Deltas{Finest: policy, TenMinutes: policy, Hours: policy}}, Software: "test"})
	if kind := events.KindOf(err); err != nil && kind != events.KindRefused && !errors.Is(err, objstore.ErrUnavailable) {
		w.Errorf("prune: %v", err)
	}
}

// restore restores any backup that exists.
func (w *world) restore(ctx context.Context, bucket objstore.Bucket, rng *rand.Rand) {
	ids, err := catalog.IDs(ctx, bucket, region)
	if err != nil || len(ids) == 0 {
		return
	}
	id := ids[rng.IntN(len(ids))]
	if rng.IntN(2) == 0 {
		id = ids[0] // the next to go
	}
	err = w.source.restored(ctx, bucket, id)
	if err != nil && events.KindOf(err) != events.KindNotFound && !errors.Is(err, objstore.ErrUnavailable) {
		w.Errorf("restore of %s: %v", id, err)
	}
	w.check(ctx)
}

// look looks whether anything is missing, which nothing ever is.
func (w *world) look(l *looker) func(context.Context, objstore.Bucket, *rand.Rand) {
	return func(ctx context.Context, bucket objstore.Bucket, _ *rand.Rand) {
		for again := true; again; again = len(l.once) > 0 {
			told, err := l.look(ctx, bucket)
			if err != nil || len(told) > 0 {
				w.Errorf("missing: %q, %v", told, err)
				return
			}
		}
	}
}

// check looks at what exists now: nothing that somebody was told of is gone before
// its time.
func (w *world) check(ctx context.Context) {
	inv, err := inventory.Read(ctx, w.bucket, region)
	if err != nil {
		w.Errorf("list: %v", err)
		return
	}
	var ids []string
	for _, b := range inv.Backups {
		if ids = append(ids, b.ID); !b.Restorable() {
			w.Errorf("backup %s exists and cannot be restored: %v", b.ID, b.Problems)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(ids) == 0 && len(w.acked) > 0 {
		w.Errorf("all %d backups are gone", len(w.acked))
		return
	}
	for id := range w.acked {
		at, _ := time.Parse("20060102T150405.000Z", id[:20])
		// An old one may go once there is a newer one, be it one whose writer was not sure of it.
		if must := time.Since(at) < policy || id > ids[len(ids)-1]; must && !slices.Contains(ids, id) {
			w.Errorf("backup %s was made and is gone after %s; there are %q", id, time.Since(at), ids)
		}
	}
}

func (w *world) finish() {
	for range 3 { // what was stuck has its turn
		time.Sleep(10 * day)
		w.source.made(w, w.bucket, false)
		if _, err := prune.Run(w.Context(), w.bucket, prune.Config{Region: region, Policy: prune.Policy{Last: 2}}); err != nil {
			w.Errorf("in the end: %v", err)
		}
	}
	ids, want := w.source.audit(w, w.bucket), 0
	for _, m := range exist(w, w.bucket) {
		want += 1 + len(slices.Collect(m.Tables()))
	}
	if n := len(data(w, w.bucket)); len(ids) != 2 || n != want {
		w.Errorf("in the end there are %d backups and %d objects: %q", len(ids), n, data(w, w.bucket))
	}
}
