package prune_test

import (
	"context"
	"flag"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
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
)

// keepDeltas is the default of the configuration.
var keepDeltas = prune.Policy{Full: 30 * day, Last: 3, Deltas: prune.Deltas{Finest: day, TenMinutes: 2 * day, Hours: 7 * day}}

// What a chain needs is kept as long as the chain is, and nothing else.
func TestDeltasGoByTheirTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, s := objstore.NewMemory("b"), newSource(1)
		time.Sleep(time.Until(time.Now().Truncate(day).Add(day)))
		for range 3 { // a full at midnight, and deltas every five minutes
			s.each(t, bucket, 5*time.Minute, 24*12)
			time.Sleep(5 * time.Minute)
		}
		report := run(t, bucket, prune.Policy{Last: 1, Deltas: prune.Deltas{Finest: day, TenMinutes: day, Hours: 2 * day}})
		if !slices.ContainsFunc(report.Backups, func(v prune.Verdict) bool { return strings.Contains(v.Why, "builds on it") }) {
			t.Error("nothing is kept for what builds on it")
		}
		s.audit(t, bucket)
		for _, m := range exist(t, bucket) {
			age := time.Since(m.Created)
			if tier := catalog.Tier(m); m.Kind == format.Delta && (age > 2*day+time.Hour || age > day+time.Hour && tier < time.Hour) {
				t.Errorf("delta %s of tier %s is still there after %s", m.ID, tier, age)
			}
			if m.Kind == format.Full && age > 2*day+day {
				t.Errorf("nothing needs %s", m.ID)
			}
			if n := len(m.Parents); n > 1+23+5+1 {
				t.Errorf("%s builds on %d backups", m.ID, n)
			}
		}
	})
}

// Deltas do not count among the last backups: without their full they are nothing.
func TestOnlyFullsCountAsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, s := objstore.NewMemory("b"), newSource(2)
		var fulls []string
		for range 4 {
			fulls = append(fulls, s.each(t, bucket, time.Hour, 5)[0].ID)
			time.Sleep(2 * day)
		}
		run(t, bucket, prune.Policy{Last: 3})
		left := s.audit(t, bucket)
		for i, id := range fulls {
			if slices.Contains(left, id) != (i > 0) {
				t.Errorf("full %d of 4: kept: %t", i+1, slices.Contains(left, id))
			}
		}
		if newest := exist(t, bucket); newest[len(newest)-1].Kind != format.Delta {
			t.Errorf("the newest, which is a delta, is gone: %q", left)
		}
	})
}

// A delta whose parent is damaged cannot be restored either, which is told of it; what
// can be restored is kept.
func TestDamagedParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, s := objstore.NewMemory("b"), newSource(3)
		old := s.each(t, bucket, time.Minute, 4)
		time.Sleep(3 * day)
		made := s.each(t, bucket, time.Minute, 6)
		var table string
		for tab := range made[2].Tables() {
			table = tab.Name
		}
		if err := bucket.Delete(t.Context(), table); err != nil {
			t.Fatal(err)
		}
		inv, err := inventory.Read(t.Context(), bucket, region)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range inv.Backups[4:] {
			// They are a minute apart, in the same ten minutes or not.
			if want := !slices.Contains(made[i].Path(), made[2].ID); b.Restorable() != want {
				t.Errorf("backup %d: restorable: %t, %+v", i, b.Restorable(), b.Problems)
			}
		}
		run(t, bucket, prune.Policy{})
		if newest := inv.Newest(); newest == nil || s.restored(t.Context(), bucket, newest.ID) != nil {
			t.Errorf("what could be restored is gone: %+v", newest)
		}
		if ids := exist(t, bucket); slices.ContainsFunc(ids, func(m *format.Manifest) bool { return m.ID == old[0].ID }) {
			t.Error("older ones are still there")
		}
		if err := bucket.Delete(t.Context(), format.ManifestName(region, made[0].ID)); err != nil {
			t.Fatal(err)
		}
		chain, err := catalog.LoadChain(t.Context(), bucket, made[1])
		if events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), format.ManifestName(region, made[0].ID)) {
			t.Errorf("%v, %v", chain, err)
		}
	})
}

