package prune_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// reading has the oldest backup read for three times as long as a pin holds, while a
// backup is made and others are pruned each day, and tells on which day it was gone; 0: it
// never was.
func reading(t *testing.T, bucket *faults.Bucket, memory *objstore.Memory, begun func()) (gone int) {
	t.Helper()
	id := daily(t, memory, 4)[0]
	m, err := catalog.Load(t.Context(), memory, region, id)
	if err != nil {
		t.Fatal(err)
	}
	days := int(3 * catalog.PinFor / day)
	pinned, err := restore.Source{Bucket: bucket}.Pinned(t.Context(), m, func() error {
		begun()
		for n := range days {
			time.Sleep(day)
			made(t, memory)
			run(t, memory, prune.Policy{Last: 1})
			if gone == 0 && !slices.Contains(audit(t, memory), id) {
				gone = n + 1
			}
			if pins, err := catalog.Pins(t.Context(), memory, region); err != nil || len(pins) > 2 { // the next is made before the last one goes
				t.Errorf("after %d days: pins %+v, %v", n+1, pins, err)
			}
		}
		return nil
	})
	if err != nil || !pinned {
		t.Fatal(pinned, err)
	}
	if pins, err := catalog.Pins(t.Context(), memory, region); err != nil || gone == 0 && len(pins) > 0 {
		t.Errorf("in the end: pins %+v, %v", pins, err)
	}
	time.Sleep(day)
	run(t, memory, prune.Policy{Last: 1})
	if slices.Contains(audit(t, memory), id) {
		t.Error("it is there although nobody needs it any more")
	}
	return gone
}

// A restore that takes longer than a pin holds keeps its backup, with one pin at a time, or two.
func TestLongRestoreKeepsItsBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := objstore.NewMemory("bucket")
		if gone := reading(t, faults.New(memory), memory, func() {}); gone > 0 {
			t.Errorf("it was gone after %d days", gone)
		}
	})
}

// A pin that cannot be renewed holds for as long as it was made for, also if it can be
// after some days; then the backup goes, whoever reads it is told, and all others stay whole.
func TestPinThatIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := objstore.NewMemory("bucket")
		bucket := faults.New(memory)
		denied := faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*/pins/*", Effect: faults.FailBefore}
		gone := reading(t, bucket, memory, func() { bucket.SetRules(denied) })
		if life := int(catalog.PinFor / day); gone < life || gone > life+1 {
			t.Errorf("it was gone after %d days, the pin held for %d", gone, life)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		memory := objstore.NewMemory("bucket")
		bucket := faults.New(memory)
		someDays := faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*/pins/*", Effect: faults.FailBefore, Times: 4}
		if gone := reading(t, bucket, memory, func() { bucket.SetRules(someDays) }); gone > 0 {
			t.Errorf("it was gone after %d days", gone)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		memory := objstore.NewMemory("bucket")
		id := daily(t, memory, 3)[0]
		m, err := catalog.Load(t.Context(), memory, region, id)
		if err != nil {
			t.Fatal(err)
		}
		bucket := faults.New(memory)
		_, err = restore.Source{Bucket: bucket}.Pinned(t.Context(), m, func() error {
			bucket.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*/pins/*", Effect: faults.FailBefore})
			time.Sleep(catalog.PinFor + day)
			made(t, memory)
			run(t, memory, prune.Policy{Last: 1})
			return restored(t.Context(), memory, id)
		})
		if kind := events.KindOf(err); kind != events.KindNotFound && kind != events.KindInconsistent {
			t.Errorf("what is gone was restored: %v", err)
		}
	})
}
