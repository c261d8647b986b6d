package prune_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
)

// daily makes so many backups, a day apart.
func daily(t *testing.T, bucket objstore.Bucket, n int) (ids []string) {
	t.Helper()
	for i := range n {
		if i > 0 {
			time.Sleep(day)
		}
		ids = append(ids, made(t, bucket))
	}
	return ids
}

// What the policy says of ten daily backups.
func TestPolicy(t *testing.T) {
	for name, test := range map[string]struct {
		policy prune.Policy
		wait   time.Duration // after the newest
		kept   int
	}{
		"by age":                         {prune.Policy{Full: 4 * day}, 0, 5},
		"by number":                      {prune.Policy{Last: 3}, 0, 3},
		"the larger counts":              {prune.Policy{Full: 2 * day, Last: 7}, 0, 7},
		"not by the clock on the wall":   {prune.Policy{Full: 4 * day}, 400 * day, 5},
		"all":                            {prune.Policy{Full: 100 * day}, 0, 10},
		"nothing, and yet the newest":    {prune.Policy{}, 0, 1},
		"more than there are":            {prune.Policy{Last: 50}, 0, 10},
		"younger than a running backup?": {prune.Policy{Full: time.Hour}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := objstore.NewMemory("b")
				ids := daily(t, bucket, 10)
				time.Sleep(test.wait)
				before := data(t, bucket)
				plan, err := prune.Plan(t.Context(), bucket, prune.Config{Region: region, Policy: test.policy})
				if err != nil || !plan.DryRun || !slices.Equal(data(t, bucket), before) || len(names(t, bucket, "")) != len(before) {
					t.Errorf("the dry run changed something: %v", err)
				}
				report := run(t, bucket, test.policy)
				if got := audit(t, bucket); !slices.Equal(got, ids[10-test.kept:]) {
					t.Errorf("%d kept, want %d: %q", len(got), test.kept, got)
				}
				if n := len(data(t, bucket)); n != 3*test.kept {
					t.Errorf("%d objects are left of %d backups: %q", n, test.kept, data(t, bucket))
				}
				if len(plan.Backups) != 10 || fmt.Sprint(plan.Backups) != fmt.Sprint(report.Backups) || len(report.Deleted) != 3*(10-test.kept) {
					t.Errorf("planned %v\ndone %v\ndeleted %q", plan.Backups, report.Backups, report.Deleted)
				}
				again := run(t, bucket, test.policy)
				if len(again.Deleted) > 0 || len(names(t, bucket, format.FloorPrefix(region))) > 1 {
					t.Errorf("again: %q", again.Deleted)
				}
			})
		})
	}
}

// The newest backup is not the newest that can be restored.
func TestNeverTheLastThatCanBeRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		ids := daily(t, bucket, 6)
		for _, id := range ids[2:] {
			for _, name := range names(t, bucket, format.TablePrefix(region)+id) {
				if err := bucket.Damage(name, func(b []byte) []byte { return b[1:] }); err != nil {
					t.Fatal(err)
				}
			}
		}
		report := run(t, bucket, prune.Policy{})
		if err := restored(t.Context(), bucket, ids[1]); err != nil {
			t.Errorf("the last that can be restored: %v", err)
		}
		if left, err := catalog.IDs(t.Context(), bucket, region); err != nil || slices.Contains(left, ids[0]) || !slices.Contains(left, ids[1]) {
			t.Errorf("left: %q, %v; %+v", left, err, report.Backups)
		}
		for _, name := range names(t, bucket, format.TablePrefix(region)+ids[1]) {
			if err := bucket.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		before := data(t, bucket)
		report = run(t, bucket, prune.Policy{})
		if !slices.Equal(before, data(t, bucket)) || len(report.Deleted) > 0 {
			t.Errorf("no backup can be restored, and yet there was something to delete: %q", report.Deleted)
		}
	})
}

// drilled puts the report of a drill into a bucket, of one backup that was proved and one that was not.
func drilled(t *testing.T, bucket objstore.Bucket, proved, failed string) (object string) {
	t.Helper()
	at := time.Now().UTC().Truncate(time.Millisecond)
	d := &format.Drill{Format: format.DrillVersion, Region: region, ID: format.NewID(at, [4]byte{}), Created: at, Software: "test", Owner: "test"}
	if proved != "" {
		d.Trials = append(d.Trials, format.Trial{Aim: "newest", Backup: proved, StateTime: at, States: []events.LogState{}})
	}
	if failed != "" {
		d.Trials = append(d.Trials, format.Trial{Aim: "backup " + failed, Backup: failed, States: []events.LogState{}, Error: "it is damaged"})
	}
	if err := catalog.PublishDrill(t.Context(), bucket, d); err != nil {
		t.Fatal(err)
	}
	return format.DrillName(region, d.ID)
}

