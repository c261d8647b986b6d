package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// gated is a bucket of which large parts of objects, as they are fetched to have all of
// them here, cannot be read until the gate is opened. Single values can.
type gated struct {
	objstore.Bucket
	opened chan struct{}
}

const smallPart = 700_000

func (g *gated) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if length > smallPart {
		select {
		case <-g.opened:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return g.Bucket.GetRange(ctx, name, offset, length)
}

// away makes every reading of a part of an object fail.
var away = faults.Rule{Ops: []string{objstore.OpGetRange}, Effect: faults.FailBefore}

// lost makes a region that has backups and some events since, and lets it lose its
// state. Shards that are taken out of its bucket are not here before the gate is opened.
func lost(r *region, backups int) (bucket *faults.Bucket, gate *gated, want *api.Status) {
	r.w.Helper()
	r.cfg.Restore.InstantFromBytes = 0
	r.start()
	for i := range 30 {
		r.put(fmt.Sprintf("key-%02d", i), large(i))
	}
	r.eventsFolded(30)
	for n := range backups {
		if n > 0 {
			r.away(25 * time.Hour)
		}
		r.backup()
		r.put("later", "value")
		r.eventsFolded(int64(31 + n))
	}
	want = r.status()
	r.stop()
	if err := r.disk.RemoveAll(filepath.Join(dataDir, "state")); err != nil {
		r.w.Fatal(err)
	}
	bucket = faults.New(r.bucket)
	gate = &gated{Bucket: bucket, opened: make(chan struct{})}
	r.bucket = gate
	return bucket, gate, want
}

// large is a value that does not compress: shards of them are too large to be read
// at once.
func large(n int) string {
	b := make([]byte, 150_000)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b) // never fails, by its contract
	return string(b)
}

// inPlace counts the shards that are still in a backup.
func (r *region) inPlace() (n int) {
	r.w.Helper()
	for _, s := range r.status().Shards {
		if s.InPlace != nil {
			n++
		}
	}
	return n
}

// here waits until all shards are here, and compares the state.
func (r *region) here(want *api.Status) {
	r.w.Helper()
	r.await("here", func() error {
		if n := r.inPlace(); n > 0 {
			return fmt.Errorf("%d shards are in place", n)
		}
		if got := r.status(); got.Digest == nil || *got.Digest != *want.Digest || !reflect.DeepEqual(got.Logs, want.Logs) {
			return fmt.Errorf("state %+v, want %+v", got.Logs, want.Logs)
		}
		return nil
	})
}

func (r *region) pins() int {
	r.w.Helper()
	pins, err := catalog.Pins(r.w.Context(), r.bucket, r.cfg.Region)
	if err != nil {
		r.w.Fatal(err)
	}
	return len(slices.DeleteFunc(pins, func(p catalog.PinStatus) bool { return !p.Holds(time.Now()) }))
}

// A node that takes shards out of a backup serves and folds them before they are here,
// and says how far they are; it goes on with that after it was stopped; in the end they
// are here and proved, and nothing holds the backup any more.
func TestInPlace(t *testing.T) {
	one(t, func(r *region) {
		bucket, gate, want := lost(r, 1)
		r.start()
		r.has("key-07", large(7))
		r.has("later", "value")
		if n := r.inPlace(); n == 0 {
			t.Error("everything was here before it was read")
		}
		if n := r.gauge("evenkeel_restore_in_place_bytes", "0"); n <= 0 {
			t.Errorf("%v bytes are in place by the metrics", n)
		}
		if n := r.pins(); n == 0 || n > partitions {
			t.Errorf("%d pins", n)
		}
		if _, err := r.CreateBackup(r.w.Context()); events.KindOf(err) != events.KindNotReady || !strings.Contains(err.Error(), "not proved yet") {
			t.Errorf("a backup of what is not proved: %v", err)
		}
		r.stop()
		if _, err := r.disk.Stat(filepath.Join(dataDir, "state", "shard-0000", projections.InPlaceFile)); err != nil {
			t.Errorf("everything was here when the node stopped: %v", err)
		}
		close(gate.opened)
		r.start()
		if n := r.pins(); n > partitions {
			t.Errorf("%d pins after another start", n)
		}
		r.here(want)
		r.await("let go of the backup", func() error { return errIf(r.pins() > 0, "it is pinned") })
		bucket.SetRules(away)
		r.stop()
		r.start()
		r.here(want)
		r.has("key-07", large(7))
		r.backup()
	})
}

