package pipeline_test

import (
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// Copies are brought up to date by themselves, one that cannot be written is told and
// does not keep the other, and a region can be restored from a copy alone.
func TestCopies(t *testing.T) {
	one(t, func(r *region) {
		west, cold := objstore.NewMemory("west"), objstore.NewMemory("cold")
		faulty := faults.New(cold)
		r.copies = map[string]objstore.Bucket{"west": west, "cold": faulty}
		r.cfg.Backup.Schedule.Copy = 5 * time.Minute
		filled(r)
		first := r.backup()
		faulty.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.Deny})
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

// A copy is drilled by whoever can read it; its report lies in it, is no drill of the bucket, and is told as long as the
// copy can be read or has been.
func TestDrillOfACopy(t *testing.T) {
	one(t, func(r *region) {
		const age = "evenkeel_backup_copy_proved_age_seconds"
		west := objstore.NewMemory("west")
		faulty := faults.New(west)
		r.copies = map[string]objstore.Bucket{"west": faulty}
		r.cfg.Backup.Schedule.Copy = 5 * time.Minute
		filled(r)
		first := r.backup()
		time.Sleep(6 * time.Minute)
		if c := r.status().Backup.Copies[0]; c.Drill != nil || !math.IsInf(r.gauge(age, "west"), 1) {
			t.Errorf("before a drill: %+v", c.Drill)
		}
		own := pipeline.Backups{Config: r.cfg, Bucket: west, FS: r.disk, Log: slog.New(slog.DiscardHandler)}
		d, err := own.Drill(r.w.Context())
		if err != nil || d.Err() != nil || d.Trials[0].Backup != first.ID {
			t.Fatalf("%+v, %v", d, err)
		}
		time.Sleep(6 * time.Minute)
		told := func(when string) {
			t.Helper()
			c := r.status().Backup.Copies[0]
			if c.Drill == nil || c.Drill.ID != d.ID || c.Drill.Proved == nil || !c.Drill.Proved.Equal(first.Created) {
				t.Errorf("%s: %+v", when, c.Drill)
			}
			if got, want := r.gauge(age, "west"), time.Since(first.Created).Seconds(); !(got >= want-1 && got <= want+1) {
				t.Errorf("%s: proved for a state of %f s ago, want %f", when, got, want)
			}
		}
		told("after the drill")
		faulty.SetRules(faults.Rule{Ops: []string{objstore.OpList, objstore.OpGet}, Effect: faults.FailBefore})
		time.Sleep(6 * time.Minute)
		told("while the copy is away")
		if s := r.status().Backup; s.Drill != nil || len(r.drills().Drills) > 0 {
			t.Errorf("it counts as a drill of the bucket: %+v", s.Drill)
		}
		faulty.SetRules()
		alone, err := pipeline.Backups{Config: r.cfg, Bucket: r.bucket, Copies: r.copies, FS: r.disk, Log: own.Log}.StatusAlone(r.w.Context())
		if err != nil || len(alone.Copies) != 1 || alone.Copies[0].Drill == nil || alone.Copies[0].Drill.ID != d.ID {
			t.Errorf("without a node: %+v, %v", alone, err)
		}
	})
}

// What a copy has is told also if not all could be copied, or if the copy cannot be read for a while;
// and so is what it lacks, unless that can be copied again.
func TestCopiesTellWhatTheyHave(t *testing.T) {
	one(t, func(r *region) {
		memory, west := r.bucket.(*objstore.Memory), objstore.NewMemory("west")
		away := faults.Rule{Ops: []string{objstore.OpList}, Effect: faults.FailBefore}
		faulty := faults.New(west, away)
		r.copies = map[string]objstore.Bucket{"west": faulty}
		r.cfg.Backup.Schedule.Copy = 5 * time.Minute
		filled(r)
		time.Sleep(6 * time.Minute)
		if all := r.status().Backup.Copies; len(all) != 1 || all[0].Error == "" || all[0].Checked != nil {
			t.Fatalf("it was never read: %+v", all)
		}
		if n := r.gauge("evenkeel_backup_copy_damaged", "west"); !math.IsNaN(n) {
			t.Errorf("it was never read: %v damaged", n)
		}
		faulty.SetRules()
		made := map[string]string{} // a table of each backup
		var ids []string
		var last time.Time
		for range 3 {
			b := r.backup()
			for tab := range r.newest().Tables() {
				made[b.ID] = tab.Name
			}
			ids, last = append(ids, b.ID), b.Created
			time.Sleep(time.Second)
		}
		if err := memory.Damage(made[ids[1]], func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
			t.Fatal(err)
		}
		copied := func(when string, damaged int) api.CopyStatus {
			t.Helper()
			time.Sleep(6 * time.Minute)
			all := r.status().Backup.Copies
			if len(all) != 1 || all[0].Newest == nil || !all[0].Newest.Equal(last) || all[0].Damaged != damaged || all[0].Checked == nil {
				t.Fatalf("%s: %+v", when, all)
			}
			if age := r.gauge("evenkeel_backup_copy_age_seconds", "west"); !(age > 0 && age < 3600) {
				t.Errorf("%s: the age is %v", when, age)
			}
			if n := r.gauge("evenkeel_backup_copy_damaged", "west"); n != float64(damaged) {
				t.Errorf("%s: %v damaged", when, n)
			}
			return all[0]
		}
		if c := copied("one is damaged", 0); !strings.Contains(c.Error, made[ids[1]]) {
			t.Errorf("%+v", c)
		}
		faulty.SetRules(away)
		if c := copied("it cannot be read", 0); !strings.Contains(c.Error, "injected") || time.Since(*c.Checked) < 5*time.Minute {
			t.Errorf("%+v", c)
		}
		faulty.SetRules()
		lost := made[ids[0]]
		if err := west.Lose(lost); err != nil {
			t.Fatal(err)
		}
		copied("something is gone", 0)
		if _, err := west.Stat(r.w.Context(), lost); err != nil || !strings.Contains(r.log.String(), "gone from a copy") {
			t.Errorf("it has not come back, or nothing is said: %v", err)
		}
		if err := errors.Join(west.Lose(lost), memory.Lose(lost)); err != nil {
			t.Fatal(err)
		}
		if c := copied("something is gone for good", 1); !strings.Contains(c.Error, lost) {
			t.Errorf("%+v", c)
		}
		if said := strings.Join(r.status().Problems, "\n"); !strings.Contains(said, "damaged in copy west") {
			t.Errorf("problems: %s", said)
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