// Sizes do not tell what has changed in a table. So the newest backup that a drill has proved
// stays, with what it builds on, until a newer one is proved.
func TestNeverTheLastThatWasProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, s := objstore.NewMemory("b"), newSource(10)
		s.made(t, bucket, false)
		time.Sleep(day)
		old := s.each(t, bucket, time.Minute, 4)
		time.Sleep(time.Minute)
		drilled(t, bucket, old[1].ID, "")
		time.Sleep(time.Minute)
		drilled(t, bucket, old[3].ID, old[2].ID)
		time.Sleep(3 * day)
		newer := s.each(t, bucket, time.Minute, 2)
		for _, m := range newer {
			for tab := range m.Tables() {
				if err := bucket.Damage(tab.Name, func(b []byte) []byte { b[0] ^= 1; return b }); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Hour)
		drilled(t, bucket, "", newer[1].ID)
		time.Sleep(time.Hour)
		if err := bucket.Damage(drilled(t, bucket, newer[0].ID, ""), func(b []byte) []byte { return b[1:] }); err != nil {
			t.Fatal(err)
		}
		plan, err := prune.Plan(t.Context(), bucket, prune.Config{Region: region})
		if err != nil {
			t.Fatal(err)
		}
		report := run(t, bucket, prune.Policy{})
		if err := s.restored(t.Context(), bucket, old[3].ID); err != nil {
			t.Errorf("what was proved: %v; %+v", err, report.Backups)
		}
		if v := plan.Backups[4]; v.Backup != old[3].ID || !strings.Contains(v.Why, "drill") {
			t.Errorf("%+v", v)
		}
		for _, m := range exist(t, bucket) {
			if m.ID < newer[0].ID && !slices.Contains(old[3].Path(), m.ID) {
				t.Errorf("nothing needs %s", m.ID)
			}
		}
		time.Sleep(2 * day)
		good := s.made(t, bucket, false).ID
		time.Sleep(time.Minute)
		drilled(t, bucket, good, "")
		run(t, bucket, prune.Policy{})
		if left := s.audit(t, bucket); !slices.Equal(left, []string{good}) {
			t.Errorf("left: %q", left)
		}
	})
}

// What nobody can read may refer to anything.
func TestUnreadableManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		ids := daily(t, bucket, 5)
		name := format.ManifestName(region, ids[3])
		if err := bucket.Damage(name, func(b []byte) []byte { return b[1:] }); err != nil {
			t.Fatal(err)
		}
		before := names(t, bucket, "")
		cfg := prune.Config{Region: region}
		for what, try := range map[string]func() (*prune.Report, error){
			"plan": func() (*prune.Report, error) { return prune.Plan(t.Context(), bucket, cfg) },
			"run":  func() (*prune.Report, error) { return prune.Run(t.Context(), bucket, cfg) },
		} {
			if _, err := try(); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if !slices.Equal(before, names(t, bucket, "")) {
			t.Error("something was changed")
		}
	})
}

// Tables of a writer that died go once the floor is past them, and not before: it
// may not have died.
func TestLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		made(t, bucket)
		time.Sleep(time.Hour)
		dead := orphaned(t, bucket)
		time.Sleep(time.Hour)
		made(t, bucket)
		keepAll := prune.Policy{Full: 2000 * day}
		time.Sleep(1000 * day) // age alone does not matter
		if report := run(t, bucket, keepAll); len(report.Deleted) > 0 || len(report.Leftovers) != 1 || !report.Leftovers[0].Keep || report.Leftovers[0].Backup != dead {
			t.Errorf("too early: %+v", report)
		}
		made(t, bucket) // now there is a newer one
		report := run(t, bucket, keepAll)
		if len(report.Deleted) != 2 || len(names(t, bucket, format.TablePrefix(region)+dead)) > 0 || report.Leftovers[0].Bytes != 2*int64(len("table 0 of shard 0")) {
			t.Errorf("%+v", report)
		}
		if n := len(audit(t, bucket)); n != 3 {
			t.Errorf("%d backups", n)
		}
	})
}

// Objects of others are nobody's to delete.
func TestForeignObjectsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		ids := daily(t, bucket, 5)
		foreign := []string{"README", "us/tables/README", "us/manifests/notes.manifest", "us/tables/" + ids[0] + "/notes.txt", "eu/tables/x", "us/floors/x", "us/pins/x"}
		for _, name := range foreign {
			if err := bucket.Create(t.Context(), name, []byte("foreign")); err != nil {
				t.Fatal(err)
			}
		}
		run(t, bucket, prune.Policy{})
		left := names(t, bucket, "")
		for _, name := range foreign {
			if !slices.Contains(left, name) {
				t.Errorf("%s is gone", name)
			}
		}
	})
}

