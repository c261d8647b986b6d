package pipeline_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// delete writes a delete that is acknowledged.
func (r *region) delete(key string) {
	r.w.Helper()
	if _, err := r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: []byte(key)}); err != nil {
		r.w.Fatalf("delete %s: %v", key, err)
	}
}

// collected waits until a region has taken so many tombstones out of its state.
func (r *region) collected(want float64) {
	r.w.Helper()
	r.await(fmt.Sprint(want, " tombstones collected"), func() error {
		if got := gather(r.w.T, r.registry)["evenkeel_fold_collected_total{}"]; got != want {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// Deletes are forgotten when they are old and everybody knows of them, in every
// region, at the same place, and no sooner.
func TestTombstonesAreCollected(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.cfg.Tombstones.Keep = 2 * time.Minute
			r.start()
		}
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		for i := range 20 {
			a.put(fmt.Sprint("k", i), "v")
		}
		for i := range 10 {
			a.delete(fmt.Sprint("k", i))
		}
		b.eventsFolded(30)  // else its put may be the earlier one
		b.put("k3", "here") // somebody holds something under it again
		c.has("k3", "here")
		time.Sleep(time.Minute)
		for _, r := range w.regions {
			r.collected(0)
		}
		for _, r := range w.regions {
			r.collected(9)
			r.consistent()
		}
		// A region that is away does not know of what is deleted meanwhile.
		c.stop()
		c.down()
		a.delete("k11")
		time.Sleep(10 * time.Minute)
		a.collected(9)
		c.up()
		c.start()
		a.collected(10)
		b.collected(10)
		for _, r := range w.regions {
			r.consistent()
		}
		// An old write is seen again, everywhere alike.
		a.produce(&kgo.Record{Topic: "session", Partition: 1, Key: []byte("k5"), Value: []byte("old"), Timestamp: time.UnixMilli(1)})
		for _, r := range w.regions {
			r.has("k5", "old")
			r.consistent()
		}
		digests := map[events.Digest]bool{}
		for _, r := range w.regions {
			digests[*r.status().Digest] = true
		}
		if len(digests) != 1 {
			t.Errorf("regions at the same vector have digests %v", digests)
		}
	}, us, west, eu)
}

// Kept for ever if it is said so.
func TestTombstonesAreKept(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Tombstones.Keep = 0
		r.start()
		r.put("k", "v")
		r.delete("k")
		time.Sleep(20 * time.Minute)
		r.collected(0)
	})
}

// slicesLeft are the keys of which a region has slices.
func (r *region) slicesLeft(stream events.Stream) (left []string) {
	r.w.Helper()
	page, err := r.Slices(r.w.Context(), api.SlicesParams{Stream: stream, Shards: []int32{0, 1, 2}, Limit: 100})
	if err != nil {
		r.w.Fatalf("%s: %v", r.cfg.Region, err)
	}
	for _, e := range page.Entities {
		for _, s := range e.Slices {
			left = append(left, fmt.Sprintf("%s in %s", e.Key, s.Log))
		}
	}
	return left
}

// A key that another partitioner has put into another partition, and that was deleted through the API: the
// delete is kept as long as it hides it, and goes once nothing is there.
func TestTombstonesHideOtherPartitions(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.cfg.Tombstones.Keep = time.Minute
			r.start()
		}
		a, b := w.regions[0], w.regions[1]
		other := (a.put("k", "first").Partition + 1) % partitions
		b.has("k", "first")
		b.produce(&kgo.Record{Topic: "session", Partition: other, Key: []byte("k"), Value: []byte("elsewhere")})
		a.has("k", "elsewhere")
		a.delete("k")
		time.Sleep(20 * time.Minute)
		for _, r := range w.regions {
			r.await("gone", func() error { return r.gone("k") })
			r.collected(0)
		}
		b.produce(&kgo.Record{Topic: "session", Partition: other, Key: []byte("k")})
		for _, r := range w.regions {
			r.collected(2)
			r.await("gone", func() error { return r.gone("k") })
			r.consistent()
		}
		for _, r := range w.regions {
			if left := r.slicesLeft("session"); len(left) > 0 {
				t.Errorf("%s has %v", r.cfg.Region, left)
			}
		}
	}, us, west, eu)
}

// keeping starts three regions that collect what is so old, with streams of all rules that have deletes, and without
// backups: nothing has to be kept for those who are restored.
func keeping(w *world, keep time.Duration) (a, b, c *region) {
	w.Helper()
	for _, r := range w.regions {
		r.cfg.Tombstones.Keep, r.cfg.Backup, r.bucket = keep, nil, nil
		r.cfg.Streams["config"] = config.Stream{Topic: "config", Merge: "fieldmap"}
		r.cfg.Streams["values"] = config.Stream{Topic: "values", Merge: "multivalue"}
		r.start()
	}
	return w.regions[0], w.regions[1], w.regions[2]
}

