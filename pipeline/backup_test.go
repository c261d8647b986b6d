package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// filled starts a region that has some keys.
func filled(r *region) {
	r.w.Helper()
	r.start()
	for i := range 40 {
		r.put(fmt.Sprintf("key-%02d", i), fmt.Sprint("value-", i))
	}
	r.put("gone", "soon")
	if _, err := r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: []byte("gone")}); err != nil {
		r.w.Fatal(err)
	}
	r.eventsFolded(42)
}

func (r *region) backup() *api.Backup {
	r.w.Helper()
	b, err := r.CreateBackup(r.w.Context())
	if err != nil {
		r.w.Fatalf("backup: %v", err)
	}
	return b
}

func (r *region) restore(name string) (*api.Restored, error) {
	return r.Restore(r.w.Context(), api.RestoreParams{Name: name})
}

// below lists what is in a directory of the node's disk, sorted.
func (r *region) below(dir string) []string {
	names, err := r.disk.List(filepath.Join(dataDir, dir))
	if err != nil {
		return nil
	}
	slices.Sort(names)
	return names
}

func TestNoBucket(t *testing.T) {
	one(t, func(r *region) {
		r.bucket = nil
		r.start()
		_, err := r.CreateBackup(t.Context())
		wantKind(t, err, events.KindRefused, "us-east-1", "backup.bucket")
		_, err = r.ListBackups(t.Context())
		wantKind(t, err, events.KindRefused, "backup.bucket")
		_, err = r.restore("x")
		wantKind(t, err, events.KindRefused, "backup.bucket")
		if r.status().Backups {
			t.Error("status says that there are backups")
		}
	})
}

func TestBackupAndRestore(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		list, err := r.ListBackups(r.w.Context())
		if err != nil || list.Backups == nil || len(list.Backups) > 0 || !r.status().Backups {
			t.Errorf("before the first: %+v, %v", list, err)
		}
		_, err = r.restore("early")
		wantKind(t, err, events.KindNotFound, "us-east-1", "evenkeel backup create")

		first, at := r.backup(), r.status()
		if first.Region != us || first.Shards != partitions || !reflect.DeepEqual(first.States, at.Logs) {
			t.Errorf("%+v of %+v", first, at.Logs)
		}
		time.Sleep(time.Second) // names sort by time
		r.put("later", "value")
		r.has("later", "value")
		second := r.backup()
		list, err = r.ListBackups(r.w.Context())
		if err != nil || len(list.Backups) != 2 || !reflect.DeepEqual(list.Backups[0], *first) || !reflect.DeepEqual(list.Backups[1], *second) {
			t.Errorf("%+v, %v", list, err)
		}

		newest, err := r.restore("newest")
		if err != nil {
			t.Fatal(err)
		}
		old, err := r.Restore(r.w.Context(), api.RestoreParams{Name: "old", Backup: first.ID})
		if err != nil {
			t.Fatal(err)
		}
		if newest.Backup != second.ID || newest.Digest != *r.status().Digest || old.Digest != *at.Digest || !reflect.DeepEqual(old.States, at.Logs) {
			t.Errorf("newest %+v\nold %+v", newest, old)
		}
		if newest.Dir != filepath.Join(dataDir, "restores", "newest") || !slices.Equal(r.below("restores"), []string{"newest", "old"}) ||
			!slices.Equal(r.below("restores/old"), []string{"restore-report.json", "restore-report.txt", "shard-0000", "shard-0001", "shard-0002"}) {
			t.Errorf("restored to %s; there is %v", newest.Dir, r.below("restores"))
		}

		// Nothing is restored over anything.
		_, err = r.restore("newest")
		wantKind(t, err, events.KindRefused, newest.Dir, "not empty")
		_, err = r.Restore(r.w.Context(), api.RestoreParams{Name: "x", Backup: "20200101T000000.000Z-00000000"})
		wantKind(t, err, events.KindNotFound, "20200101T000000.000Z-00000000", "evenkeel backup list")
		for _, id := range []string{"../x", "a/b", "x\n", strings.Repeat("x", 3_000)} {
			if _, err := r.Restore(r.w.Context(), api.RestoreParams{Name: "x", Backup: id}); events.KindOf(err) != events.KindNotFound && events.KindOf(err) != events.KindInvalid {
				t.Errorf("backup %.20q: %v", id, err)
			}
		}
		if got := r.below("restores"); !slices.Equal(got, []string{"newest", "old"}) {
			t.Errorf("left over: %v", got)
		}
	})
}