// full is as much of the manifest of a full backup as a pin needs.
func full(id string) *format.Manifest { return &format.Manifest{ID: id, Region: region} }

// A pinned backup stays until the pin is removed or ends.
func TestPins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		ids := daily(t, bucket, 5)
		unpin, err := catalog.Pin(t.Context(), bucket, full(ids[0]), "drill")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := catalog.Pin(t.Context(), bucket, full(ids[1]), "killed"); err != nil {
			t.Fatal(err)
		}
		report := run(t, bucket, prune.Policy{})
		if got := audit(t, bucket); !slices.Equal(got, []string{ids[0], ids[1], ids[4]}) || !strings.Contains(report.Backups[0].Why, "pinned by drill") {
			t.Errorf("%q, %+v", got, report.Backups)
		}
		unpin()
		run(t, bucket, prune.Policy{})
		if got := audit(t, bucket); !slices.Equal(got, []string{ids[1], ids[4]}) {
			t.Errorf("unpinned: %q", got)
		}
		time.Sleep(catalog.PinFor)
		newest := made(t, bucket) // by which it is seen how late it is
		run(t, bucket, prune.Policy{})
		if got := audit(t, bucket); !slices.Equal(got, []string{newest}) || len(names(t, bucket, format.PinPrefix(region))) > 0 {
			t.Errorf("the pin has ended: %q, %q", got, names(t, bucket, format.PinPrefix(region)))
		}
		if _, err := catalog.Pin(t.Context(), bucket, full(ids[1]), "late"); events.KindOf(err) != events.KindNotFound || len(names(t, bucket, format.PinPrefix(region))) > 0 {
			t.Errorf("pin of a backup that is gone: %v", err)
		}
	})
}

// What the store does not let go is reported, and its backup stays whole.
func TestObjectLock(t *testing.T) {
	for _, pattern := range []string{"*manifest", "*/shard-0001/*"} {
		synctest.Test(t, func(t *testing.T) {
			bucket := objstore.NewMemory("b")
			ids := daily(t, bucket, 5)
			locked := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpDelete}, Name: pattern, Effect: faults.Deny})
			report := run(t, locked, prune.Policy{})
			if len(report.Left) != 4 || !strings.Contains(report.Left[0].Error, "access refused") {
				t.Errorf("%s: left: %+v", pattern, report.Left)
			}
			if got := audit(t, bucket); !slices.Equal(got, ids[4:]) {
				t.Errorf("%s: %q", pattern, got)
			}
			if n := len(names(t, bucket, format.TablePrefix(region))); pattern == "*manifest" && n != 10 {
				t.Errorf("%d of 10 tables are left, and all manifests", n)
			}
			if report := run(t, bucket, prune.Policy{}); len(report.Left) > 0 || len(data(t, bucket)) != 3 {
				t.Errorf("%s: unlocked: %+v, %q", pattern, report, data(t, bucket))
			}
		})
	}
}

