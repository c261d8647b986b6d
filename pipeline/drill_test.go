package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

func (r *region) drills() *api.DrillList {
	r.w.Helper()
	list, err := r.ListDrills(r.w.Context(), api.ListDrillsParams{Most: 100})
	if err != nil {
		r.w.Fatal(err)
	}
	return list
}

// A drill restores the newest state and another one, proves them, leaves nothing on
// the disk, and can be read by anybody afterwards.
func TestDrill(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		d, err := r.DrillRestore(r.w.Context())
		if err != nil || events.KindOf(d.Err()) != events.KindInconsistent || !d.Proved().IsZero() {
			t.Fatalf("without a backup: %+v, %v", d, err)
		}
		time.Sleep(time.Second)
		first := r.backup()
		if d, err = r.DrillRestore(r.w.Context()); err != nil || d.Err() != nil || len(d.Trials) != 2 || d.Trials[0].Backup != first.ID {
			t.Fatalf("%+v, %v", d, err)
		}
		r.put("later", "x")
		r.eventsFolded(43)
		time.Sleep(time.Second)
		second := r.backup()
		if d, err = r.DrillRestore(r.w.Context()); err != nil || d.Err() != nil || len(d.Trials) != 2 {
			t.Fatalf("%+v, %v", d, err)
		}
		newest, random := d.Trials[0], d.Trials[1]
		if newest.Backup != second.ID || random.Backup != first.ID && random.Backup != second.ID || !d.Proved().Equal(second.Created) || newest.Bytes == 0 || len(newest.States) == 0 {
			t.Errorf("%+v", d)
		}
		if left := r.below("scratch"); len(left) > 0 {
			t.Errorf("left in the scratch directory: %q", left)
		}
		list := r.drills()
		if len(list.Drills) != 3 || list.Drills[0].ID != d.ID || list.Drills[2].Err() == nil {
			t.Errorf("drills: %+v", list)
		}
		if _, err := r.ListDrills(r.w.Context(), api.ListDrillsParams{Drill: "x"}); events.KindOf(err) != events.KindNotFound {
			t.Errorf("no such drill: %v", err)
		}
	})
}

// A region that has written nothing yet is drilled as any other.
func TestDrillOfNothing(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.await("a backup", func() error {
			_, err := r.CreateBackup(r.w.Context())
			return err
		})
		d, err := r.DrillRestore(r.w.Context())
		if err != nil || d.Err() != nil || len(d.Trials[0].States) != 0 || d.Proved().IsZero() {
			t.Fatalf("%+v, %v", d, err)
		}
	})
}

// A backup that cannot be restored is found by the drill, and told; an older one is
// drilled all the same, if it is drawn.
func TestDrillFindsDamage(t *testing.T) {
	one(t, func(r *region) {
		bucket := objstore.Faulty(r.bucket)
		r.bucket = bucket
		filled(r)
		first := r.backup()
		time.Sleep(time.Second)
		second := r.backup()
		bucket.SetRules(objstore.Rule{Ops: []string{objstore.OpGet}, Name: "*/tables/" + second.ID + "/*", Effect: objstore.FlipBit})
		d, err := r.DrillRestore(r.w.Context())
		if err != nil {
			t.Fatal(err)
		}
		if newest, random := d.Trials[0], d.Trials[1]; !strings.Contains(newest.Error, second.ID) || (random.Backup == first.ID) != (random.Error == "") {
			t.Errorf("%+v", d)
		}
		if problems := strings.Join(r.status().Problems, "\n"); !strings.Contains(problems, "restore drill: ") {
			t.Errorf("problems: %s", problems)
		}
		if left := r.below("scratch"); len(left) > 0 {
			t.Errorf("left in the scratch directory: %q", left)
		}
	})
}

// Drills are made by themselves, by the schedule, also over restarts; after one that
// failed sooner. What they prove is a metric.
func TestDrillSchedule(t *testing.T) {
	const every = time.Hour
	one(t, func(r *region) {
		bucket := objstore.Faulty(r.bucket)
		r.bucket = bucket
		r.cfg.Backup.Schedule.Drill, r.cfg.Backup.Schedule.Full = every, 30*time.Minute
		filled(r)
		count := func(want int, when string) {
			t.Helper()
			if got := len(r.drills().Drills); got != want {
				t.Errorf("%s: %d drills, want %d", when, got, want)
			}
		}
		time.Sleep(every / 2)
		count(1, "after the start")
		time.Sleep(every)
		count(2, "after an interval")
		r.away(time.Minute)
		time.Sleep(every / 4)
		count(2, "after a restart")
		if s := r.status().Backup; s.Drill == nil || s.Drill.Error != "" || s.Drill.Proved == nil || s.DrillEvery != every.Seconds() {
			t.Errorf("status: %+v", s.Drill)
		}
		bucket.SetRules(objstore.Rule{Ops: []string{objstore.OpGet}, Name: "*/tables/*", Effect: objstore.FailBefore})
		time.Sleep(every)
		failed := len(r.drills().Drills)
		if failed < 3 || r.status().Backup.Drill.Error == "" || r.status().Backup.Drill.Proved == nil {
			t.Errorf("%d drills, status: %+v", failed, r.status().Backup.Drill)
		}
		bucket.SetRules()
		time.Sleep(every)
		count(failed+1, "after the bucket is back")
		if s := r.status(); s.Backup.Drill.Error != "" || len(s.Problems) > 0 {
			t.Errorf("status: %+v, %q", s.Backup.Drill, s.Problems)
		}
	})
}

// A node that cannot open backups drills none by itself, and says so if it is asked to.
func TestDrillWithoutIdentity(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.IdentityEnv, r.cfg.Backup.Identity = "", ""
		r.cfg.Backup.Schedule.Drill = time.Hour
		filled(r)
		r.backup()
		time.Sleep(3 * time.Hour)
		if n := len(r.drills().Drills); n > 0 {
			t.Errorf("%d drills", n)
		}
		d, err := r.DrillRestore(r.w.Context())
		if err != nil || d.Err() == nil || !strings.Contains(d.Err().Error(), "key") {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// With an archive, times between backups are drilled, and the newest state is the one
// that is archived.
func TestDrillOfTimes(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Schedule.Segment = time.Second
		filled(r)
		r.backup()
		for i := range 20 {
			r.put(fmt.Sprint("later-", i), "x")
			time.Sleep(time.Minute)
		}
		written := time.Now().Add(-time.Minute)
		times := 0
		for range 5 {
			d, err := r.DrillRestore(r.w.Context())
			if err != nil || d.Err() != nil || len(d.Trials) != 2 {
				t.Fatalf("%+v, %v", d, err)
			}
			if strings.HasPrefix(d.Trials[1].Aim, "time ") {
				times++
			}
			var events int64
			for _, st := range d.Trials[0].States {
				events += st.Events
			}
			if late := d.Proved().Sub(written); late < 0 || late > 10*time.Second || events != 42+20 {
				t.Errorf("the newest state of %s has %d events; the last was written at %s", d.Proved(), events, written)
			}
			time.Sleep(time.Second)
		}
		if times == 0 {
			t.Error("no time was drilled")
		}
	})
}
