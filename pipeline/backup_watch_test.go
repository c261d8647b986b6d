package pipeline_test

import (
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// ids lists the backups that exist.
func (r *region) ids() (ids []string) {
	r.w.Helper()
	list, err := r.ListBackups(r.w.Context())
	if err != nil {
		r.w.Fatal(err)
	}
	for _, b := range list.Backups {
		ids = append(ids, b.ID)
	}
	return ids
}

// away lets time pass while nothing of the region runs.
func (r *region) away(d time.Duration) {
	r.w.Helper()
	r.stop()
	r.down()
	time.Sleep(d)
	r.up()
	r.start()
}

// Backups are made by themselves: one at the start if none is there, then one in each
// interval, never two, also if the node was away; not at all while the bucket cannot
// be read.
func TestSchedule(t *testing.T) {
	long(t)
	const every, pass = 8 * time.Minute, 2*time.Minute + time.Second
	one(t, func(r *region) {
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		r.cfg.Backup.Schedule.Full = every
		filled(r)
		count := func(want int, when string) {
			t.Helper()
			if got := r.ids(); len(got) != want {
				t.Errorf("%s: %d backups, want %d: %q", when, len(got), want, got)
			}
		}
		count(1, "after the start")
		time.Sleep(time.Until(pipeline.LastSlot(us, every, time.Now()).Add(every + pass)))
		count(2, "after the next time for one")
		for i := range 3 {
			time.Sleep(every)
			count(3+i, "after an interval")
		}
		r.away(10 * every)
		time.Sleep(time.Second)
		count(6, "after a while away")
		r.away(0)
		time.Sleep(time.Second)
		count(6, "after a restart")

		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore})
		time.Sleep(every + pass)
		count(6, "while nothing can be written")
		if s := r.status(); s.Backup.Last == nil || s.Backup.Last.Error == "" || !strings.Contains(strings.Join(s.Problems, "\n"), "the backup of") {
			t.Errorf("status: %+v, %q", s.Backup.Last, s.Problems)
		}
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpList}, Effect: faults.Deny})
		time.Sleep(every)
		if s := r.status(); s.Backup.Error == "" || !strings.Contains(strings.Join(s.Problems, "\n"), "cannot be read") {
			t.Errorf("status: %+v, %q", s.Backup, s.Problems)
		}
		bucket.SetRules()
		count(6, "while the bucket could not be read")
		time.Sleep(pass)
		count(7, "afterwards")
		s := r.status()
		if s.Backup.Error != "" || s.Backup.Last.Error != "" || s.Backup.Last.Backup != r.ids()[6] || len(s.Problems) > 0 || s.Backup.Encryption != "age" {
			t.Errorf("status: %+v, %q", s.Backup, s.Problems)
		}
		for _, p := range s.Backup.Points {
			if p.Backup != r.ids()[6] {
				t.Errorf("%+v", p)
			}
		}
	})
}

// A backup that somebody makes by hand counts, and one that is under way is not
// doubled.
func TestScheduleHeedsOtherBackups(t *testing.T) {
	const every = 8 * time.Minute
	one(t, func(r *region) {
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		r.cfg.Backup.Schedule.Full = every
		filled(r)
		time.Sleep(time.Until(pipeline.LastSlot(us, every, time.Now()).Add(every)))
		r.backup()
		time.Sleep(every / 2)
		if n := len(r.ids()); n != 2 {
			t.Errorf("%d backups", n)
		}
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*manifest*", Delay: 3 * every, Times: 1})
		r.backup() // takes three intervals
		if n := len(r.ids()); n != 3 {
			t.Errorf("%d backups after one that took long", n)
		}
	})
}

