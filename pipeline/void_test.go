package pipeline_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/refill"
	"github.com/evenkeel/evenkeel/snapshotter/copies"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	verification "github.com/evenkeel/evenkeel/snapshotter/verify"
)

// The newest segment of each shard is damaged. The archive goes on without them, and all who
// read it know: it is verified, listed, copied and pruned, records are written back and the state is restored, to
// the newest and to any time.
func TestVoidSegments(t *testing.T) {
	one(t, func(r *region) {
		archivedRegion(r, func() {})
		r.stop()
		memory := r.bucket.(*objstore.Memory)
		for p := range int32(partitions) {
			newest, err := segment.Newest(r.w.Context(), memory, us, p)
			if err != nil {
				t.Fatal(err)
			}
			if err := memory.Damage(format.SegmentName(us, p, newest.Number), func(b []byte) []byte { b = bytes.Clone(b); b[10] ^= 1; return b }); err != nil {
				t.Fatal(err)
			}
		}
		r.start()
		time.Sleep(2 * time.Minute)
		then := time.Now()
		time.Sleep(time.Second)
		held := archivedRegion(r, func() {})
		verify := func(b pipeline.Backups, void int) {
			t.Helper()
			report, err := b.Verify(r.w.Context(), api.VerifyBackupsParams{All: true, Level: "decode"}, verification.Progress{})
			if err != nil || report.Err() != nil || len(report.Archive) != partitions {
				t.Fatalf("%+v, %v", report, err)
			}
			for _, a := range report.Archive {
				if len(a.Gaps) > 0 || len(a.Void) != void {
					t.Errorf("%+v", a)
				}
			}
		}
		own := pipeline.Backups{Config: r.cfg, Bucket: r.bucket, Log: r.parts().Log, FS: r.disk}
		verify(own, 1)
		list, err := r.ListBackups(r.w.Context())
		if err != nil || len(list.Archive) != partitions {
			t.Fatalf("%+v, %v", list, err)
		}
		to := objstore.NewMemory("copy")
		if _, err := copies.Run(r.w.Context(), copies.Config{Region: us, From: r.bucket, To: to, Owner: "test"}); err != nil {
			t.Fatal(err)
		}
		verify(pipeline.Backups{Config: r.cfg, Bucket: to, Log: r.parts().Log, FS: r.disk}, 0)
		r.backup()
		want := r.status()
		r.stop()
		for name, bucket := range map[string]objstore.Bucket{"bucket": r.bucket, "copy": to} {
			job := r.job()
			job.Bucket, job.Dir = bucket, "/restored/"+name
			restored, err := pipeline.Restore(r.w.Context(), job)
			if err != nil || restored.Digest != *want.Digest || events.VectorOf(restored.States).Compare(want.Vector()) != events.Equal {
				t.Errorf("out of the %s: %+v, %v", name, restored, err)
			}
			job.Request.Time, job.Dir = then, "/then/"+name
			if _, err := pipeline.Restore(r.w.Context(), job); err != nil {
				t.Errorf("out of the %s, to a time: %v", name, err)
			}
		}
		r.lose()
		if _, err := refill.Run(r.w.Context(), r.refillJob()); err != nil {
			t.Fatal(err)
		}
		r.holds(held, false)
		if _, err := own.Prune(r.w.Context(), api.PruneBackupsParams{Run: true}); err != nil {
			t.Fatal(err)
		}
		verify(own, 0)
	})
}
