package pipeline_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// lookup reads a key out of a state that was restored in place.
func lookup(t *testing.T, job pipeline.RestoreJob, key string) string {
	t.Helper()
	shards := make([]*projections.Shard, partitions)
	var g errgroup.Group
	for n := range shards {
		g.Go(func() (err error) {
			shards[n], err = pipeline.OpenShard(job, int32(n))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, s := range shards {
		defer s.Close()
	}
	e, err := projections.Get(shards, "session", key)
	if err != nil {
		t.Fatal(err)
	}
	return string(e.Value)
}

// A full backup and two hours of deltas, one a minute, are served out of the bucket at once, with what was
// archived behind the last of them, to its end or to any time: in few layers, so that a
// read asks for little; then they are brought here and proved.
func TestChainInPlace(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		withDeltas(r)
		r.cfg.Restore.InstantFromBytes = 0
		r.start()
		for i := range 30 {
			r.put(fmt.Sprintf("key-%02d", i), large(i))
		}
		r.eventsFolded(30)
		r.await("backed up", func() error { return errIf(r.kinds() != "f", "there is no full backup") })
		const minutes = 130
		var then time.Time
		for i := range minutes {
			key := fmt.Sprintf("key-%02d", 10+i%15)
			r.written(key, fmt.Sprintf("value-%d", i))
			if i == minutes/2 {
				time.Sleep(30 * time.Second)
				then = time.Now()
			}
			time.Sleep(time.Minute)
		}
		chain := len(r.newest().Parents) + 1
		last := r.put("key-00", "behind the last delta")
		r.get("key-00", events.Vector{last.Log: last.Offset + 1})
		r.archived(last.Log, last.Offset+1)
		want := r.status()
		r.stop()
		if err := r.disk.RemoveAll(filepath.Join(dataDir, "state")); err != nil {
			t.Fatal(err)
		}
		counted := &counting{Bucket: r.bucket}
		gate := &gated{Bucket: counted, opened: make(chan struct{})}
		r.bucket = gate

		past := r.job()
		past.Request, past.Dir = timeline.Request{Target: timeline.Target{Time: then}}, "/past"
		done, err := pipeline.RestoreInPlace(r.w.Context(), past)
		if err != nil || len(done.Plan.Chain) < 2 {
			t.Fatalf("%+v, %v", done, err)
		}
		key := fmt.Sprintf("key-%02d", 10+(minutes/2)%15)
		if got, want := lookup(t, past, key), fmt.Sprintf("value-%d", minutes/2); got != want {
			t.Errorf("%s at %s: %q, want %q", key, then, got, want)
		}
		if got := lookup(t, past, "key-00"); got != large(0) {
			t.Error("key-00 is not what it was")
		}

		job := r.job()
		job.Request = timeline.Request{}
		if done, err = pipeline.RestoreInPlace(r.w.Context(), job); err != nil {
			t.Fatal(err)
		}
		if done.Replayed.Records == 0 || done.Replayed.Marks == 0 || len(done.Plan.Chain) < chain-1 || len(done.Plan.Chain) > 1+3+5+9 {
			t.Errorf("%d backups, %+v", len(done.Plan.Chain), done.Replayed)
		}
		r.start()
		before := counted.ranges.Load()
		r.has("key-07", large(7))
		r.has("key-00", "behind the last delta")
		r.has(fmt.Sprintf("key-%02d", 10+(minutes-1)%15), fmt.Sprintf("value-%d", minutes-1))
		if n := counted.ranges.Load() - before; n > int64(3*partitions*len(done.Plan.Chain)*4) {
			t.Errorf("%d requests for three keys in %d layers", n, len(done.Plan.Chain))
		} else {
			t.Logf("%d backups in a chain after %d deltas, %d requests for three keys", len(done.Plan.Chain), minutes, n)
		}
		if r.inPlace() == 0 {
			t.Error("everything was here before it was read")
		}
		close(gate.opened)
		r.here(want)
		r.await("let go of the backup", func() error { return errIf(r.pins() > 2, "it is pinned") }) // two were restored, and no node has the one
	})
}

// What is opened and read first waits for the bucket as often as it has to, and not once for each
// delta that the backup builds on.
func TestFirstReadOfChain(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		withDeltas(r)
		r.start()
		for i := range 30 {
			r.put(fmt.Sprintf("key-%02d", i), large(i))
		}
		r.eventsFolded(30)
		r.await("backed up", func() error { return errIf(r.kinds() != "f", "there is no full backup") })
		for i := range 12 {
			for k := range 40 { // no table is so small that it is read as a whole
				r.put(fmt.Sprintf("key-%02d", 30+k), large(i + k)[:60_000])
			}
			time.Sleep(time.Minute)
		}
		newest := r.newest()
		r.stop()
		const trip = 20 * time.Millisecond
		reads := []string{objstore.OpGet, objstore.OpGetRange, objstore.OpList}
		r.bucket = faults.New(r.bucket, faults.Rule{Ops: reads, Effect: faults.Wait, Delay: trip})
		job := r.job()
		job.Request, job.Dir = timeline.Request{Target: timeline.Target{Backup: newest.ID}}, "/past"
		begun := time.Now()
		if _, err := pipeline.RestoreInPlace(r.w.Context(), job); err != nil {
			t.Fatal(err)
		}
		if got, want := lookup(t, job, "key-29"), large(29); got != want {
			t.Errorf("key-29 is %q, want %q", got, want)
		}
		trips, layers := int(time.Since(begun)/trip), len(newest.Parents)+1
		t.Logf("%d layers, %d times waited for the bucket", layers, trips)
		if layers < 8 || trips > 16 {
			t.Errorf("%d layers, %d times waited for the bucket until a key was read, want 8 layers and 16 times at most", layers, trips)
		}
	})
}