func TestRestoreNames(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		r.backup()
		for _, name := range []string{"", ".", "..", "../x", "a/b", "/a", `a\b`, "a.b", "a b", "ü", "a\x00", strings.Repeat("x", 64)} {
			_, err := r.restore(name)
			wantKind(t, err, events.KindInvalid, "letters, digits and dashes")
		}
		if got := r.below("restores"); got != nil {
			t.Errorf("there is %v", got)
		}
		for _, name := range []string{"a", "A-1", "-", strings.Repeat("x", 63)} {
			if _, err := r.restore(name); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

// A region whose state is lost goes on from a backup and its logs.
func TestRestoreStateAndGoOn(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		r.backup()
		r.put("later", "value")
		r.eventsFolded(43)
		want := r.status()
		r.stop()
		if err := r.disk.RemoveAll(filepath.Join(dataDir, "state")); err != nil {
			t.Fatal(err)
		}
		report, err := pipeline.Restore(r.w.Context(), r.job())
		if err != nil {
			t.Fatal(err)
		}
		r.start()
		r.eventsFolded(43)
		got := r.status()
		if *got.Digest != *want.Digest || !reflect.DeepEqual(got.Logs, want.Logs) {
			t.Errorf("state %+v, want %+v", got.Logs, want.Logs)
		}
		for i, shard := range got.Shards {
			if shard.Lineage == want.Shards[i].Lineage {
				t.Error("the lineage is that of before")
			}
		}
		r.has("later", "value")
		if report.Region != us {
			t.Errorf("%+v", report)
		}
	})
}

// job restores the newest backup in the place of the state.
func (r *region) job() pipeline.RestoreJob {
	return pipeline.RestoreJob{
		Config: r.cfg, Bucket: r.bucket, FS: r.disk, Log: r.parts().Log, Dir: filepath.Join(dataDir, "state"),
	}
}

// A backup that does not fit the configuration is refused before anything is
// fetched.
func TestRestoreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *config.Config)
		parts  []string
	}{
		"other partitions": {func(c *config.Config) { c.Partitions++ }, []string{"3 shards", "4 partitions"}},
		"stream missing":   {func(c *config.Config) { delete(c.Streams, "config") }, []string{"stream config", "lww"}},
		"other rule":       {func(c *config.Config) { c.Streams["session"] = config.Stream{Topic: "session", Merge: "other"} }, []string{"stream session", "lww"}},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				filled(r)
				b := r.backup()
				r.stop()
				c.change(r.cfg)
				job := r.job()
				job.Dir = "/elsewhere"
				bucket := faults.New(r.bucket, faults.Rule{Name: "*.sst", Effect: faults.FailBefore})
				job.Bucket = bucket
				_, err := pipeline.Restore(r.w.Context(), job)
				wantKind(t, err, events.KindRefused, append(c.parts, b.ID)...)
				if len(bucket.Log()) > 0 {
					t.Errorf("tables were fetched: %v", bucket.Log())
				}
			})
		})
	}
	t.Run("over a state", func(t *testing.T) {
		one(t, func(r *region) {
			filled(r)
			r.backup()
			want := *r.status().Digest
			r.stop()
			_, err := pipeline.Restore(r.w.Context(), r.job())
			wantKind(t, err, events.KindRefused, filepath.Join(dataDir, "state"), "not empty")
			r.start()
			if got := *r.status().Digest; got != want {
				t.Errorf("digest %s, want %s", got, want)
			}
		})
	})
}

