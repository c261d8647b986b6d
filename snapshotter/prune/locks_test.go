package prune_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
)

// markers is a bucket that keeps versions: it lets anything be deleted, and hides it. It
// remembers what was locked.
type markers struct {
	*objstore.Memory
	wrong []string
}

func (m *markers) Delete(ctx context.Context, name string) error {
	err := m.Memory.Delete(ctx, name)
	if errors.Is(err, objstore.ErrAccess) {
		m.wrong = append(m.wrong, name)
		err = errors.Join(m.Lock(name, objstore.Hold{}), m.Memory.Delete(ctx, name))
	}
	return err
}

func (m *markers) DeleteAll(ctx context.Context, names []string) []error {
	errs := make([]error, len(names))
	for i, name := range names {
		errs[i] = m.Delete(ctx, name)
	}
	return errs
}

// lock locks an object of a bucket.
func lock(t *testing.T, m *objstore.Memory, name string, hold objstore.Hold) {
	t.Helper()
	if err := m.Lock(name, hold); err != nil {
		t.Fatal(err)
	}
}

func until(d time.Duration) objstore.Hold {
	return objstore.Hold{Until: time.Now().Add(d), Mode: "COMPLIANCE"}
}

// One locked object keeps its backup whole, and the plan says which and until when. When its time
// is over, the backup goes.
func TestLockedBackupStaysWhole(t *testing.T) {
	for name, object := range map[string]func(bucket *objstore.Memory, id string) string{
		"manifest": func(_ *objstore.Memory, id string) string { return format.ManifestName(region, id) },
		"table": func(bucket *objstore.Memory, id string) string {
			return names(t, bucket, format.TablePrefix(region)+id)[1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := &markers{Memory: objstore.NewMemory("b")}
				ids := daily(t, bucket, 5)
				held := object(bucket.Memory, ids[1])
				hold := until(3 * day)
				lock(t, bucket.Memory, held, hold)
				cfg := prune.Config{Region: region}
				plan, err := prune.Plan(t.Context(), bucket, cfg)
				if err != nil {
					t.Fatal(err)
				}
				report := run(t, bucket, prune.Policy{})
				for what, r := range map[string]*prune.Report{"plan": plan, "report": report} {
					v := r.Backups[1]
					if !v.Keep || v.Held == nil || v.Held.Object != held || !v.Held.Until.Equal(hold.Until) || !strings.Contains(v.Why, held) || !strings.Contains(v.Why, "COMPLIANCE") {
						t.Errorf("%s: %+v", what, v)
					}
					if len(r.Held) != 1 || r.Held[0] != *v.Held || len(r.Left) > 0 || r.Backups[0].Keep || r.Backups[2].Keep {
						t.Errorf("%s: %+v", what, r)
					}
				}
				if got := audit(t, bucket.Memory); !slices.Equal(got, []string{ids[1], ids[4]}) {
					t.Errorf("left: %q", got)
				}
				time.Sleep(3*day + 2*time.Hour)
				newest := made(t, bucket) // by which it is seen how late it is
				if r := run(t, bucket, prune.Policy{Last: 2}); len(r.Held) > 0 || len(r.Deleted) != 3 {
					t.Errorf("its time is over: %+v", r)
				}
				if got := audit(t, bucket.Memory); !slices.Equal(got, []string{ids[4], newest}) || len(bucket.wrong) > 0 {
					t.Errorf("left: %q; deleted although locked: %q", got, bucket.wrong)
				}
			})
		})
	}
}

// A store that may not be asked about locks gets nothing deleted.
func TestLocksUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := objstore.NewMemory("b")
		daily(t, memory, 4)
		before := names(t, memory, "")
		for _, effect := range []faults.Effect{faults.Deny, faults.FailBefore, faults.FailAfter} {
			bucket := faults.New(memory, faults.Rule{Ops: []string{objstore.OpHolds}, Effect: effect})
			_, planned := prune.Plan(t.Context(), bucket, prune.Config{Region: region})
			_, ran := prune.Run(t.Context(), bucket, prune.Config{Region: region})
			if planned == nil || ran == nil || !strings.Contains(ran.Error(), "Object Lock") || !slices.Equal(names(t, memory, ""), before) {
				t.Errorf("%s: %v, %v", effect, planned, ran)
			}
		}
	})
}