var keptStreams = []events.Stream{"session", "config", "values"}

// write writes to a key of a stream; nil deletes it.
func (r *region) write(stream events.Stream, key, typ string, value []byte) {
	r.w.Helper()
	if _, err := r.Put(r.w.Context(), api.PutParams{Stream: stream, Key: []byte(key), Value: value, Type: typ}); err != nil {
		r.w.Fatal(err)
	}
}

func (r *region) writeAll(key string, value []byte) {
	r.w.Helper()
	for _, stream := range keptStreams {
		r.write(stream, key, "", value)
	}
}

// upkept waits until so many slices were buried and so many tombstones collected, which takes minutes; it is looked
// each second, since a look costs more than a second of a region does.
func (r *region) upkept(buried, collected float64) {
	r.w.Helper()
	r.awaitEvery(time.Second, fmt.Sprint(buried, " slices buried, ", collected, " tombstones collected"), func() error {
		series := gather(r.w.T, r.registry)
		if b, c := series["evenkeel_fold_buried_total{}"], series["evenkeel_fold_collected_total{}"]; b != buried || c != collected {
			return fmt.Errorf("%v and %v", b, c)
		}
		return nil
	})
}

// isEmpty wants nothing of any key in the region's state.
func (r *region) isEmpty() {
	r.w.Helper()
	for _, stream := range keptStreams {
		if left := r.slicesLeft(stream); len(left) > 0 {
			r.w.Errorf("%s has %v", r.cfg.Region, left)
		}
	}
	if s := r.status(); *s.Keys != 0 {
		r.w.Errorf("%s has %d keys", r.cfg.Region, *s.Keys)
	}
}

// A key that is written in one region and deleted in another goes, whatever rule its stream has: what is hidden
// becomes a tombstone when its delete is old, and all tombstones go when that is old, in whatever region they are. No write that comes
// after it brings anything back.
func TestWhatAnotherRegionHasDeletedGoes(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a, b, c := keeping(w, 4*time.Minute)
		count := func(r *region) { r.write("config", "k", events.TypePatch, []byte(`{"increment":{"n":1}}`)) }
		b.writeAll("k", []byte(`{"f":1}`))
		count(b)
		a.eventsFolded(4)
		a.writeAll("k", nil)
		time.Sleep(3 * time.Minute)
		for _, r := range w.regions {
			r.upkept(0, 0)
		}
		for _, r := range w.regions {
			r.upkept(3, 0)
		}
		time.Sleep(3 * time.Minute)
		for _, r := range w.regions {
			r.upkept(3, 0) // a region that is restored alone might have lost the burial
			r.await("gone", func() error { return r.gone("k") })
			r.consistent()
		}
		for _, r := range w.regions {
			r.upkept(3, 6)
			r.consistent()
			r.isEmpty()
		}
		count(b)
		count(c)
		for _, r := range w.regions {
			r.await("counted", func() error {
				e, err := r.Get(w.Context(), api.GetParams{Stream: "config", Key: []byte("k")})
				if err == nil && string(e.Value) != `{"n":2}` {
					return fmt.Errorf("it is %s", e.Value)
				}
				return err
			})
			r.await("gone", func() error { return r.gone("k") })
			r.consistent()
		}
	}, us, west, eu)
}

// What is written again before it is buried, and while it is, is seen and stays; and is gone once it is deleted, in yet
// another region.
func TestWhatIsWrittenAgainIsNotCollected(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a, b, c := keeping(w, 4*time.Minute)
		for _, key := range []string{"before", "between"} {
			b.writeAll(key, []byte(`{"f":1}`))
		}
		a.eventsFolded(6)
		for _, key := range []string{"before", "between"} {
			a.writeAll(key, nil)
		}
		b.eventsFolded(12)
		b.writeAll("before", []byte(`{"f":2}`))
		for _, r := range w.regions {
			r.upkept(3, 0)
		}
		c.writeAll("between", []byte(`{"f":2}`))
		time.Sleep(20 * time.Minute)
		for _, r := range w.regions {
			r.upkept(3, 0) // as long as somebody holds something
			for _, key := range []string{"before", "between"} {
				for _, stream := range keptStreams {
					e, err := r.Get(w.Context(), api.GetParams{Stream: stream, Key: []byte(key)})
					if err != nil || string(e.Value) != `{"f":2}` || len(e.Siblings) > 0 {
						t.Errorf("%s: %s in %s is %s, %v", r.cfg.Region, key, stream, e.Value, err)
					}
				}
			}
			r.consistent()
		}
		a.writeAll("before", nil)
		a.writeAll("between", nil)
		time.Sleep(20 * time.Minute)
		for _, r := range w.regions {
			r.isEmpty()
			r.consistent()
		}
	}, us, west, eu)
}

