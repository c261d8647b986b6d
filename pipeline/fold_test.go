package pipeline_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// smallDisk is a disk whose free space a test decides.
type smallDisk struct {
	vfs.FS
	free atomic.Uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	free := d.free.Load()
	return vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40, UsedBytes: 1<<40 - free}, nil
}

// eventsFolded waits until so many events are folded, and sees to it that it
// stays at that.
func (r *region) eventsFolded(n int64) {
	r.w.Helper()
	r.await(fmt.Sprint(n, " events folded"), func() error {
		if s := r.status(); api.Known(s.Events) != n {
			return fmt.Errorf("%d events", api.Known(s.Events))
		}
		return nil
	})
	time.Sleep(10 * time.Second)
	if s := r.status(); api.Known(s.Events) != n {
		r.w.Errorf("%d events folded, there are %d", api.Known(s.Events), n)
	}
}

// While the disk is nearly full folding waits, says so, and loses nothing; it
// goes on by itself.
func TestDiskNearlyFull(t *testing.T) {
	one(t, func(r *region) {
		disk := &smallDisk{FS: r.disk}
		disk.free.Store(1 << 30)
		r.disk, r.cfg.Limits.MinFreeBytes = disk, 100<<20
		r.start()
		r.put("k", "before")
		r.has("k", "before")

		disk.free.Store(99 << 20)
		for i := range 20 {
			r.put("k", fmt.Sprint("meanwhile-", i)) // the log takes it
		}
		r.troubled("nearly full", "99 MiB free", "100 MiB", dataDir)
		r.has("k", "before") // what was folded can be read
		time.Sleep(time.Minute)
		r.troubled("nearly full")
		if n := strings.Count(r.log.String(), "folding waits"); n != 1 {
			t.Errorf("it was logged %d times that folding waits", n)
		}

		disk.free.Store(1 << 30)
		r.has("k", "meanwhile-19")
		r.eventsFolded(21)
		r.await("ready", func() error { return r.Ready(r.w.Context()) })

		// A node that waits can be stopped, and goes on after a restart.
		disk.free.Store(0)
		r.put("k", "last")
		r.troubled("nearly full")
		r.within(stopLimit, "stop", r.stop)
		disk.free.Store(1 << 30)
		r.start()
		r.has("k", "last")
		r.eventsFolded(22)
	})
}

// A record that is no event is set aside, with position and reason, and is in
// nobody's way.
func TestParked(t *testing.T) {
	const secret = "s3cr3t-payload"
	one(t, func(r *region) {
		r.start()
		header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
		r.produce(
			&kgo.Record{Topic: "session", Partition: 1, Key: []byte("a"), Value: []byte("1")},
			&kgo.Record{Topic: "session", Partition: 1, Value: []byte(secret)},
			&kgo.Record{Topic: "session", Partition: 1, Key: []byte("b"), Value: []byte(secret), Headers: []kgo.RecordHeader{header("ce_id", "1")}},
			&kgo.Record{Topic: "session", Partition: 1, Key: []byte("a"), Value: []byte("2")},
			&kgo.Record{Topic: "session", Partition: 2, Key: []byte("c"), Value: []byte("3")},
		)
		r.has("a", "2")
		r.has("c", "3")
		s := r.status()
		if !s.Ready || api.Known(s.Parked) != 2 || api.Known(s.Events) != 3 || len(s.Examples) != 2 || !strings.Contains(strings.Join(s.Problems, "\n"), "2 records are parked") {
			t.Errorf("%+v", s)
		}
		for i, want := range []struct{ position, reason string }{
			{"us-east-1/session/1@1", "key"}, {"us-east-1/session/1@2", "ce_specversion"},
		} {
			if got := s.Examples[i]; got.Position.String() != want.position || !strings.Contains(got.Reason, want.reason) || strings.Contains(got.Reason, secret) {
				t.Errorf("example %d: %+v", i, got)
			}
		}
		for range 20 {
			r.produce(&kgo.Record{Topic: "session", Partition: 1, Value: []byte(secret)})
		}
		r.await("parked", func() error {
			if s := r.status(); api.Known(s.Parked) != 22 || len(s.Examples) != 10 {
				return fmt.Errorf("%d parked, %d shown", api.Known(s.Parked), len(s.Examples))
			}
			return nil
		})
		r.stop()
		r.start() // and it is remembered
		if s := r.status(); api.Known(s.Parked) != 22 || s.Examples[0].Position.String() != "us-east-1/session/1@1" {
			t.Errorf("after a restart: %d parked, first %v", api.Known(s.Parked), s.Examples[0])
		}
	})
}