// What is locked between the plan and the deletions stays in the bucket whole, with what it
// builds on, although the plan has given it up.
func TestLockedAfterThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, s := objstore.NewMemory("b"), newSource(8)
		old := s.each(t, memory, time.Minute, 4)
		time.Sleep(3 * day)
		s.each(t, memory, time.Minute, 2)
		_, err := prune.Run(t.Context(), faults.New(memory, faults.Rule{Ops: []string{objstore.OpDelete}, Effect: faults.FailBefore}), prune.Config{Region: region})
		if err == nil {
			t.Fatal("nothing was broken off")
		}
		delta := old[3]
		var kept []string
		for _, id := range delta.Path() {
			kept = append(kept, format.ManifestName(region, id))
			kept = append(kept, names(t, memory, format.TablePrefix(region)+id)...)
		}
		bucket := &markers{Memory: memory}
		lock(t, memory, kept[len(kept)-1], until(day))
		plan, err := prune.Plan(t.Context(), bucket, prune.Config{Region: region})
		if err != nil || slices.Contains(plan.Late, delta.ID) || len(plan.Held) != 1 {
			t.Errorf("%+v, %v", plan, err)
		}
		report := run(t, bucket, prune.Policy{})
		left := names(t, memory, "")
		for _, name := range kept {
			if !slices.Contains(left, name) {
				t.Errorf("%s is gone", name)
			}
		}
		if len(report.Held) != 1 || slices.Contains(report.Late, delta.ID) {
			t.Errorf("%+v", report)
		}
		s.audit(t, memory)
		time.Sleep(day + 2*time.Hour)
		s.made(t, memory, false)
		run(t, bucket, prune.Policy{})
		if left := names(t, memory, ""); slices.ContainsFunc(kept, func(name string) bool { return slices.Contains(left, name) }) || len(bucket.wrong) > 0 {
			t.Errorf("left: %q; deleted although locked: %q", left, bucket.wrong)
		}
	})
}

// A bucket that retains everything for longer than the policy keeps it: each goes when it may, nothing that is
// locked is ever deleted, and whatever exists can be restored.
func TestRetentionLongerThanThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, s := &markers{Memory: objstore.NewMemory("b")}, newSource(9)
		bucket.LockNew(5 * day)
		floors := 0
		for d := range 20 {
			s.each(t, bucket, time.Hour, 6)
			if d%5 == 3 {
				orphaned(t, bucket)
			}
			time.Sleep(18 * time.Hour)
			r := run(t, bucket, prune.Policy{Last: 1, Deltas: prune.Deltas{Finest: day, TenMinutes: day, Hours: day}})
			if len(r.Left) > 0 {
				t.Errorf("day %d: %+v", d, r.Left)
			}
			if n := len(names(t, bucket, format.FloorPrefix(region))); d <= 4 && n > 0 {
				t.Errorf("day %d: a floor, and nothing may be deleted", d)
			} else {
				floors = n
			}
			s.audit(t, bucket.Memory)
			for _, pin := range names(t, bucket, format.PinPrefix(region)) { // of the restores of the audit, which last
				lock(t, bucket.Memory, pin, objstore.Hold{})
				if err := bucket.Memory.Delete(t.Context(), pin); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, m := range exist(t, bucket.Memory) {
			if age := time.Since(m.Created); age > 7*day {
				t.Errorf("%s %s is %s old", m.Kind, m.ID, age)
			}
		}
		if floors == 0 || len(bucket.wrong) > 0 {
			t.Errorf("%d floors; deleted although locked: %q", floors, bucket.wrong)
		}
	})
}

