package prune_test

import (
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

// A store that breaks its word leaves the beginning of a floor. Nothing is published then and
// nothing deleted, and it is said because of which object; what exists can be restored. Once
// somebody has deleted it all goes on.
func TestTornFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		ids := daily(t, bucket, 5)
		torn := tornBy(t, bucket, format.FloorPrefix(region))
		_, err := backup(t.Context(), bucket)
		wantDamaged(t, "a backup", err, torn)
		if got := audit(t, bucket); !slices.Equal(got, ids) {
			t.Errorf("left: %q", got)
		}
		goesOn(t, bucket, torn)
	})
}

// Of a plan as of a floor; and nobody knows any more which backups exist.
func TestTornPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		daily(t, bucket, 5)
		torn := tornBy(t, bucket, format.PlanPrefix(region))
		_, err := catalog.IDs(t.Context(), bucket, region)
		wantDamaged(t, "the list", err, torn)
		_, err = prune.Plan(t.Context(), bucket, prune.Config{Region: region})
		wantDamaged(t, "a dry run", err, torn)
		goesOn(t, bucket, torn)
	})
}

// tornBy has a prune tear the first object below a prefix, and returns its name.
func tornBy(t *testing.T, bucket *objstore.Memory, prefix string) (torn string) {
	t.Helper()
	before := data(t, bucket)
	tears := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpCreate}, Name: prefix + "*", Effect: faults.Torn})
	if _, err := prune.Run(t.Context(), tears, prune.Config{Region: region}); err == nil {
		t.Error("it says that all went well")
	}
	found := names(t, bucket, prefix)
	if len(found) != 1 {
		t.Fatalf("%q", found)
	}
	for range 2 {
		_, err := prune.Run(t.Context(), bucket, prune.Config{Region: region})
		wantDamaged(t, "the next prune", err, found[0])
	}
	if after := data(t, bucket); !slices.Equal(after, before) {
		t.Errorf("%d of %d objects are left", len(after), len(before))
	}
	return found[0]
}

func wantDamaged(t *testing.T, what string, err error, object string) {
	t.Helper()
	if events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), object) {
		t.Errorf("%s: %v, want that %s is damaged", what, err, object)
	}
}

// goesOn deletes an object by hand; then backups are made and pruned as ever.
func goesOn(t *testing.T, bucket *objstore.Memory, torn string) {
	t.Helper()
	if err := bucket.Lose(torn); err != nil {
		t.Fatal(err)
	}
	time.Sleep(day)
	newest := made(t, bucket)
	for range 2 { // the first carries on what was broken off
		run(t, bucket, prune.Policy{})
	}
	if got := audit(t, bucket); !slices.Equal(got, []string{newest}) || len(data(t, bucket)) != 3 {
		t.Errorf("in the end: %q; %q", got, data(t, bucket))
	}
}

// A manifest that was torn stops prunes, and no backups; deleted by hand, it was never there.
func TestTornManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("b")
		daily(t, bucket, 3)
		time.Sleep(day)
		tears := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*manifest", Effect: faults.Torn})
		if m, err := backup(t.Context(), tears); err == nil {
			t.Errorf("%s was made", m.ID)
		}
		torn := names(t, bucket, format.ManifestPrefix(region))[3]
		time.Sleep(day)
		made(t, bucket)
		_, err := prune.Run(t.Context(), bucket, prune.Config{Region: region})
		if events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), torn) {
			t.Errorf("%v, want that %s is to be deleted", err, torn)
		}
		goesOn(t, bucket, torn)
	})
}
