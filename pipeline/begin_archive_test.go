package pipeline_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
)

// A node whose disk is lost, and whose logs do not have any more what follows the newest
// backup, begins with what is archived and goes on from its logs.
func TestBeginsWithWhatIsArchived(t *testing.T) {
	for name, backup := range map[string]bool{"with a backup": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				archives(r)
				r.start()
				r.put("first", "value")
				r.has("first", "value")
				if backup {
					r.backup()
				}
				held := archivedRegion(r, func() {})
				before := r.status()
				r.stop()
				r.expire(held)
				r.disk = vfs.NewCrashableMem()
				r.start()
				after := r.status()
				if *after.Digest != *before.Digest || len(after.Problems) > 0 {
					t.Errorf("%s with %q, want %s", after.Digest, after.Problems, before.Digest)
				}
				r.has("first", "value")
				r.put("later", "value")
				r.has("later", "value")
				if kind := events.KindOf(r.Ready(r.w.Context())); kind != 0 {
					t.Errorf("it is %s", kind)
				}
			})
		})
	}
}
