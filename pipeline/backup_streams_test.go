package pipeline_test

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// A stream that is taken out of the configuration takes nothing with it: backups are made at their times and
// not at every pass, and those that are made from then on, whose shards still hold what was folded
// of it, are verified, drilled, restored and begun with under the new configuration.
func TestStreamIsTakenOut(t *testing.T) {
	long(t)
	for name, test := range map[string]struct{ data, archive bool }{
		"without data": {false, false}, "with data": {true, false}, "with an archive": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) { takeOut(r, test.data, test.archive) })
		})
	}
}

func takeOut(r *region, data, archive bool) {
	t, ctx := r.w.T, r.w.Context()
	const every = 20 * time.Minute // the bucket is looked at each five
	r.cfg.Backup.Schedule.Full = every
	if archive {
		r.cfg.Backup.Schedule.Segment = 4 * time.Second
	}
	filled(r)
	if data {
		for i := range 10 {
			if _, err := r.Put(ctx, api.PutParams{Stream: "config", Key: fmt.Appendf(nil, "key-%02d", i), Value: []byte("value")}); err != nil {
				t.Fatal(err)
			}
		}
		r.eventsFolded(52)
	}
	time.Sleep(every)
	old := r.ids()[len(r.ids())-1]
	r.stop()
	taken := r.cfg.Streams["config"]
	delete(r.cfg.Streams, "config")
	r.start()
	r.written("key-00", "without it")
	before := len(r.ids())
	time.Sleep(5 * every)
	if n := len(r.ids()) - before; n < 4 || n > 6 {
		t.Errorf("%d backups in five intervals", n)
	}
	if age := r.gauge("evenkeel_backup_age_seconds", "config"); !math.IsNaN(age) {
		t.Errorf("the age of backups of a stream that there is not is told: %v", age)
	}
	if age := r.gauge("evenkeel_backup_age_seconds", "session"); !(age < every.Seconds()+400) {
		t.Errorf("age %v", age)
	}
	if p := r.status().Problems; len(p) > 0 {
		t.Errorf("problems: %q", p)
	}
	newest := r.newest()
	if v, err := r.VerifyBackups(ctx, api.VerifyBackupsParams{Backup: newest.ID, Level: "restore"}); err != nil || v.Err() != nil {
		t.Errorf("%+v, %v", v, err)
	}
	for range 3 { // which draw among the old ones too
		if d, err := r.DrillRestore(ctx); err != nil || d.Err() != nil {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if restored, err := r.restore("newest"); err != nil || !reflect.DeepEqual(restored.States, newest.States()) {
		t.Errorf("%+v, %v", restored, err)
	}
	// What was backed up with it is restored with it, and is not taken for what is whole without.
	_, err := r.Restore(ctx, api.RestoreParams{Name: "old", Request: timeline.Request{Target: timeline.Target{Backup: old}}})
	wantKind(t, err, events.KindRefused, "config")
	at := r.status().Logs
	r.stop()
	r.disk = vfs.NewCrashableMem()
	r.start()
	r.has("key-00", "without it")
	r.has("key-01", "value-1")
	if !strings.Contains(r.log.String(), "shard is restored and proved") || !reflect.DeepEqual(r.status().Logs, at) {
		t.Errorf("it was folded from nothing: %+v, want %+v", r.status().Logs, at)
	}
	r.stop()
	r.cfg.Streams["config"] = taken
	r.start()
	if !data {
		return
	}
	r.await("the stream is back", func() error {
		_, err := r.Get(ctx, api.GetParams{Stream: "config", Key: []byte("key-03")})
		return err
	})
}

// Whether a stream was taken out is told by the newest backup that tells it: one that cannot be read, or that a wrong clock
// has dated in the future, keeps nobody from restoring another.
func TestStreamIsTakenOutAndABackupIsDamaged(t *testing.T) {
	for name, future := range map[string]bool{"damaged": false, "dated in the future": true} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				filled(r)
				if _, err := r.Put(r.w.Context(), api.PutParams{Stream: "config", Key: []byte("k"), Value: []byte("value")}); err != nil {
					t.Fatal(err)
				}
				r.eventsFolded(43)
				r.backup()
				time.Sleep(time.Second)
				if future {
					r.fromTheFuture(24 * time.Hour)
				}
				r.stop()
				delete(r.cfg.Streams, "config")
				r.start()
				good := r.backup()
				time.Sleep(time.Second)
				if !future {
					bad := r.backup()
					if err := r.bucket.(*objstore.Memory).Damage(format.ManifestName(us, bad.ID), func(text []byte) []byte { text[len(text)/3] ^= 1; return text }); err != nil {
						t.Fatal(err)
					}
				}
				restored, err := r.Restore(r.w.Context(), api.RestoreParams{Name: "good", Backup: good.ID})
				if err != nil || !strings.Contains(strings.Join(restored.Lacks, "\n"), "stream config is not configured any more") {
					t.Errorf("%+v, %v", restored, err)
				}
			})
		})
	}
}

// A configuration that lacks a stream is told from one out of which it was taken: by the newest backup.
func TestStreamIsMissing(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Schedule.Segment = 4 * time.Second
		filled(r)
		if _, err := r.Put(r.w.Context(), api.PutParams{Stream: "config", Key: []byte("k"), Value: []byte("value")}); err != nil {
			t.Fatal(err)
		}
		r.eventsFolded(43)
		r.stop()
		job := r.job()
		job.Dir = "elsewhere"
		other := *r.cfg
		other.Streams = map[events.Stream]config.Stream{"session": r.cfg.Streams["session"]}
		job.Config = &other
		_, err := pipeline.Restore(r.w.Context(), job) // out of segments alone
		wantKind(t, err, events.KindRefused, "stream config")
		r.start()
		r.backup()
		r.stop()
		_, err = pipeline.Restore(r.w.Context(), job)
		wantKind(t, err, events.KindRefused, "config")
	})
}