// While the bucket is away what is not here cannot be read, and says which object it
// would be in; the node does not end, and goes on when the bucket is back.
func TestInPlaceWhileTheBucketIsAway(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		bucket, gate, want := lost(r, 1)
		r.start()
		bucket.SetRules(away)
		close(gate.opened)
		r.await("troubled", func() error {
			text := strings.Join(r.status().Problems, "\n")
			if !strings.Contains(text, "is not brought here from its backup") || !strings.Contains(text, ".sst.age") {
				return errors.New(text)
			}
			return nil
		})
		failed := 0
		for i := range 30 {
			_, err := r.Get(r.w.Context(), api.GetParams{Stream: "session", Key: fmt.Appendf(nil, "key-%02d", i)})
			if err != nil {
				failed++
				wantKind(t, err, events.KindNotReady, "state that is still in its backup", "object us-east-1/tables/")
			}
		}
		if failed == 0 {
			t.Error("everything could be read without the bucket")
		}
		time.Sleep(time.Hour)
		if err := r.Failure(); err != nil {
			t.Error(err)
		}
		bucket.SetRules()
		r.here(want)
		r.has("later", "value")
	})
}

// A shard whose backup is damaged is restored again: from the backup before, or, where
// there is none, from its logs.
func TestInPlaceDamaged(t *testing.T) {
	long(t)
	for _, before := range []int{0, 1} {
		for name, harm := range map[string]func(r *region, memory *objstore.Memory, object string) error{
			"flipped": func(_ *region, memory *objstore.Memory, object string) error {
				return memory.Damage(object, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
			},
			"lost": func(r *region, memory *objstore.Memory, object string) error {
				return memory.Delete(r.w.Context(), object)
			},
		} {
			t.Run(fmt.Sprintf("%s, %d before", name, before), func(t *testing.T) {
				one(t, func(r *region) {
					memory := r.bucket.(*objstore.Memory)
					_, gate, want := lost(r, 1+before)
					r.start()
					m, err := catalog.Newest(r.w.Context(), memory, us)
					if err != nil {
						t.Fatal(err)
					}
					for table := range m.Tables() {
						if err := harm(r, memory, table.Name); err != nil {
							t.Fatal(err)
						}
					}
					close(gate.opened)
					r.await("damaged", func() error {
						if !strings.Contains(r.log.String(), "is damaged") {
							return errors.New("the log does not say so")
						}
						return nil
					})
					r.await("ready", func() error { return r.Ready(r.w.Context()) })
					r.here(want)
					for _, s := range r.status().Shards {
						if strings.Contains(s.Began, m.ID) {
							t.Errorf("shard %d began with %s", s.Partition, s.Began)
						}
					}
					r.has("later", "value")
				})
			})
		}
	}
}

// What a shard is still in is not pruned away, however old, until it is here.
func TestInPlaceIsNotPruned(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		_, gate, want := lost(r, 3)
		ids, err := catalog.IDs(r.w.Context(), r.bucket, us)
		if err != nil {
			t.Fatal(err)
		}
		job := r.job()
		job.Request.Backup = ids[0]
		if _, err := pipeline.RestoreInPlace(r.w.Context(), job); err != nil {
			t.Fatal(err)
		}
		if _, err := pipeline.RestoreInPlace(r.w.Context(), job); events.KindOf(err) != events.KindRefused {
			t.Errorf("in place of what is there: %v", err)
		}
		r.setTopic("session", "retention.ms", "-1")
		time.Sleep(catalog.PinFor + time.Hour)
		pins, err := catalog.Pins(r.w.Context(), r.bucket, us)
		if err != nil || len(pins) == 0 {
			t.Fatalf("%+v, %v", pins, err)
		}
		for _, p := range pins { // they are over
			if err := r.bucket.Delete(r.w.Context(), p.Object); err != nil {
				t.Fatal(err)
			}
		}
		r.start()
		r.has("key-07", large(7))
		r.cfg.Backup.Keep.Full, r.cfg.Backup.KeepLast = 0, 1
		prune := func(want ...string) {
			t.Helper()
			if _, err := r.PruneBackups(r.w.Context(), api.PruneBackupsParams{Run: true}); err != nil {
				t.Fatal(err)
			}
			if got := r.ids(); !slices.Equal(got, want) {
				t.Errorf("%q are left of %q, want %q", got, ids, want)
			}
		}
		prune(ids[0], ids[2])
		close(gate.opened)
		r.here(want)
		r.await("let go of the backup", func() error { return errIf(r.pins() > 0, "it is pinned") })
		prune(ids[2])
	})
}

