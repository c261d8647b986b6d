package pipeline_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator/divergence"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

func (r *region) restoreShards(req timeline.Request) map[int32]string {
	r.w.Helper()
	begun, err := r.RestoreShards(r.w.Context(), api.RestoreShardsParams{Request: req})
	if err != nil {
		r.w.Fatalf("%s: restore shards: %v", r.cfg.Region, err)
	}
	lineages := map[int32]string{}
	for _, s := range begun.Shards {
		lineages[s.Partition] = s.Lineage
	}
	return lineages
}

// restored waits until shards are, and nothing of that is left but the note that the next
// backup ends.
func (r *region) restored(lineages map[int32]string) {
	r.w.Helper()
	r.await("restored", func() error {
		for _, row := range r.status().Shards {
			want, is := lineages[row.Partition]
			switch {
			case row.Restoring != nil && row.Restoring.Step == api.RestoreFailed:
				r.w.Fatalf("shard %d: %s", row.Partition, row.Restoring.Error)
			case row.Restoring != nil:
				return fmt.Errorf("shard %d: %+v", row.Partition, *row.Restoring)
			case is && row.Lineage != want:
				return fmt.Errorf("shard %d is of lineage %s, want %s; %s %s", row.Partition, row.Lineage, want, row.State, row.Error)
			}
		}
		return r.Ready(r.w.Context())
	})
	for p := range lineages {
		for _, name := range []string{"shard-%04d", "old-%04d", "shard-%04d.restoring"} {
			if _, err := r.disk.Stat(filepath.Join(dataDir, "renewing", fmt.Sprintf(name, p))); err == nil {
				r.w.Errorf("shard %d: %s is left", p, fmt.Sprintf(name, p))
			}
		}
	}
}

// diverged makes three regions of which the last holds a wrong state of a shard, though the
// records are the same, and a backup from before. It returns the log, and the backup's id.
func diverged(a, b, c *region) (log events.Log, backup string) {
	first := a.put("k", "1")
	for i := range 20 {
		[]*region{a, b, c}[i%3].put(fmt.Sprintf("other-%d", i), "value")
	}
	settle([]*region{a, b, c})
	c.consistent()
	backup = c.backup().ID
	c.stop()
	before := c.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
	c.start()
	a.put("k", "2")
	c.has("k", "2")
	c.stop()
	c.disk = before
	c.foldWrongly(first.Log, 0)
	c.start()
	c.finds(first.Log, divergence.Diverged, divergence.LayerFold)
	return first.Log, backup
}

// A state that has diverged is healed by that of a backup while the node runs: the shard
// gets a new lineage, the others are left alone, and what is backed up next is whole.
func TestRestoreShardsHeals(t *testing.T) {
	threeOf(t, order, func(a, b, c *region) {
		log, backup := diverged(a, b, c)
		c.backup() // of the wrong state: the newest
		was := c.status()
		lineages := c.restoreShards(timeline.Request{Target: timeline.Target{Backup: backup}, Shards: []int32{log.Partition}})
		if len(lineages) != 1 {
			t.Fatalf("%v", lineages)
		}
		again := c.restoreShards(timeline.Request{Target: timeline.Target{Backup: backup}, Shards: []int32{log.Partition}})
		if again[log.Partition] != lineages[log.Partition] {
			t.Errorf("asked twice: %v and %v", lineages, again)
		}
		_, err := c.RestoreShards(c.w.Context(), api.RestoreShardsParams{Request: timeline.Request{Shards: []int32{log.Partition}}})
		wantKind(t, err, events.KindRefused, "is being restored", backup)
		c.restored(lineages)
		for _, r := range []*region{a, b, c} {
			r.consistent()
		}
		c.has("k", "2")
		for i, row := range c.status().Shards {
			if is := row.Lineage == was.Shards[i].Lineage; is != (row.Partition != log.Partition) || is && row.Epoch != was.Shards[i].Epoch {
				t.Errorf("shard %d: %+v, was %+v", i, row, was.Shards[i])
			}
		}
		// Deltas would lie on backups of the wrong state.
		c.put("more", "value")
		c.cfg.Backup.Schedule.Delta = 0
		full := c.backup()
		if _, err := c.restore("try"); err != nil {
			t.Error(err)
		}
		c.stop()
		c.start()
		c.consistent()
		if _, err := c.GetAt(c.w.Context(), api.GetAtParams{Stream: "session", Key: []byte("k"), PastTarget: api.PastTarget{Backup: full.ID}}); err != nil {
			t.Error(err)
		}
	})
}