// Regions do not back up at once, and each always at the same time of its interval.
func TestSlots(t *testing.T) {
	seen := map[time.Duration]bool{}
	for _, r := range []events.Region{"us-east-1", "us-west-1", "eu-central-1"} {
		at := pipeline.LastSlot(r, 24*time.Hour, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC))
		for _, now := range []time.Time{at, at.Add(time.Nanosecond), at.Add(24*time.Hour - 1)} {
			if got := pipeline.LastSlot(r, 24*time.Hour, now); !got.Equal(at) {
				t.Errorf("%s at %s: %s, want %s", r, now, got, at)
			}
		}
		if got := pipeline.LastSlot(r, 24*time.Hour, at.Add(24*time.Hour)); !got.Equal(at.Add(24 * time.Hour)) {
			t.Errorf("%s: the next is at %s", r, got)
		}
		if got := pipeline.LastSlot(r, 24*time.Hour, at.Add(-1)); !got.Equal(at.Add(-24 * time.Hour)) {
			t.Errorf("%s: the one before is at %s", r, got)
		}
		seen[at.Sub(at.Truncate(24*time.Hour))] = true
	}
	if len(seen) != 3 {
		t.Errorf("the times: %v", seen)
	}
}

// gauge reads a gauge or a counter of a node, by the value of its label if it has one.
func (r *region) gauge(name, label string) float64 {
	r.w.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return math.NaN()
}

// wantMetrics checks that a node has every metric that alert rules name.
func wantMetrics(t *testing.T, registry *prometheus.Registry, rules string) {
	t.Helper()
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, f := range families {
		there[f.GetName()] = true
	}
	named := regexp.MustCompile(`evenkeel_[a-z_]+`).FindAllString(string(text), -1)
	for _, name := range named {
		if !there[name] {
			t.Errorf("%s names %s, which there is not", rules, name)
		}
	}
	if len(named) == 0 {
		t.Errorf("%s names no metric", rules)
	}
}

// The age of backups is what the bucket tells, not what the node remembers.
func TestBackupMetrics(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		r.cfg.Backup.Schedule.Copy, r.cfg.Backup.Schedule.Prune, r.cfg.Backup.SampleBytesPerDay = time.Minute, 24*time.Hour, 1<<30
		r.copies = map[string]objstore.Bucket{"west": objstore.NewMemory("west")}
		filled(r)
		time.Sleep(time.Second)
		age := func() float64 { return r.gauge("evenkeel_backup_age_seconds", "session") }
		if got := age(); !math.IsInf(got, 1) {
			t.Errorf("age without a backup: %f", got)
		}
		b := r.backup()
		time.Sleep(10 * time.Minute)
		if got := age(); got < 600 || got > 610 {
			t.Errorf("age after ten minutes: %f", got)
		}
		if got := r.gauge("evenkeel_backup_copy_age_seconds", "west"); got < 600 || got > 610 {
			t.Errorf("age of the copy after ten minutes: %f", got)
		}
		if got := r.gauge("evenkeel_backup_last_bytes", ""); got != float64(b.Stored) {
			t.Errorf("bytes: %f, want %d", got, b.Stored)
		}
		// Somebody deletes a table behind everybody's back.
		memory := r.bucket.(*objstore.Memory)
		d, err := r.ShowBackup(r.w.Context(), api.ShowBackupParams{})
		if err != nil {
			t.Fatal(err)
		}
		for tab := range d.Manifest.Tables() {
			if err := memory.Delete(r.w.Context(), tab.Name); err != nil {
				t.Fatal(err)
			}
			break
		}
		time.Sleep(10 * time.Minute)
		if got := age(); !math.IsInf(got, 1) {
			t.Errorf("age of a backup with a hole: %f", got)
		}
		if s := r.status(); len(s.Backup.Damaged) != 1 || !strings.Contains(strings.Join(s.Problems, "\n"), "evenkeel backup verify") {
			t.Errorf("status: %+v, %q", s.Backup, s.Problems)
		}
		if got := r.gauge("evenkeel_backup_checked_age_seconds", ""); got < 0 || got > 300 {
			t.Errorf("checked %f seconds ago", got)
		}
		wantMetrics(t, r.registry, "../deploy/prometheus/backups.rules.yaml")
	})
}