func errIf(is bool, text string) error {
	if is {
		return errors.New(text)
	}
	return nil
}

// A state that was restored in place is a node's to go on with.
func TestRestoreInPlace(t *testing.T) {
	one(t, func(r *region) {
		_, gate, want := lost(r, 1)
		if _, err := pipeline.RestoreInPlace(r.w.Context(), r.job()); err != nil {
			t.Fatal(err)
		}
		if n := r.pins(); n != 1 {
			t.Errorf("%d pins", n)
		}
		r.start()
		r.has("key-07", large(7))
		for _, s := range r.status().Shards {
			if s.Began != "its directory" {
				t.Errorf("shard %d began with %s", s.Partition, s.Began)
			}
		}
		close(gate.opened)
		r.here(want)
	})
}

// Told not to, or of a small shard, nothing is in place.
func TestNothingInPlace(t *testing.T) {
	for name, set := range map[string]func(r *region){
		"not instant": func(r *region) { r.cfg.Restore.Instant = false },
		"too small":   func(r *region) { r.cfg.Restore.InstantFromBytes = 1 << 30 },
	} {
		t.Run(name, func(t *testing.T) {
			one(t, func(r *region) {
				bucket, _, want := lost(r, 1)
				set(r)
				bucket.SetRules(away) // of which a copy knows nothing
				r.start()
				r.here(want)
			})
		})
	}
}

// What is asked for in the background, some keys by name, waits for a shard that lies in the bucket; a
// reader does not.
func TestKeysOfAShardInPlace(t *testing.T) {
	one(t, func(r *region) {
		_, gate, want := lost(r, 1)
		r.start()
		if r.inPlace() != partitions {
			t.Fatalf("%d shards are in place", r.inPlace())
		}
		ask := func(p api.SlicesParams) (found int, err error) {
			p.Stream, p.Shards = "session", []int32{0, 1, 2}
			page, err := r.Slices(r.w.Context(), p)
			if err != nil {
				return 0, err
			}
			return len(page.Entities), nil
		}
		named := api.SlicesParams{Keys: []api.Bytes{api.Bytes("key-03"), api.Bytes("key-04"), api.Bytes("nobody")}, Limit: 3}
		_, err := ask(named)
		wantKind(t, err, events.KindNotReady, "lies in the bucket yet")
		if n, err := ask(api.SlicesParams{Key: api.Bytes("key-03")}); err != nil || n != 1 {
			t.Errorf("one key: %d, %v", n, err)
		}
		close(gate.opened)
		r.here(want)
		if n, err := ask(named); err != nil || n != 2 {
			t.Errorf("some keys, once they are here: %d, %v", n, err)
		}
	})
}