// A writer that stalls cannot publish into the past, whenever the prune comes by.
func TestStalledWriter(t *testing.T) {
	for _, test := range []struct {
		name string
		rule faults.Rule // on the writer's bucket
	}{
		{"before the manifest", faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*manifest", Delay: 10 * day}},
		{"before the floor is read", faults.Rule{Ops: []string{objstore.OpList}, Nth: 1, Delay: 10 * day}},
		{"before the floor is read again", faults.Rule{Ops: []string{objstore.OpList}, Nth: 2, Delay: 10 * day}},
		{"between tables", faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*/shard-0001/*", Delay: 10 * day}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := objstore.NewMemory("b")
				made(t, bucket)
				done := make(chan error, 1)
				go func() {
					_, err := backup(t.Context(), faults.New(bucket, test.rule))
					done <- err
				}()
				time.Sleep(3 * day)
				newest := made(t, bucket)
				run(t, bucket, prune.Policy{})
				audit(t, bucket)
				err := <-done
				ids := audit(t, bucket)
				if again := test.name == "before the floor is read again"; again != (err == nil) && events.KindOf(err) != events.KindRefused {
					t.Errorf("%v", err)
				}
				if err == nil && len(ids) != 2 || err != nil && !slices.Equal(ids, []string{newest}) {
					t.Errorf("%q exist after %v", ids, err)
				}
				run(t, bucket, prune.Policy{})
				if n := len(data(t, bucket)); n != 3*len(audit(t, bucket)) {
					t.Errorf("left: %q", data(t, bucket))
				}
				made(t, bucket) // a new one is no problem
			})
		})
	}
}

// Each write of a prune goes wrong in each way: not done, done and the answer lost,
// done much later. Whatever exists can be restored then, and the next prune comes to
// the same end.
func TestCrashMatrix(t *testing.T) {
	writes := []string{objstore.OpCreate, objstore.OpDelete}
	policy := prune.Policy{Last: 2}
	for _, effect := range []faults.Effect{faults.FailBefore, faults.FailAfter, faults.Late, faults.Conflict} {
		struck := true
		for nth := 1; struck; nth++ {
			synctest.Test(t, func(t *testing.T) {
				bucket := objstore.NewMemory("b")
				old := daily(t, bucket, 2)
				orphaned(t, bucket)
				time.Sleep(day)
				land := late(t, bucket)
				kept := daily(t, bucket, 3)[1:]
				faulty := faults.New(bucket, faults.Rule{Ops: writes, Nth: nth, Effect: effect})
				_, err := prune.Run(t.Context(), faulty, prune.Config{Region: region, Policy: policy})
				struck = len(faulty.Log()) > 0
				if struck != (err != nil) {
					t.Errorf("%s at write %d: %v", effect, nth, err)
				}
				exist := audit(t, bucket)
				if !slices.Equal(exist[len(exist)-2:], kept) {
					t.Errorf("%s at write %d: %q exist, %q are to be kept", effect, nth, exist, kept)
				}
				if effect == faults.Late && nth%2 == 0 {
					faulty.Land(t.Context())
					audit(t, bucket)
				}
				run(t, bucket, policy)
				faulty.Land(t.Context())
				land(t.Context()) // a manifest that everybody has given up
				audit(t, bucket)
				run(t, bucket, policy)
				if got := audit(t, bucket); !slices.Equal(got, kept) || len(data(t, bucket)) != 6 {
					t.Errorf("%s at write %d, in the end: %q exist, want %q without %q; %q", effect, nth, got, kept, old, data(t, bucket))
				}
			})
			if nth > 100 {
				t.Fatal("no end")
			}
		}
	}
}

// late makes a backup of which only the manifest is missing; it lands when land is
// called.
func late(t *testing.T, bucket *objstore.Memory) (land func(context.Context) []error) {
	t.Helper()
	faulty := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*manifest*", Effect: faults.Late})
	if _, err := backup(t.Context(), faulty); err == nil {
		t.Fatal("it succeeded")
	}
	return faulty.Land
}

// hooked does something just before an object is created.
type hooked struct {
	objstore.Bucket
	before func(name string)
}

func (h *hooked) Create(ctx context.Context, name string, body []byte) error {
	h.before(name)
	return h.Bucket.Create(ctx, name, body)
}

// A restore that begins while the plan is being made has its backup to the end,
// although the plan says that it goes; one that begins later is told.
func TestRestoreBeginsWhileThePlanIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		ids := daily(t, bucket, 5)
		var unpin func()
		hook := &hooked{Bucket: bucket, before: func(name string) {
			if _, isPlan := format.ParsePlanName(region, name); isPlan {
				var err error
				if unpin, err = catalog.Pin(t.Context(), bucket, full(ids[0]), "restore"); err != nil {
					t.Error(err)
				}
			}
		}}
		run(t, hook, prune.Policy{})
		if n := len(names(t, bucket, format.TablePrefix(region)+ids[0])); n != 2 {
			t.Errorf("%d of 2 tables are left", n)
		}
		if _, err := catalog.Manifest(t.Context(), bucket, region, ids[0]); err != nil {
			t.Errorf("its manifest: %v", err)
		}
		if _, err := catalog.Pin(t.Context(), bucket, full(ids[0]), "later"); events.KindOf(err) != events.KindNotFound {
			t.Errorf("a later pin: %v", err)
		}
		unpin()
		run(t, bucket, prune.Policy{})
		if n := len(data(t, bucket)); n != 3 {
			t.Errorf("%d objects are left: %q", n, data(t, bucket))
		}
	})
}

// A plan is not carried out if nothing that can be restored would be left.
func TestPlanThatLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		ids := daily(t, bucket, 5)
		dies := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpDelete}, Effect: faults.FailBefore})
		if _, err := prune.Run(t.Context(), dies, prune.Config{Region: region}); err == nil {
			t.Fatal("it did not die")
		}
		for _, name := range names(t, bucket, format.TablePrefix(region)+ids[4]) {
			if err := bucket.Damage(name, func(b []byte) []byte { return b[1:] }); err != nil {
				t.Fatal(err)
			}
		}
		before := data(t, bucket)
		if _, err := prune.Run(t.Context(), bucket, prune.Config{Region: region}); events.KindOf(err) != events.KindRefused {
			t.Error(err)
		}
		if !slices.Equal(before, data(t, bucket)) {
			t.Error("something was deleted")
		}
	})
}