// A pin of a delta keeps all that it builds on.
func TestPinKeepsTheChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, s := objstore.NewMemory("b"), newSource(4)
		made := s.each(t, bucket, time.Minute, 5)
		time.Sleep(2 * day)
		s.each(t, bucket, time.Minute, 2)
		unpin, err := catalog.Pin(t.Context(), bucket, made[3], "drill")
		if err != nil {
			t.Fatal(err)
		}
		run(t, bucket, prune.Policy{})
		if err := s.restored(t.Context(), bucket, made[3].ID); err != nil {
			t.Error(err)
		}
		if _, err := catalog.Load(t.Context(), bucket, region, made[4].ID); events.KindOf(err) != events.KindNotFound && !slices.Contains(made[3].Path(), made[4].ID) {
			t.Errorf("what nobody has pinned: %v", err)
		}
		unpin()
		run(t, bucket, prune.Policy{})
		if err := s.restored(t.Context(), bucket, made[3].ID); events.KindOf(err) != events.KindNotFound {
			t.Errorf("unpinned: %v", err)
		}
		s.audit(t, bucket)
	})
}

// A delta is published while its parent is pruned, the prune coming at every step of
// the publisher. Whatever exists can be restored; a publisher who is told that the delta
// exists is told the truth.
func TestParentIsPrunedMeanwhile(t *testing.T) {
	acked, refused := 0, 0
	for step := 1; ; step++ {
		done := false
		synctest.Test(t, func(t *testing.T) {
			bucket, s := objstore.NewMemory("b"), newSource(5)
			parent := s.each(t, bucket, time.Minute, 1)[0]
			s.write(3)
			// The delta is slow: while it hangs at one step, a newer full is made, and old
			// backups are pruned.
			hangs := &hanging{Bucket: bucket, meanwhile: func() {
				time.Sleep(2 * day)
				s.made(t, bucket, false)
				run(t, bucket, prune.Policy{})
				s.audit(t, bucket)
				time.Sleep(time.Minute)
			}}
			hangs.at.Store(int64(step))
			m, err := s.backup(t.Context(), hangs, true)
			if done = hangs.at.Load() > 0; done {
				return // there are fewer steps
			}
			left := s.audit(t, bucket)
			switch {
			case err == nil && !slices.Contains(left, m.ID):
				t.Errorf("step %d: the delta on %s was acknowledged and does not exist", step, parent.ID)
			case err == nil:
				acked++
			case events.KindOf(err) == events.KindRefused || events.KindOf(err) == events.KindNotFound:
				refused++
			default:
				t.Errorf("step %d: %v", step, err)
			}
			// What came too late goes in the end.
			for range 2 {
				time.Sleep(2 * day)
				s.made(t, bucket, false)
				run(t, bucket, prune.Policy{})
			}
			if left := s.audit(t, bucket); len(left) != 1 || len(names(t, bucket, format.ManifestPrefix(region))) != 1 {
				t.Errorf("step %d: left: %q", step, names(t, bucket, format.ManifestPrefix(region)))
			}
			for _, name := range names(t, bucket, format.TablePrefix(region)) {
				if id, _ := format.ParseTableName(region, name); id != s.newest(t, bucket) {
					t.Errorf("step %d: left: %s", step, name)
				}
			}
		})
		if done {
			break
		}
	}
	if refused == 0 || acked == 0 {
		t.Errorf("%d acknowledged, %d refused: not all was tried", acked, refused)
	}
}

func (s *source) newest(t *testing.T, bucket objstore.Reader) string {
	t.Helper()
	m, err := catalog.Newest(t.Context(), bucket, region)
	if err != nil {
		t.Fatal(err)
	}
	return m.ID
}

// hanging does something before the nth call.
type hanging struct {
	objstore.Bucket
	at        atomic.Int64
	meanwhile func()
}

func (h *hanging) step() {
	if h.at.Add(-1) == 0 {
		h.meanwhile()
	}
}

func (h *hanging) Create(ctx context.Context, name string, body []byte) error {
	h.step()
	return h.Bucket.Create(ctx, name, body)
}

func (h *hanging) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	h.step()
	return h.Bucket.List(ctx, prefix)
}