// Without encryption the node says so, loudly; without keys it does not start.
func TestEncryptionIsAskedFor(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Recipients = r.cfg.Backup.Recipients[:1]
		wantKind(t, r.tryStart(), events.KindInvalid, "backup.recipients", "recovery key")
		r.cfg.Backup = nil
		wantKind(t, r.tryStart(), events.KindInvalid, "bucket")
		r.cfg.Backup = sealedBackups()
		r.cfg.Backup.Encryption, r.cfg.Backup.Recipients = "none", nil
		filled(r)
		if s := r.status(); !strings.Contains(strings.Join(s.Problems, "\n"), "NOT ENCRYPTED") || !s.Ready {
			t.Errorf("%q", s.Problems)
		}
		if b := r.backup(); len(b.Keys) > 0 {
			t.Errorf("%+v", b)
		}
		if _, err := r.restore("x"); err != nil {
			t.Error(err)
		}
	})
}

// A backup is sealed: no value is in the bucket, either key restores it, and a
// stranger's does not.
func TestBackupsAreSealed(t *testing.T) {
	one(t, func(r *region) {
		const secret = "hunter2-correct-horse-battery-staple"
		filled(r)
		r.put("k", secret)
		r.has("k", secret)
		b := r.backup()
		if len(b.Keys) != 2 || b.Keys[0] == b.Keys[1] {
			t.Errorf("%+v", b)
		}
		for info, err := range r.bucket.List(r.w.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			body, err := objstore.ReadAll(r.w.Context(), r.bucket, info.Name, 1<<30)
			if err != nil || strings.Contains(string(body), "hunter2") || strings.Contains(string(body), "key-07") {
				t.Errorf("%s holds it: %v", info.Name, err)
			}
		}
		file, _, err := seal.Generate(false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r.cfg.Backup.Identity = "" // lost
		_, err = r.restore("lost")
		wantKind(t, err, events.KindInvalid, "IDENTITY")
		for name, c := range map[string]struct {
			identity string
			kind     events.Kind
		}{"stranger": {file, events.KindNotFound}, "recovery": {keys[1].identity, 0}, "both": {file + keys[1].identity, 0}} {
			job := r.job()
			job.Dir = "/elsewhere/" + name
			if err := r.disk.MkdirAll("/elsewhere", 0o755); err != nil {
				t.Fatal(err)
			}
			if job.Opener, err = seal.NewOpener(name, c.identity); err != nil {
				t.Fatal(err)
			}
			_, err := pipeline.Restore(r.w.Context(), job)
			wantKind(t, err, c.kind)
			if names, _ := r.disk.List(job.Dir); c.kind != 0 && len(names) > 0 {
				t.Errorf("%s: left over: %q", name, names)
			}
		}
		for _, k := range keys {
			secret := k.identity[strings.Index(k.identity, "AGE-SECRET-KEY-1"):]
			if strings.Contains(r.log.String(), secret[16:40]) {
				t.Error("the log shows an identity")
			}
		}
	})
}

// Old backups go when they are pruned and not before; the node says why the others
// stay.
func TestPrune(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Keep.Full, r.cfg.Backup.KeepLast = 49*time.Hour, 1
		filled(r)
		var made []string
		for range 5 {
			made = append(made, r.backup().ID)
			r.away(24 * time.Hour)
		}
		plan, err := r.PruneBackups(r.w.Context(), api.PruneBackupsParams{})
		if err != nil || !plan.DryRun || len(r.ids()) != 5 {
			t.Errorf("%+v, %v", plan, err)
		}
		report, err := r.PruneBackups(r.w.Context(), api.PruneBackupsParams{Run: true})
		if got := r.ids(); err != nil || len(got) != 3 || got[0] != made[2] || len(report.Deleted) == 0 {
			t.Errorf("%+v, %v, %q", report, err, got)
		}
		if v, err := r.VerifyBackups(r.w.Context(), api.VerifyBackupsParams{All: true, Level: "restore"}); err != nil || v.Err() != nil || len(v.Backups) != 3 {
			t.Errorf("%+v, %v", v, err)
		}
		if got := r.below("scratch"); len(got) > 0 {
			t.Errorf("left over: %q", got)
		}
		r.backup()
	})
}

// That a bucket holds nothing is no proof that all in it is well.
func TestVerifyNothing(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		for _, all := range []bool{true, false} {
			_, err := r.VerifyBackups(r.w.Context(), api.VerifyBackupsParams{All: all})
			wantKind(t, err, events.KindNotFound, "the bucket holds no", "of us-east-1")
		}
	})
}