// A restore that breaks off leaves nothing behind, and the next try works.
func TestRestoreBreaksOff(t *testing.T) {
	table := func(effect faults.Effect, shard int) faults.Rule {
		return faults.Rule{Ops: []string{objstore.OpGet}, Name: fmt.Sprintf("*/shard-%04d/*", shard), Effect: effect}
	}
	for name, c := range map[string]struct {
		rule faults.Rule
		kind events.Kind
		part string
	}{
		"first table unavailable": {table(faults.FailBefore, 0), events.KindFailed, "unavailable"},
		"last table unavailable":  {table(faults.FailBefore, partitions-1), events.KindFailed, "unavailable"},
		"table torn":              {table(faults.TearBody, 1), events.KindInconsistent, "damaged"},
		"table cut short":         {table(faults.TruncateBody, 1), events.KindInconsistent, "damaged"},
		"one bit flipped":         {table(faults.FlipBit, 1), events.KindInconsistent, "damaged"},
		"table missing":           {faults.Rule{Ops: []string{objstore.OpGet}, Name: "*/shard-0001/*", Effect: faults.FailBefore, Err: objstore.ErrNotFound}, events.KindInconsistent, "not complete"},
		"listing denied":          {faults.Rule{Ops: []string{objstore.OpList}, Effect: faults.Deny}, events.KindFailed, "credentials"},
		"manifest damaged":        {faults.Rule{Ops: []string{objstore.OpGet}, Name: "*manifest*", Effect: faults.FlipBit}, events.KindInconsistent, "manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				bucket := faults.New(r.bucket)
				r.bucket = bucket
				filled(r)
				r.backup()
				bucket.SetRules(c.rule)
				_, err := r.restore("x")
				if len(bucket.Log()) == 0 {
					t.Fatal("no fault struck")
				}
				wantKind(t, err, c.kind, c.part)
				if got := r.below("restores"); len(got) > 0 {
					t.Errorf("left over: %v", got)
				}
				bucket.SetRules()
				if _, err := r.restore("x"); err != nil {
					t.Errorf("the next try: %v", err)
				}
				if got := r.below("restores"); !slices.Equal(got, []string{"x"}) {
					t.Errorf("there is %v", got)
				}
			})
		})
	}
}

// What a killed restore has left is in nobody's way.
func TestRestoreAfterKill(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		r.backup()
		left := filepath.Join(dataDir, "restores", "x.restoring", "shard-0000")
		if err := r.disk.MkdirAll(left, 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := r.disk.Create(filepath.Join(left, "MANIFEST-000001"), vfs.WriteCategoryUnspecified)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.restore("x"); err != nil {
			t.Error(err)
		}
		if got := r.below("restores"); !slices.Equal(got, []string{"x"}) {
			t.Errorf("there is %v", got)
		}
	})
}

// Two restores at one time would use the same place, and all of the disk.
func TestRestoreOneAtATime(t *testing.T) {
	one(t, func(r *region) {
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		filled(r)
		r.backup()
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Delay: time.Minute, Effect: faults.Wait})
		first := make(chan error, 1)
		go func() {
			_, err := r.restore("x")
			first <- err
		}()
		time.Sleep(time.Second)
		for _, name := range []string{"x", "y"} {
			_, err := r.restore(name)
			wantKind(t, err, events.KindRefused, "another restore")
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		if _, err := r.restore("y"); err != nil {
			t.Error(err)
		}
		if got := r.below("restores"); !slices.Equal(got, []string{"x", "y"}) {
			t.Errorf("there is %v", got)
		}
	})
}

// A restore whose caller leaves ends, and leaves nothing behind.
func TestRestoreInterrupted(t *testing.T) {
	one(t, func(r *region) {
		bucket := faults.New(r.bucket)
		r.bucket = bucket
		filled(r)
		r.backup()
		bucket.SetRules(faults.Rule{Ops: []string{objstore.OpGet}, Name: "*sst*", Delay: time.Hour, Effect: faults.Wait})
		ctx, leave := context.WithTimeout(r.w.Context(), time.Minute)
		defer leave()
		r.within(time.Minute, "restore", func() {
			if _, err := r.Restore(ctx, api.RestoreParams{Name: "x"}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		if got := r.below("restores"); len(got) > 0 {
			t.Errorf("left over: %v", got)
		}
	})
}

// A backup that fails does not exist, and the next one does.
func TestBackupFails(t *testing.T) {
	for name, rule := range map[string]faults.Rule{
		"a table":      {Ops: []string{objstore.OpCreate}, Nth: 2, Effect: faults.FailBefore},
		"the manifest": {Ops: []string{objstore.OpCreate}, Name: "*manifest*", Effect: faults.FailBefore},
		"everything":   {Effect: faults.Deny},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				bucket := faults.New(r.bucket)
				r.bucket = bucket
				filled(r)
				bucket.SetRules(rule)
				if _, err := r.CreateBackup(r.w.Context()); err == nil {
					t.Error("it did not fail")
				}
				bucket.SetRules()
				if list, err := r.ListBackups(r.w.Context()); err != nil || len(list.Backups) > 0 {
					t.Errorf("%+v, %v", list, err)
				}
				b := r.backup()
				if list, err := r.ListBackups(r.w.Context()); err != nil || len(list.Backups) != 1 || list.Backups[0].ID != b.ID {
					t.Errorf("%+v, %v", list, err)
				}
				if !strings.Contains(r.log.String(), "backup failed") {
					t.Error("it was not logged")
				}
				r.put("goes", "on")
				r.has("goes", "on")
			})
		})
	}
}