func (h *hanging) Get(ctx context.Context, name string) (io.ReadCloser, objstore.Info, error) {
	h.step()
	return h.Bucket.Get(ctx, name)
}

// Each write of a delta, and each of a prune of deltas, goes wrong in each way. Whatever
// exists can be restored, and the next ones go on.
func TestDeltaCrashMatrix(t *testing.T) {
	writes := []string{objstore.OpCreate, objstore.OpDelete}
	for _, effect := range []faults.Effect{faults.FailBefore, faults.FailAfter, faults.Late, faults.Conflict} {
		struck := true
		for nth := 1; struck; nth++ {
			synctest.Test(t, func(t *testing.T) {
				bucket, s := objstore.NewMemory("b"), newSource(uint64(nth))
				s.each(t, bucket, 4*time.Minute, 4)
				time.Sleep(2 * day)
				s.each(t, bucket, 4*time.Minute, 4)
				time.Sleep(time.Minute)
				s.write(3)
				faulty := faults.New(bucket, faults.Rule{Ops: writes, Nth: nth, Effect: effect})
				policy := prune.Policy{Last: 1}
				_, err := s.backup(t.Context(), faulty, true)
				if err == nil {
					_, err = prune.Run(t.Context(), faulty, prune.Config{Region: region, Policy: policy})
				}
				struck = len(faulty.Log()) > 0
				if struck != (err != nil) {
					t.Errorf("%s at write %d: %v", effect, nth, err)
				}
				s.audit(t, bucket)
				time.Sleep(time.Minute)
				s.write(3)
				s.made(t, bucket, true)
				run(t, bucket, policy)
				s.audit(t, bucket)
				faulty.Land(t.Context())
				s.audit(t, bucket)
				time.Sleep(2 * day)
				s.made(t, bucket, false)
				run(t, bucket, policy)
				if left := s.audit(t, bucket); len(left) != 1 || len(names(t, bucket, format.ManifestPrefix(region))) != 1 {
					t.Errorf("%s at write %d, in the end: %q", effect, nth, names(t, bucket, ""))
				}
			})
			if nth > 200 {
				t.Fatal("no end")
			}
		}
	}
}

var simulatedDays = flag.Int("days", 3, "simulated days of TestEveryMinute; 1 with -short")

// A delta each minute for days, a full and a prune each day: the bucket, the chains and
// what a delta costs stay bounded, and whatever exists can be restored.
func TestEveryMinute(t *testing.T) {
	days := *simulatedDays
	if testing.Short() {
		days = 1
	}
	synctest.Test(t, func(t *testing.T) {
		memory, s := objstore.NewMemory("b"), newSource(6)
		bucket := &hanging{Bucket: memory} // counts calls backwards
		time.Sleep(time.Until(time.Now().Truncate(day).Add(day)))
		most := 0
		for d := range days {
			for minute := range 24 * 60 {
				s.write(3)
				bucket.at.Store(0)
				m := s.made(t, bucket, minute > 0)
				if calls := -bucket.at.Load(); calls > 24 {
					t.Fatalf("day %d, minute %d: %d calls of the bucket for one delta", d, minute, calls)
				}
				if n := len(m.Parents); n > 1+23+5+9 {
					t.Fatalf("day %d, minute %d: the delta builds on %d backups", d, minute, n)
				}
				time.Sleep(time.Minute)
			}
			run(t, memory, keepDeltas)
			most = max(most, len(names(t, memory, "")))
			backups := exist(t, memory)
			for i := s.rng.IntN(20); i < len(backups); i += 1 + s.rng.IntN(40) {
				if err := s.restored(t.Context(), memory, backups[i].ID); err != nil {
					t.Fatalf("day %d: %s %s: %v", d, backups[i].Kind, backups[i].ID, err)
				}
			}
			t.Logf("day %d: %d backups, at most %d objects", d, len(backups), most)
		}
		// A day and some of minutes, two of ten minutes, seven of hours, fulls; each with
		// its manifest and at most two tables of each shard; floors and plans.
		if bound := (26*60 + 26*6 + 6*24 + 41) * 5; most > bound {
			t.Errorf("%d objects, want at most %d", most, bound)
		}
		for _, violation := range memory.Violations() {
			t.Errorf("the bucket's contract was broken: %s", violation)
		}
	})
}