// Whatever is locked, whenever: no locked object is deleted, the backups with one stay whole, and
// what exists can be restored.
func TestLocksAtRandom(t *testing.T) {
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			bucket, s, rng := &markers{Memory: objstore.NewMemory("b")}, newSource(seed), rand.New(rand.NewPCG(seed, 1))
			for range 6 {
				s.each(t, bucket, 20*time.Minute, 1+rng.IntN(8))
				for range rng.IntN(4) {
					all := names(t, bucket, "")
					hold := until(time.Duration(rng.IntN(6)) * day)
					hold.Legal = rng.IntN(5) == 0
					lock(t, bucket.Memory, all[rng.IntN(len(all))], hold)
				}
				time.Sleep(time.Duration(1+rng.IntN(40)) * time.Hour)
				owners := lockedBackups(t, bucket.Memory)
				report := run(t, bucket, prune.Policy{})
				left := s.audit(t, bucket.Memory)
				for _, id := range owners {
					if !slices.Contains(left, id) {
						t.Errorf("seed %d: %s has a locked object and is gone: %+v", seed, id, report)
					}
				}
			}
			if len(bucket.wrong) > 0 {
				t.Errorf("seed %d: deleted although locked: %q", seed, bucket.wrong)
			}
		})
	}
}

// lockedBackups are those that exist and of which something is locked.
func lockedBackups(t *testing.T, bucket *objstore.Memory) (ids []string) {
	t.Helper()
	for _, m := range exist(t, bucket) {
		objects := []string{format.ManifestName(region, m.ID)}
		for tab := range m.Tables() {
			objects = append(objects, tab.Name)
		}
		holds, err := bucket.Holds(t.Context(), objects)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(holds, func(h objstore.Hold) bool { return h.Legal || h.Until.After(time.Now()) }) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// From the first locked segment on the archive stays, without a hole; what is older goes.
func TestLockedSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := &markers{Memory: objstore.NewMemory("b")}
		a := newArchive(t, bucket)
		for range 6 {
			a.append(0, 2)
			a.append(1, 1)
		}
		a.backup()
		a.append(0, 1)
		held := format.SegmentName(region, 0, 4)
		lock(t, bucket.Memory, held, until(day))
		r := pruned(t, bucket, prune.Policy{})
		if got := numbers(t, bucket, 0); !slices.Equal(got, []int64{4, 5, 6, 7}) {
			t.Errorf("shard 0 has %d", got)
		}
		if got := numbers(t, bucket, 1); !slices.Equal(got, []int64{6}) {
			t.Errorf("shard 1 has %d", got)
		}
		if s := r.Segments[0]; s.Held == nil || s.Held.Object != held || s.Delete != 3 || s.Keep != 4 || s.From != 4 || !strings.Contains(s.Why, held) || len(r.Held) != 1 {
			t.Errorf("%+v", r)
		}
		time.Sleep(day + 2*time.Hour)
		a.backup()
		pruned(t, bucket, prune.Policy{})
		if got := numbers(t, bucket, 0); !slices.Equal(got, []int64{7}) || len(bucket.wrong) > 0 {
			t.Errorf("shard 0 has %d; deleted although locked: %q", got, bucket.wrong)
		}
	})
}

// asked counts the objects that are asked about.
type asked struct {
	*objstore.Memory
	objects, calls int
}

func (a *asked) Holds(ctx context.Context, names []string) ([]objstore.Hold, error) {
	a.calls++
	a.objects += len(names)
	return a.Memory.Holds(ctx, names)
}

// It is asked about what is to go, once each, and not about what stays.
func TestLocksAreAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := &asked{Memory: objstore.NewMemory("b")}
		daily(t, bucket, 30)
		report := run(t, bucket, prune.Policy{Last: 20})
		if bucket.objects != len(report.Deleted) || bucket.objects != 3*10 || bucket.calls > 12 {
			t.Errorf("asked %d times about %d objects, deleted %d", bucket.calls, bucket.objects, len(report.Deleted))
		}
		again := *bucket
		run(t, bucket, prune.Policy{Last: 20})
		if bucket.objects != again.objects {
			t.Errorf("asked about %d objects, and nothing is to go", bucket.objects-again.objects)
		}
		// What is retained is told by one object of each backup.
		bucket.LockNew(100 * day)
		ids := daily(t, bucket, 21)
		bucket.objects = 0
		run(t, bucket, prune.Policy{Last: 1})
		if want := 3*20 + len(ids) - 1; bucket.objects != want {
			t.Errorf("asked about %d objects, want %d", bucket.objects, want)
		}
	})
}