// By default it is the newest backup that is whole; of one that is damaged nothing is left.
// One that is named and damaged leaves the shard as it was, and it says so.
func TestRestoreShardsDamaged(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		for i := range 30 {
			r.put(fmt.Sprintf("key-%02d", i), "value")
		}
		r.eventsFolded(30)
		good := r.backup().ID
		r.put("later", "value")
		r.eventsFolded(31)
		r.away(time.Minute)
		bad := r.backup().ID
		r.damage(bad)
		was := r.status()
		begun := r.restoreShards(timeline.Request{Target: timeline.Target{Backup: bad}, Shards: []int32{1}})
		r.await("refused", func() error {
			at := r.status().Shards[1].Restoring
			if at == nil || at.Step != api.RestoreFailed || !strings.Contains(at.Error, bad) || at.Lineage != begun[1] {
				return fmt.Errorf("%+v", at)
			}
			return nil
		})
		if now := r.status(); now.Shards[1].Lineage != was.Shards[1].Lineage || *now.Digest != *was.Digest {
			t.Errorf("%+v, was %+v", now.Shards[1], was.Shards[1])
		}
		if text := strings.Join(r.status().Problems, "\n"); !strings.Contains(text, "shard 1 is not restored") {
			t.Errorf("status: %s", text)
		}
		lineages := r.restoreShards(timeline.Request{})
		if len(lineages) != partitions {
			t.Errorf("%v", lineages)
		}
		r.restored(lineages)
		for _, row := range r.status().Shards {
			if !strings.Contains(row.Began, good) {
				t.Errorf("shard %d began with %s, want %s", row.Partition, row.Began, good)
			}
		}
		r.here(was)
		for _, p := range []api.RestoreShardsParams{
			{Request: timeline.Request{Shards: []int32{partitions}}},
			{Request: timeline.Request{Streams: []events.Stream{"session"}}},
		} {
			_, err := r.RestoreShards(r.w.Context(), p)
			wantKind(t, err, events.KindInvalid)
		}
	})
}

// A large shard serves out of the backup at once, and the old state is kept until it is
// here and proved.
func TestRestoreShardsInPlace(t *testing.T) {
	one(t, func(r *region) {
		_, gate, want := lost(r, 1)
		r.start()
		close(gate.opened)
		r.here(want)
		gate.opened = make(chan struct{})
		lineages := r.restoreShards(timeline.Request{})
		r.await("served", func() error {
			for _, row := range r.status().Shards {
				if row.Lineage != lineages[row.Partition] || row.Restoring == nil || row.Restoring.Step != api.RestoreProving {
					return fmt.Errorf("%+v", row)
				}
			}
			return nil
		})
		r.has("key-07", large(7))
		if _, err := r.disk.Stat(filepath.Join(dataDir, "renewing", "old-0000")); err != nil {
			t.Errorf("the old state is not kept: %v", err)
		}
		close(gate.opened)
		r.restored(lineages)
		r.here(want)
	})
}

// A shard goes back to what it was at a time as well; what its logs have since follows.
func TestRestoreShardsToATime(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Backup.Schedule.Segment = time.Second
		r.start()
		r.put("k", "1")
		r.eventsFolded(1)
		r.backup()
		r.put("k", "2")
		r.away(time.Minute)
		at := time.Now()
		last := r.put("k", "3")
		r.eventsFolded(3)
		r.archived(last.Log, last.Offset+1)
		was := r.status()
		lineages := r.restoreShards(timeline.Request{Target: timeline.Target{Time: at}, Shards: []int32{last.Partition}})
		r.restored(lineages)
		r.here(was)
	})
}

