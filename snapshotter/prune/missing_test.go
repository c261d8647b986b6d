package prune_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// looker looks again and again whether objects are missing, as a node does between drills.
type looker struct {
	keep  time.Duration // of segments
	known verify.Known
	once  []inventory.Problem // what the last look has found
}

// look says what it has found that the look before had found too.
func (l *looker) look(ctx context.Context, bucket objstore.Bucket) (told []string, err error) {
	list, err := verify.List(ctx, bucket, region, nil)
	if err != nil {
		return nil, err
	}
	found, known, err := list.Missing(ctx, bucket, l.keep, l.known)
	if err != nil {
		return nil, err
	}
	for _, p := range found {
		if slices.ContainsFunc(l.once, func(was inventory.Problem) bool { return was.Object == p.Object }) {
			told = append(told, p.Object)
		}
	}
	l.known, l.once = known, found
	return told, nil
}

// looks is two looks.
func (l *looker) looks(t *testing.T, bucket objstore.Bucket) []string {
	t.Helper()
	if _, err := l.look(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	told, err := l.look(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	return told
}

// Whatever is missing is found by its name, whether anything refers to it or not, until it is there again; what prunes delete
// is not, whatever comes after.
func TestMissing(t *testing.T) {
	type world struct {
		bucket   *objstore.Memory
		archive  *archive
		old, new string // full backups
	}
	name := func(n int64) string { return format.SegmentName(region, 0, n) }
	tableOf := func(w *world, id string) string {
		return names(w.archive.t, w.bucket, format.TablePrefix(region)+id)[0]
	}
	for what, c := range map[string]struct {
		gone  func(w *world) []string
		named func(w *world) []string // nil: the same
		fresh bool                    // also by one who looks for the first time
	}{
		"a table":             {gone: func(w *world) []string { return []string{tableOf(w, w.old)} }, fresh: true},
		"the newest manifest": {gone: func(w *world) []string { return []string{format.ManifestName(region, w.new)} }},
		"a manifest and its tables": {gone: func(w *world) []string {
			return append(names(t, w.bucket, format.TablePrefix(region)+w.new), format.ManifestName(region, w.new))
		}, named: func(w *world) []string { return []string{format.ManifestName(region, w.new)} }},
		"an older manifest":   {gone: func(w *world) []string { return []string{format.ManifestName(region, w.old)} }},
		"a segment":           {gone: func(*world) []string { return []string{name(8)} }, fresh: true},
		"several segments":    {gone: func(*world) []string { return []string{name(9), name(10)} }, named: func(*world) []string { return []string{name(10)} }, fresh: true},
		"the newest segment":  {gone: func(*world) []string { return []string{name(12)} }},
		"the oldest segments": {gone: func(*world) []string { return []string{name(7), name(8)} }, named: func(*world) []string { return []string{name(8)} }},
		"a whole archive":     {gone: func(*world) []string { return []string{name(7), name(8), name(9), name(10), name(11), name(12)} }, named: func(*world) []string { return []string{name(12)} }},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{bucket: objstore.NewMemory("b")}
				w.archive = newArchive(t, w.bucket)
				l, policy := &looker{keep: 2 * day}, prune.Policy{Full: 3 * day, Last: 1, Segment: 2 * day}
				for range 4 { // of which two go
					for range 3 {
						time.Sleep(time.Hour)
						w.archive.append(0, 2)
						w.archive.append(1, 1)
					}
					w.old, w.new = w.new, w.archive.backup()
					time.Sleep(day)
					if told := l.looks(t, w.bucket); len(told) > 0 {
						t.Fatalf("while nothing is missing: %q", told)
					}
				}
				pruned(t, w.bucket, policy)
				if told := l.looks(t, w.bucket); len(told) > 0 || numbers(t, w.bucket, 0)[0] != 7 {
					t.Fatalf("after a prune: %q, segments %d", told, numbers(t, w.bucket, 0))
				}
				gone, bodies := c.gone(w), map[string][]byte{}
				for _, object := range gone {
					body, err := objstore.ReadAll(t.Context(), w.bucket, object, 1<<20)
					if err == nil {
						err = w.bucket.Lose(object)
					}
					if err != nil {
						t.Fatal(err)
					}
					bodies[object] = body
				}
				want := gone
				if c.named != nil {
					want = c.named(w)
				}
				for range 2 {
					if told := l.looks(t, w.bucket); !slices.Equal(told, want) {
						t.Errorf("missing: %q, want %q", told, want)
					}
				}
				if told := (&looker{keep: 2 * day}).looks(t, w.bucket); c.fresh != slices.Equal(told, want) || !c.fresh && len(told) > 0 {
					t.Errorf("by one who looks for the first time: %q", told)
				}
				for object, body := range bodies {
					if err := w.bucket.Create(t.Context(), object, body); err != nil {
						t.Fatal(err)
					}
				}
				if told := l.looks(t, w.bucket); len(told) > 0 {
					t.Errorf("all is there again: %q", told)
				}
			})
		})
	}
}