// Nothing is buried or collected without a region that is away, however long; it goes once that is back.
func TestNothingIsBuriedWithoutARegion(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a, b, c := keeping(w, time.Minute)
		b.writeAll("k", []byte(`{"f":1}`))
		a.eventsFolded(3)
		c.eventsFolded(3)
		c.stop()
		c.down()
		a.writeAll("k", nil)
		time.Sleep(15 * time.Minute)
		a.upkept(0, 0)
		b.upkept(0, 0)
		c.up()
		c.start()
		for _, r := range w.regions {
			r.await("empty", func() error {
				if left := r.slicesLeft("values"); len(left) > 0 {
					return fmt.Errorf("%v", left)
				}
				return nil
			})
		}
		time.Sleep(2 * time.Minute)
		for _, r := range w.regions {
			r.isEmpty()
			r.consistent()
		}
	}, us, west, eu)
}

// relabel has a region say of one of its logs, besides what its node says, that it is attested in another format.
func (r *region) relabel(log events.Log, format uint32) {
	r.w.Helper()
	var newest *divergence.Attestation
	for _, record := range r.read(divergence.Topic, 0) {
		if a, err := divergence.Read(record); err == nil && a.Log == log {
			newest = &a
		}
	}
	if newest == nil {
		r.w.Fatalf("%s was not attested", log)
	}
	newest.Format, newest.Made = format, time.Now()
	record, err := newest.Record()
	if err != nil {
		r.w.Fatal(err)
	}
	r.produce(record)
}

// Nothing is buried or collected while a node of any region, with whatever shard of the stream, has spoken another version
// within the time that tombstones are kept, or half an hour; other streams go on.
func TestNothingIsCollectedWhileVersionsAreMixed(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a, b, c := keeping(w, 2*time.Minute)
		for _, r := range w.regions { // all are attested by now
			r.consistent()
		}
		b.writeAll("k", []byte(`{"f":1}`))
		b.writeAll("k2", []byte(`{"f":1}`))
		b.writeAll("k2", nil)
		a.eventsFolded(9)
		a.writeAll("k", nil)
		other := events.Log{Origin: events.FirstOrigin(eu), Stream: "session", Partition: (a.cfg.PartitionOf([]byte("k")) + 1) % partitions}
		for range 15 { // the node says it right again 20 s later at the latest
			c.relabel(other, 1)
			time.Sleep(time.Minute)
		}
		for _, r := range w.regions {
			r.upkept(2, 6) // of config and values
			for _, key := range []string{"k in", "k2 in"} {
				if left := fmt.Sprint(r.slicesLeft("session")); !strings.Contains(left, key) {
					t.Errorf("%s has %s", r.cfg.Region, left)
				}
			}
		}
		if stalled := gather(t, a.registry)["evenkeel_collect_stalled_seconds{}"]; stalled < 14*60 {
			t.Errorf("stalled for %v seconds", stalled)
		}
		for _, r := range w.regions {
			r.upkept(3, 9)
			r.isEmpty()
			r.consistent()
		}
	}, us, west, eu)
}

// While one log cannot be asked for the ages of its events, the keys that have a slice in it wait, and no
// others; that is counted and told.
func TestOneLogCannotBeAsked(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a, b, c := keeping(w, 2*time.Minute)
		a.put("by-b", "v")
		a.put("by-c", "v")
		a.put("own", "v")
		b.eventsFolded(3)
		c.eventsFolded(3)
		b.delete("by-b")
		c.delete("by-c")
		a.delete("own")
		var refusing atomic.Bool
		refusing.Store(true)
		a.kafka.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			a.kafka.KeepControl()
			topics := req.(*kmsg.ListOffsetsRequest).Topics
			byTime := len(topics) > 0 && topics[0].Topic == "eu-central-1.session" && len(topics[0].Partitions) > 0 && topics[0].Partitions[0].Timestamp > 0
			return nil, errors.New("not now"), refusing.Load() && byTime
		})
		a.upkept(1, 3) // what b has deleted, and its own
		time.Sleep(10 * time.Minute)
		a.upkept(1, 3)
		if failures := gather(t, a.registry)["evenkeel_collect_failures_total{}"]; failures == 0 || !strings.Contains(a.log.String(), "what was written to topic eu-central-1.session of us-east-1") {
			t.Errorf("%v failures are told", failures)
		}
		refusing.Store(false)
		for _, r := range w.regions {
			r.upkept(2, 5)
			r.isEmpty()
			r.consistent()
		}
	}, us, west, eu)
}

