package pipeline_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// reported waits until the state of a region has the report of its restore.
func (r *region) reported() {
	r.w.Helper()
	r.await("reported", func() error {
		_, err := r.disk.Stat(filepath.Join(dataDir, "state", pipeline.RestoreReport))
		return err
	})
}

// A state that was restored in place has no report before all of it is here and proved, also
// if its node is stopped meanwhile; then it has one that its proof agrees with.
func TestInstantRestoreIsReported(t *testing.T) {
	one(t, func(r *region) {
		_, gate, want := lost(r, 1)
		done, err := pipeline.RestoreInPlace(r.w.Context(), r.job())
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(dataDir, "state")
		unproved := func() {
			t.Helper()
			for _, path := range []string{dir, filepath.Join(dir, pipeline.RestoringInPlace)} {
				_, err := pipeline.ProveRestored(r.disk, path)
				wantKind(t, err, events.KindNotReady, "not proved yet", done.Plan.Base)
			}
		}
		unproved()
		r.start()
		r.has("key-07", large(7))
		unproved()
		r.stop()
		unproved()
		r.start()
		r.eventsFolded(31) // what came since the backup, or the state would go on behind its report
		close(gate.opened)
		r.here(want)
		r.reported()
		r.stop()
		proof, err := pipeline.ProveRestored(r.disk, dir)
		if err != nil {
			t.Fatal(err)
		}
		if proof.Backup != done.Plan.Base || proof.Served.IsZero() || proof.Duration <= 0 || proof.Bytes != done.Bytes || proof.Lineage == "" ||
			proof.Digest != digest.Total(proof.States) || len(proof.States) == 0 || proof.Vector.Compare(done.Plan.Vector) != events.Equal {
			t.Errorf("%+v", proof)
		}
		names, err := r.disk.List(dir)
		if err != nil || slices.ContainsFunc(names, func(n string) bool {
			return n == pipeline.RestoringInPlace || filepath.Ext(n) == ".json" && n != pipeline.RestoreReport
		}) {
			t.Errorf("left in the state: %q, %v", names, err)
		}
	})
}

// One shard of a restored state that turned out to be damaged, and came from elsewhere,
// makes no proof of the restore.
func TestInstantRestoreThatIsDamagedHasNoReport(t *testing.T) {
	one(t, func(r *region) {
		memory := r.bucket
		_, gate, want := lost(r, 2)
		if _, err := pipeline.RestoreInPlace(r.w.Context(), r.job()); err != nil {
			t.Fatal(err)
		}
		r.start()
		m, err := catalog.Newest(r.w.Context(), memory, us)
		if err != nil {
			t.Fatal(err)
		}
		r.bucket = memory
		r.damageShard(m.ID, 0)
		r.bucket = gate
		close(gate.opened)
		r.await("damaged", func() error {
			_, err := r.disk.Stat(filepath.Join(dataDir, "state", "shard-0000", projections.InPlaceFile))
			return errIf(err == nil, "shard 0 is in place")
		})
		r.here(want)
		r.stop()
		_, err = pipeline.ProveRestored(r.disk, filepath.Join(dataDir, "state"))
		wantKind(t, err, events.KindNotReady, "of shards [0]")
	})
}

// damageShard flips a byte in every table that a backup has of a shard.
func (r *region) damageShard(id string, partition int32) {
	r.w.Helper()
	m, err := catalog.Manifest(r.w.Context(), r.bucket, r.cfg.Region, id)
	if err != nil {
		r.w.Fatal(err)
	}
	memory, ok := r.bucket.(interface {
		Damage(name string, change func([]byte) []byte) error
	})
	if !ok {
		r.w.Fatal(errNoMemory)
	}
	for _, t := range m.Shards[partition].Tables {
		if err := memory.Damage(t.Name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
			r.w.Fatal(err)
		}
	}
}

// A restore in place that is killed at any operation on its disk goes on when it is asked
// for again, and comes to the same.
func TestInstantRestoreKilledAnywhere(t *testing.T) {
	long(t)
	const seeds = uint64(4)
	resumed, fresh := 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			p := some(t)
			defer p.close()
			fs := vfs.NewCrashableMem()
			c := &camera{fs: fs, rng: rand.New(rand.NewPCG(seed, 3)), one: 8}
			target := timeline.Target{Time: second(int(280 + 20*(seed%4)))}
			job := p.job(errorfs.Wrap(film{fs, c}, c), target)
			want, err := pipeline.RestoreInPlace(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			lineage := lineageOf(t, p.job(fs, target)) // without the camera: nobody is killed any more
			if len(c.pictures) < 10 {
				t.Fatalf("%d pictures of %d operations", len(c.pictures), c.ops)
			}
			for i, picture := range c.pictures {
				again := p.job(picture, target)
				got, err := pipeline.RestoreInPlace(t.Context(), again)
				switch {
				case events.KindOf(err) == events.KindRefused && notEmpty(err): // it was over
				case err != nil:
					t.Fatalf("picture %d, %s: %v", i, c.at[i], err)
				case got.Plan.Vector.Compare(want.Plan.Vector) != events.Equal || got.Bytes != want.Bytes:
					t.Fatalf("picture %d: %s, want %s", i, got.Plan.Vector, want.Plan.Vector)
				}
				if lineageOf(t, again) == lineage {
					resumed++
				} else {
					fresh++
				}
				if err := p.inPlaceIs(again, want.Plan.Vector); err != nil {
					t.Fatalf("picture %d, %s: %v", i, c.at[i], err)
				}
				if names, err := picture.List("/restored"); err != nil || len(names) != 1 {
					t.Fatalf("picture %d, %s: there is %v, %v", i, c.at[i], names, err)
				}
			}
		})
	}
	if resumed == 0 || fresh == 0 {
		t.Errorf("%d restores went on, %d began anew: want some of each", resumed, fresh)
	}
}

func lineageOf(t *testing.T, job pipeline.RestoreJob) string {
	t.Helper()
	shard, err := pipeline.OpenShard(job, 0)
	if err == nil {
		err = shard.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return shard.Lineage().ID
}

func notEmpty(err error) bool { return strings.Contains(err.Error(), "not empty") }

// What is left of a restore of the one kind is not gone on with as one of the other.
func TestInstantRestoreIsAnotherOne(t *testing.T) {
	p := some(t)
	defer p.close()
	fs := vfs.NewMem()
	job := p.job(fs, timeline.Target{Time: second(300)})
	job.Keep = true
	stopped := job
	stopped.Bucket = faults.New(p.bucket, faults.Rule{Ops: []string{objstore.OpGetRange}, Name: "*/tables/*", Effect: faults.FailBefore})
	if _, err := pipeline.RestoreInPlace(t.Context(), stopped); err == nil {
		t.Fatal("it did not need its bucket")
	}
	_, err := pipeline.Restore(t.Context(), job)
	wantKind(t, err, events.KindRefused, "--instant", "--anew")
	if _, err := pipeline.RestoreInPlace(t.Context(), job); err != nil {
		t.Error(err)
	}
}
