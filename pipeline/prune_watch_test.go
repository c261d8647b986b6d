package pipeline_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// prunes has a region back up each day, keep a day's backups, and prune each day.
func prunes(r *region) {
	b := r.cfg.Backup
	b.Schedule.Full, b.Schedule.Prune, b.Keep.Full, b.KeepLast = 24*time.Hour, 24*time.Hour, 36*time.Hour, 1
}

// day has a region be away for a day, and then long enough to back up and to prune.
func (r *region) day() {
	r.w.Helper()
	r.away(24 * time.Hour)
	time.Sleep(11 * time.Minute)
}

// Old backups go by themselves, in the bucket and in its copies, at the time for it, which
// is not that of backups; and the node says so.
func TestPrunesBySchedule(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		prunes(r)
		cold := objstore.NewMemory("cold")
		r.copies = map[string]objstore.Bucket{"cold": cold}
		r.cfg.Backup.Schedule.Copy = time.Minute
		filled(r)
		for day := range 6 {
			r.put("k", fmt.Sprint(day))
			r.day()
		}
		if n := len(r.ids()); n < 2 || n > 3 {
			t.Errorf("%d backups after six days, of which one and a half are kept", n)
		}
		ids, err := catalog.IDs(r.w.Context(), cold, us)
		if err != nil || len(ids) < 2 || len(ids) > 3 {
			t.Errorf("%d in the copy, %v", len(ids), err)
		}
		full, prune := pipeline.LastSlot(us, 24*time.Hour, time.Now()), pipeline.PruneSlot(us, 24*time.Hour, time.Now())
		if apart := prune.Sub(full).Abs() % (24 * time.Hour); apart != 12*time.Hour {
			t.Errorf("prunes are %s from backups", apart)
		}
		s := r.status().Backup
		if s.PruneEvery != 24*3600 || s.Pruned == nil || len(s.Prunes) != 2 || s.Prunes[0].Copy != "" || s.Prunes[1].Copy != "cold" || s.Prunes[0].Error != "" || s.Prunes[0].Deleted == 0 {
			t.Errorf("%+v", s)
		}
		if age := r.gauge("evenkeel_backup_pruned_age_seconds", ""); age <= 0 || age > 25*3600 {
			t.Errorf("pruned %v seconds ago by the metrics", age)
		}
		if p := r.status().Problems; len(p) > 0 {
			t.Errorf("%q", p)
		}
	})
}

// A prune that fails is told and tried again; what cannot be deleted is counted.
func TestPruneByScheduleFails(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		prunes(r)
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		filled(r)
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpDelete}, Name: "*/manifests/*", Effect: faults.FailBefore})
		for range 5 {
			r.day()
		}
		if text := strings.Join(r.status().Problems, "\n"); !strings.Contains(text, "the prune of the backups") || !strings.Contains(text, "failed") {
			t.Errorf("%s", text)
		}
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpDelete}, Name: "*/tables/*", Effect: faults.Deny})
		r.day()
		if text := strings.Join(r.status().Problems, "\n"); !strings.Contains(text, "could not delete") {
			t.Errorf("%s", text)
		}
		bucket.SetRules()
		r.day()
		if n := len(r.ids()); n > 3 {
			t.Errorf("%d backups are left", n)
		}
		if p := r.status().Problems; len(p) > 0 {
			t.Errorf("%q", p)
		}
	})
}

// Told not to, a node prunes nothing, and no metric says that it should.
func TestNoPruneBySchedule(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		prunes(r)
		r.cfg.Backup.Schedule.Prune = 0
		filled(r)
		for range 5 {
			r.day()
		}
		if n := len(r.ids()); n < 5 {
			t.Errorf("%d backups are left", n)
		}
		if s := r.status().Backup; s.Pruned != nil || len(s.Prunes) > 0 {
			t.Errorf("%+v", s)
		}
		if age := r.gauge("evenkeel_backup_pruned_age_seconds", ""); !math.IsNaN(age) {
			t.Errorf("pruned %v seconds ago by the metrics", age)
		}
	})
}