// compact lets a topic be compacted, and waits until the node knows.
func (r *region) compact(topic string) {
	r.w.Helper()
	r.setTopic(topic, "cleanup.policy", "compact")
	time.Sleep(time.Minute) // it looks at its topics now and then
}

// A hole in a log that is compacted blocks that log, by name: whoever has not folded
// before what is gone cannot do so any more. The others go on, also in the same shard,
// and the node is not ready.
func TestHole(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.compact("session")
		r.transact(kgo.TryCommit, &kgo.Record{Topic: "session", Partition: 1, Key: []byte("a"), Value: []byte("1")})
		r.has("a", "1")
		r.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("a"), Value: []byte("behind the hole")})
		r.troubled("us-east-1/session/1", "offsets 1 to 1 are missing")
		for range 2 {
			for topic, p := range map[string]int32{"session": 2, "config": 1} {
				r.produce(&kgo.Record{Topic: topic, Partition: p, Key: []byte("other"), Value: []byte(topic)})
				r.await("the others go on", func() error {
					e, err := r.Get(r.w.Context(), api.GetParams{Stream: events.Stream(topic), Key: []byte("other")})
					if err == nil && string(e.Value) != topic {
						err = errors.New(string(e.Value))
					}
					return err
				})
			}
			s := r.status()
			if blocked := s.Shards[1].Blocked; len(blocked) != 1 || !strings.Contains(blocked[0], "us-east-1/session/1") || len(s.Shards[0].Blocked)+len(s.Shards[2].Blocked) > 0 {
				t.Errorf("blocked: %+v", s.Shards)
			}
			r.has("a", "1")
			// After a restart it is found again.
			r.stop()
			if err := r.tryStart(); err != nil {
				t.Fatal(err)
			}
			r.troubled("us-east-1/session/1", "offsets 1 to 1 are missing")
		}
	})
}

// Records that expired before they were folded are a hole too.
func TestExpired(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("a"), Value: []byte("1")})
		r.has("a", "1")
		r.stop()
		for range 5 {
			r.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("a"), Value: []byte("2")})
		}
		if err := r.kafka.DeleteRecords("session", 1, 4); err != nil {
			t.Fatal(err)
		}
		if err := r.tryStart(); err != nil {
			t.Fatal(err)
		}
		r.troubled("us-east-1/session/1", "topic session of us-east-1", "offset 1", "restore")
		r.has("a", "1")
		r.put("other", "log")
	})
}

// Somebody gives a topic more partitions while the node runs.
func TestTopicExtended(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.put("k", "v")
		r.has("k", "v")
		client := r.dial(kgo.MetadataMinAge(10 * time.Millisecond))
		defer client.Close()
		res, err := kadm.NewClient(client).UpdatePartitions(r.w.Context(), partitions+1, "session")
		if err == nil {
			err = res.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
		r.produce(&kgo.Record{Topic: "session", Partition: partitions, Key: []byte("new"), Value: []byte("v")})
		time.Sleep(5 * time.Minute) // a client looks at its topics that often
		r.troubled("topic session", "4 partitions", "3")
		r.has("k", "v")
		r.within(stopLimit, "stop", r.stop)
		wantKind(t, r.tryStart(), events.KindRefused, "topic session of us-east-1 has 4 partitions")
	})
}

// A topic that is deleted while the node runs is named; the others go on, and
// nobody spins: in a bubble time would stand still.
func TestTopicGone(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		if err := r.kafka.DeleteTopic("config"); err != nil {
			t.Fatal(err)
		}
		r.troubled("topic config", "us-east-1")
		time.Sleep(time.Minute)
		r.troubled("topic config")
		r.put("k", "v")
		r.has("k", "v")
	})
}

// Without Kafka what was folded can be read; the node says that it is not up to
// date, and goes on when Kafka is back.
func TestKafkaAway(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.put("k", "v")
		r.has("k", "v")
		r.down()
		r.troubled("us-east-1")
		r.has("k", "v")
		time.Sleep(time.Minute)
		r.up()
		r.await("ready", func() error { return r.Ready(r.w.Context()) })
		r.put("k", "w")
		r.has("k", "w")
		r.eventsFolded(2)
		if problems := r.status().Problems; len(problems) > 0 {
			t.Errorf("left over: %q", problems)
		}
	})
}

// The state is where the configuration says, under names that do not change.
func TestLayout(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		names, err := r.disk.List(filepath.Join(dataDir, "state"))
		slices.Sort(names)
		if err != nil || strings.Join(names, " ") != "shard-0000 shard-0001 shard-0002" {
			t.Errorf("%v, %v", names, err)
		}
	})
}