// What a former incarnation has written is old once something that its successor has written to the same partition is.
func TestWhatAFormerIncarnationHasDeleted(t *testing.T) {
	t.Parallel()
	simulate(t, func(w *world) {
		a, b := w.regions[0], w.regions[1]
		archives(a)
		for _, r := range w.regions {
			r.cfg.Tombstones.Keep = 2 * time.Minute
			if r != a {
				r.cfg.Backup, r.bucket = nil, nil
			}
			r.start()
		}
		p := a.put("k", "v")
		b.has("k", "v")
		a.delete("k")
		b.put("k", "w")
		b.delete("k")
		a.eventsFolded(4)
		a.archived(p.Log, p.Offset+2)
		a.lose()
		w.comesBack(a, time.Time{})
		a.stop()
		a.cfg.Backup, a.bucket = nil, nil // while it can be restored, all hold tombstones
		a.start()
		time.Sleep(10 * time.Minute) // no node has noted it for so long
		for _, r := range w.regions {
			r.upkept(0, 0)
		}
		a.produce(&kgo.Record{Topic: "session", Partition: p.Partition, Key: []byte("another"), Value: []byte("v")})
		time.Sleep(time.Minute)
		b.upkept(0, 0)
		b.upkept(0, 1)
		w.staysGone("k", time.Minute)
	}, us, west, eu)
}

// Thousands of deletes are forgotten in one go, also such of long keys; and all are counted by the round in which they go.
func TestManyTombstonesAreCollected(t *testing.T) {
	one(t, func(r *region) {
		r.cfg.Tombstones.Keep = time.Minute
		r.start()
		const n = 4_000
		var records []*kgo.Record
		for i := range n {
			key := fmt.Appendf(nil, "%05d-%0600d", i, 0)
			records = append(records, &kgo.Record{Topic: "session", Partition: 1, Key: key})
		}
		r.produce(records...)
		r.eventsFolded(n)
		r.within(75*time.Second, "collecting", func() { r.collected(n) })
		counted := func() float64 { return gather(t, r.registry)["evenkeel_collect_tombstones{}"] }
		for got := counted(); got > 0; got = counted() {
			if got != n {
				t.Errorf("%v are counted, want %d", got, n)
			}
			time.Sleep(time.Second)
		}
	})
}

// What is written together is bounded: by its number, by the bytes of keys, and by those of the slices that folding it
// reads, whether or not they hold anything.
func TestChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ready, got []projections.Dead
		for i := range rapid.IntRange(0, 3*events.MaxCollected).Draw(t, "ready") {
			d := projections.Dead{Tombstone: events.Tombstone{Offset: int64(i)}}
			if i%5 == 0 {
				d.Key = strings.Repeat("k", rapid.SampledFrom([]int{1, 1, events.MaxKeyBytes}).Draw(t, "key"))
				d.Holds, d.Bytes = rapid.Bool().Draw(t, "holds"), rapid.SampledFrom([]int{100, 300 << 10, 3 << 20}).Draw(t, "bytes")
			}
			ready = append(ready, d)
		}
		for chunk := range pipeline.Chunks(ready) {
			keys, bytes := 0, 0
			for _, d := range chunk {
				keys, bytes = keys+len(d.Key), bytes+d.Bytes
			}
			if n := len(chunk); n == 0 || n > events.MaxCollected || n > 1 && (keys > 256<<10 || bytes > events.MaxUpkeepBytes) {
				t.Fatalf("%d, with keys of %d bytes and slices of %d", n, keys, bytes)
			}
			got = append(got, chunk...)
		}
		if !reflect.DeepEqual(got, ready) {
			t.Fatalf("of %d are %d", len(ready), len(got))
		}
	})
}

// Stuck is what hides something that nobody writes any more, and each tombstone is counted once.
func TestStuck(t *testing.T) {
	cfg := config.Default()
	cfg.Region, cfg.Regions = us, map[events.Region]config.Region{us: {Incarnation: 2}, eu: {Incarnation: 1}}
	former, current := events.FirstOrigin(us), events.Origin{Region: us, Incarnation: 2}
	hides := [][]events.Origin{{former}, {current, former, events.FirstOrigin(west)}, {current}, {events.FirstOrigin(eu), current}, {events.FirstOrigin(west)}}
	var all []projections.Tombstone
	for _, origins := range append(hides, nil) {
		all = append(all, projections.Tombstone{Hides: origins})
	}
	if n := pipeline.Stuck(&cfg, all); n != 3 {
		t.Errorf("%d", n)
	}
}
