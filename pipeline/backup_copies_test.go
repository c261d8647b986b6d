package pipeline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// Copies are brought up to date by themselves, one that cannot be written is told and
// does not keep the other, and a region can be restored from a copy alone.
func TestCopies(t *testing.T) {
	one(t, func(r *region) {
		west, cold := objstore.NewMemory("west"), objstore.NewMemory("cold")
		faulty := objstore.Faulty(cold)
		r.copies = map[string]objstore.Bucket{"west": west, "cold": faulty}
		r.cfg.Backup.Schedule.Copy = 5 * time.Minute
		filled(r)
		first := r.backup()
		faulty.SetRules(objstore.Rule{Ops: []string{objstore.OpCreate}, Effect: objstore.Deny})
		time.Sleep(6 * time.Minute)
		s := r.status()
		if len(s.Backup.Copies) != 2 || s.Backup.Copies[0].Error == "" || s.Backup.Copies[1].Error != "" || !s.Backup.Copies[1].Newest.Equal(first.Created) {
			t.Fatalf("%+v", s.Backup.Copies)
		}
		if problems := strings.Join(s.Problems, "\n"); !strings.Contains(problems, "copy cold") || strings.Contains(problems, "copy west") {
			t.Errorf("problems: %s", problems)
		}
		faulty.SetRules()
		result, err := r.CopyBackups(r.w.Context(), api.CopyBackupsParams{Copy: "cold"})
		if err != nil || result.Err() != nil || len(result.Copies) != 1 || len(result.Copies[0].Report.Backups) != 1 {
			t.Fatalf("%+v, %v", result, err)
		}
		if s := r.status(); len(s.Problems) > 0 {
			t.Errorf("problems: %q", s.Problems)
		}
		_, err = r.CopyBackups(r.w.Context(), api.CopyBackupsParams{Copy: "nowhere"})
		wantKind(t, err, events.KindNotFound, "nowhere", "west")

		r.stop()
		report, err := pipeline.Restore(r.w.Context(), pipeline.RestoreJob{Config: r.cfg, Bucket: west, FS: r.disk, Log: r.parts().Log, Dir: "elsewhere"})
		if err != nil || report.Backup != first.ID {
			t.Errorf("restore from the copy: %+v, %v", report, err)
		}
	})
}

// A backup whose objects are archived is restored once they were thawed.
func TestThaw(t *testing.T) {
	one(t, func(r *region) {
		memory := objstore.NewMemory("archive")
		r.bucket = memory
		filled(r)
		b := r.backup()
		objects := 0
		for info, err := range memory.List(r.w.Context(), "us-east-1/tables/") {
			if err != nil {
				t.Fatal(err)
			}
			objects++
			if err := memory.Archive(info.Name); err != nil {
				t.Fatal(err)
			}
		}
		plan := func() timeline.ClassPlan {
			t.Helper()
			p, err := r.PlanRestore(r.w.Context(), api.PlanRestoreParams{Request: timeline.Request{Target: timeline.Target{Backup: b.ID}}})
			if err != nil || len(p.Classes) != 1 || p.Classes[0].Bytes != p.Bytes || p.Classes[0].Objects != int64(objects) {
				t.Fatalf("%+v, %v", p, err)
			}
			return p.Classes[0]
		}
		if c := plan(); c.Archived != c.Bytes || c.Class == "" {
			t.Errorf("planned: %+v", c)
		}
		_, err := r.restore("early")
		wantKind(t, err, events.KindNotReady, "thaw", b.ID)
		if n := r.below("restores"); len(n) > 0 {
			t.Errorf("fetched all the same: %q", n)
		}
		thaw := func(ready int) *api.Thawed {
			t.Helper()
			thawed, err := r.ThawBackup(r.w.Context(), api.ThawBackupParams{Days: 1})
			if err != nil || thawed.Backup != b.ID || thawed.Objects != objects || thawed.Ready != ready {
				t.Fatalf("%+v, %v", thawed, err)
			}
			return thawed
		}
		wantKind(t, thaw(0).Err(), events.KindNotReady, "hours")
		r.stop() // a node is busy each second
		time.Sleep(5 * time.Hour)
		r.start()
		if err := thaw(objects).Err(); err != nil {
			t.Error(err)
		}
		if c := plan(); c.Archived != 0 {
			t.Errorf("planned: %+v", c)
		}
		if _, err := r.restore("late"); err != nil {
			t.Error(err)
		}
		_, err = r.ThawBackup(r.w.Context(), api.ThawBackupParams{})
		wantKind(t, err, events.KindInvalid, "days")
	})
}