// Killed at any operation on its disk or call of its bucket, and started again, the node comes to
// the same, with the lineage that was promised or, where nothing had been noted yet, as it was.
func TestRestoreShardsKilledAnywhere(t *testing.T) {
	long(t)
	const seeds = uint64(12)
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel() // or two processors would wait for one in the end
			restoreShardsKilled(t, rand.New(rand.NewPCG(seed, 2)), seed%2 == 1)
		})
	}
}

func restoreShardsKilled(t *testing.T, rng *rand.Rand, inPlace bool) {
	one(t, func(r *region) {
		if inPlace {
			r.cfg.Restore.InstantFromBytes = 0
		}
		r.start()
		for i := range 40 {
			r.put(fmt.Sprintf("key-%02d", i), strings.Repeat("value", 100))
		}
		r.eventsFolded(40)
		r.backup()
		r.put("later", "value")
		r.eventsFolded(41)
		want := r.status()
		r.stop()
		c := &camera{fs: r.disk.(*vfs.MemFS), rng: rng, one: 1, whole: true}
		r.disk = errorfs.Wrap(film{c.fs, c}, only{c, "renewing", "state/shard"})
		bucket := r.bucket
		r.bucket = filmed{bucket, c}
		r.start()
		c.mu.Lock()
		c.pictures, c.at, c.synced, c.one = nil, nil, nil, 5+rng.IntN(25)
		c.mu.Unlock()
		lineages := r.restoreShards(timeline.Request{})
		c.mu.Lock()
		promised := len(c.pictures) // to whoever asked, from this one on
		c.mu.Unlock()
		r.restored(lineages)
		r.here(want)
		r.stop()
		r.bucket = bucket
		began, last := 0, 0
		for i, picture := range c.pictures {
			r.disk = picture
			r.start()
			r.restored(map[int32]string{})
			r.here(want)
			now := 0
			for _, row := range r.status().Shards {
				if row.Lineage == lineages[row.Partition] {
					now++
				}
			}
			if i >= promised {
				began = partitions
			}
			if now < began {
				t.Fatalf("picture %d, %s: %d shards have the new state, %d had it before, or were to have it", i, c.at[i], now, began)
			}
			if c.synced[i] { // what was not may be in one picture and not in the next
				began = now
			}
			last = now
			r.stop()
		}
		if last != partitions || len(c.pictures) < 5 {
			t.Errorf("%d of %d shards at last, %d pictures of %d operations", last, partitions, len(c.pictures), c.ops)
		}
	})
}

// only has an injector look at operations on paths with one of some parts.
type only struct {
	*camera
	a, b string
}

func (o only) MaybeError(op errorfs.Op) error {
	if !strings.Contains(op.Path, o.a) && !strings.Contains(op.Path, o.b) {
		return nil
	}
	return o.camera.MaybeError(op)
}

var errNoMemory = errors.New("the bucket is not in memory")

// damage flips a byte in every table of a backup.
func (r *region) damage(id string) {
	r.w.Helper()
	memory, ok := r.bucket.(interface {
		Damage(name string, change func([]byte) []byte) error
	})
	if !ok {
		r.w.Fatal(errNoMemory)
	}
	for _, name := range r.tables(id) {
		if err := memory.Damage(name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
			r.w.Fatal(err)
		}
	}
}

// tables names the objects of a backup's tables.
func (r *region) tables(id string) (names []string) {
	r.w.Helper()
	m, err := catalog.Manifest(r.w.Context(), r.bucket, r.cfg.Region, id)
	if err != nil {
		r.w.Fatal(err)
	}
	for t := range m.Tables() {
		names = append(names, t.Name)
	}
	return names
}
