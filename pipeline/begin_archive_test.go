package pipeline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
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

// Where a broker cannot say at present how far the logs are, as right after an election, a
// shard waits: it neither counts as ahead of its logs, nor is a good backup passed over.
func TestBeginsOnceTheLogsEndsAreKnown(t *testing.T) {
	for name, lose := range map[string]func(r *region){
		"with its directory": func(*region) {},
		"with a backup":      func(r *region) { r.disk = vfs.NewCrashableMem() },
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				r.start()
				at := r.put("k", "v")
				r.has("k", "v")
				r.backup()
				r.stop()
				lose(r)
				unknown := r.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "session", Err: kerr.OffsetNotAvailable, Count: -1})
				if err := r.tryStart(); err != nil {
					t.Fatal(err)
				}
				r.troubled("is not open", "session", "OFFSET_NOT_AVAILABLE")
				time.Sleep(time.Minute)
				unknown.Remove()
				r.await("ready", func() error { return r.Ready(r.w.Context()) })
				r.has("k", "v")
				if row, fresh := r.status().Shards[at.Partition], name == "with a backup"; strings.HasPrefix(row.Began, "backup") != fresh {
					t.Errorf("it began with %s", row.Began)
				}
				for _, wrong := range []string{"cannot be used", "new incarnation"} {
					if strings.Contains(r.log.String(), wrong) {
						t.Errorf("the log says %q", wrong)
					}
				}
			})
		})
	}
}

// A node whose identity opens none of the backups says so: that it has to fold its shards from the beginning
// of their logs is nothing that anybody would find out otherwise.
func TestBeginsWithoutTheKey(t *testing.T) {
	one(t, func(r *region) {
		filled(r)
		b := r.backup()
		r.stop()
		r.disk = vfs.NewCrashableMem()
		stranger, _, err := seal.Generate(false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r.cfg.Backup.Identity = config.Secret(stranger)
		r.start()
		r.has("key-01", "value-1")
		if log := r.log.String(); !strings.Contains(log, "backup cannot be opened") || !strings.Contains(log, b.ID) {
			t.Error("the log does not say so")
		}
		if said := strings.Join(r.status().Problems, "\n"); !strings.Contains(said, "cannot open its backups") {
			t.Errorf("problems: %s", said)
		}
	})
}
