package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// paces waits until a shard's pace is a word, and returns its load.
func (r *region) paces(shard int, word string) api.ShardLoad {
	r.w.Helper()
	var load api.ShardLoad
	r.await(word, func() error {
		if load = r.status().Shards[shard].Load; load.Pace != word {
			return fmt.Errorf("it is %s: %+v", load.Pace, load)
		}
		return nil
	})
	return load
}

// Each shard says in one word what holds it up, and takes it back.
func TestPace(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		disk := &smallDisk{FS: r.disk}
		disk.free.Store(1 << 30)
		r.disk, r.cfg.Limits.MinFreeBytes = disk, 100<<20
		r.start()
		at := r.put("k", "v")
		shard := int(at.Partition)
		r.has("k", "v")
		for i := range partitions {
			r.paces(i, api.PaceKeepingUp)
		}
		time.Sleep(time.Hour)
		r.paces(shard, api.PaceKeepingUp) // nothing to do is no trouble

		r.down()
		for i := range partitions {
			r.paces(i, api.PaceNetwork)
		}
		r.up()
		r.paces(shard, api.PaceKeepingUp)

		disk.free.Store(1)
		r.put("k", "w")
		r.paces(shard, api.PaceDiskFull)
		r.paces((shard+1)%partitions, api.PaceKeepingUp)
		disk.free.Store(1 << 30)
		r.has("k", "w")
		r.paces(shard, api.PaceKeepingUp)

		if load := r.status().Shards[shard].Load; load.WaitSeconds < 3600 {
			t.Errorf("waited for records for %g s in more than an hour", load.WaitSeconds)
		}

		r.stop()
		for range 5 {
			r.produce(&kgo.Record{Topic: "session", Partition: at.Partition, Key: []byte("k"), Value: []byte("gone")})
		}
		if err := r.kafka.DeleteRecords("session", at.Partition, 6); err != nil {
			t.Fatal(err)
		}
		if err := r.tryStart(); err != nil {
			t.Fatal(err)
		}
		r.paces(shard, api.PaceBlocked)
		r.paces((shard+1)%partitions, api.PaceKeepingUp)
	})
}

// A node takes in as much as there is, however much that is, in bounded steps.
func TestFoldsLargeBacklogs(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		const n = 60
		value := noise(900_000)
		var records []*kgo.Record
		for i := range n {
			records = append(records, &kgo.Record{Topic: "session", Partition: 0, Key: []byte(fmt.Sprint("k", i)), Value: value})
		}
		r.start()
		r.stop()
		r.produce(records...)
		r.start()
		cut := events.Vector{{Origin: events.FirstOrigin(us), Stream: "session"}: n}
		if _, err := r.getAtLeast("k0", cut, 60); err != nil {
			t.Fatal(err)
		}
		load := r.paces(0, api.PaceKeepingUp)
		if load.Behind != 0 {
			t.Errorf("%+v", load)
		}
	})
}