// A manifest that a delta builds on, or that the newest plan keeps, is missed by one who looks for the first time.
func TestMissingByWhatRefersToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, s := objstore.NewMemory("b"), newSource(1)
		for range 2 {
			s.each(t, bucket, 10*time.Minute, 24*6)
			time.Sleep(10 * time.Minute)
		}
		run(t, bucket, prune.Policy{Full: 30 * day, Last: 1, Deltas: prune.Deltas{Finest: time.Hour, TenMinutes: time.Hour, Hours: 7 * day}})
		plan, err := catalog.NewestPlan(t.Context(), bucket, region)
		if err != nil || plan == nil {
			t.Fatal(plan, err)
		}
		builtOn, kept := "", ""
		backups := exist(t, bucket)
		for _, m := range backups {
			isOn := slices.ContainsFunc(backups, func(other *format.Manifest) bool { return slices.Contains(other.Parents, m.ID) })
			if isOn && m.ID > plan.Below {
				builtOn = m.ID
			} else if !isOn && slices.Contains(plan.Keep, m.ID) {
				kept = m.ID
			}
		}
		var want []string
		for _, id := range []string{kept, builtOn} {
			want = append(want, format.ManifestName(region, id))
			if err := bucket.Lose(want[len(want)-1]); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(want)
		told := (&looker{}).looks(t, bucket)
		if slices.Sort(told); !slices.Equal(told, want) {
			t.Errorf("missing: %q, want %q", told, want)
		}
	})
}

// What was not kept before is not missing when more is to be kept, nor is what one has deleted by hand once a prune has gone past it.
func TestNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		a := newArchive(t, bucket)
		var ids []string
		for range 5 {
			a.append(0, 2)
			a.append(1, 2)
			ids = append(ids, a.backup())
			time.Sleep(day)
		}
		l := &looker{keep: day}
		policy := prune.Policy{Full: 30 * day, Last: 1, Segment: day}
		l.looks(t, bucket)
		pruned(t, bucket, policy)
		l.looks(t, bucket)
		l.keep = 4 * day
		if told := l.looks(t, bucket); len(told) > 0 {
			t.Errorf("more is to be kept: %q", told)
		}
		if err := bucket.Delete(t.Context(), format.ManifestName(region, ids[1])); err != nil {
			t.Fatal(err)
		}
		if told := l.looks(t, bucket); len(told) != 1 {
			t.Errorf("a manifest was deleted by hand: %q", told)
		}
		pruned(t, bucket, policy)
		if told := l.looks(t, bucket); len(told) > 0 {
			t.Errorf("a prune has gone past it: %q", told)
		}
	})
}

// A backup of a shard that has begun anew and holds less than where the archive begins does not make missing what had gone before it was made;
// what goes with it is.
func TestNotMissingForABackupOfLittle(t *testing.T) {
	for name, made := range map[string]bool{"before it is looked at": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := objstore.NewMemory("b")
				a, l := newArchive(t, bucket), &looker{keep: 3 * day}
				policy := prune.Policy{Last: 1, Segment: 3 * day}
				look := func(when string, want ...string) {
					t.Helper()
					if told := l.looks(t, bucket); !slices.Equal(told, want) {
						t.Errorf("%s: missing %q, want %q", when, told, want)
					}
				}
				for range 10 {
					a.day()
				}
				look("all is there")
				pruned(t, bucket, policy)
				first := numbers(t, bucket, 0)[0]
				if first < 3 {
					t.Fatalf("the archive begins with segment %d", first)
				}
				if made {
					look("pruned")
				}
				there := a.at[0]
				a.at[0] = 1
				time.Sleep(time.Hour)
				a.backup()
				look("a backup of little")
				a.at[0] = there
				a.day()
				look("a day later")
				gone := format.SegmentName(region, 0, first)
				if err := bucket.Lose(gone); err != nil {
					t.Fatal(err)
				}
				look("it is lost", gone)
			})
		})
	}
}

// An archiver, backups, prunes and somebody who looks are at work for weeks, with calls that take hours and deletes
// that fail: nothing is ever told as missing.
func TestMissingRaces(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			memory := objstore.NewMemory("b")
			a, rng := newArchive(t, memory), rand.New(rand.NewPCG(seed, 1))
			var actors sync.WaitGroup
			until := time.Now().Add(15 * day)
			actor := func(n uint64, pause time.Duration, do func(bucket objstore.Bucket)) {
				bucket := faults.NewSeed(memory, seed+n,
					faults.Rule{Probability: 0.5, Delay: time.Minute},
					faults.Rule{Probability: 0.05, Delay: 3 * time.Hour},
					faults.Rule{Ops: []string{objstore.OpCreate, objstore.OpDelete}, Probability: 0.05, Effect: faults.FailBefore},
				)
				rng := rand.New(rand.NewPCG(seed, n))
				actors.Go(func() {
					for time.Now().Before(until) {
						time.Sleep(time.Duration(rng.Int64N(int64(pause))))
						do(bucket)
					}
				})
			}
			for n := range uint64(2) {
				actor(n, 12*time.Hour, func(bucket objstore.Bucket) {
					_, err := prune.Run(t.Context(), bucket, prune.Config{Region: region, Policy: prune.Policy{Full: 3 * day, Last: 2, Segment: day}})
					if err != nil && events.KindOf(err) != events.KindRefused && !errors.Is(err, objstore.ErrUnavailable) {
						t.Error(err)
					}
				})
				l, looks := &looker{keep: day}, 0
				actor(10+n, 8*time.Hour, func(bucket objstore.Bucket) {
					for again := true; again; again = len(l.once) > 0 && looks < 1000 {
						told, err := l.look(t.Context(), bucket)
						if looks++; err != nil || len(told) > 0 {
							t.Errorf("seed %d: %q, %v", seed, told, err)
							return
						}
					}
				})
			}
			for time.Now().Before(until) {
				a.append(int32(rng.IntN(2)), 1+rng.IntN(3))
				if rng.IntN(20) == 0 {
					a.backup()
				}
				time.Sleep(time.Duration(rng.Int64N(int64(time.Hour))))
			}
			actors.Wait()
		})
	}
}
