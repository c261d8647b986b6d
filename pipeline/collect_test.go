package pipeline_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
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

// A delete of what another region has written stays with the value, whatever rule the stream has: nobody but that
// region can take it away. Once it has, all of it goes, and comes back by no write that comes after it.
func TestTombstonesStayWithWhatTheyHide(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.cfg.Tombstones.Keep = time.Minute
			r.cfg.Streams["config"] = config.Stream{Topic: "config", Merge: "fieldmap"}
			r.start()
		}
		a, b, c := w.regions[0], w.regions[1], w.regions[2]
		write := func(r *region, stream events.Stream, typ string, value []byte) {
			p := api.PutParams{Stream: stream, Key: []byte("k"), Value: value, Type: typ}
			if _, err := r.Put(w.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		deleteIn := func(r *region) {
			for _, stream := range []events.Stream{"session", "config"} {
				write(r, stream, "", nil)
			}
		}
		count := func(r *region) { write(r, "config", events.TypePatch, []byte(`{"increment":{"n":1}}`)) }
		for _, stream := range []events.Stream{"session", "config"} {
			write(b, stream, "", []byte(`{"f":1}`))
		}
		count(b)
		a.eventsFolded(3)
		deleteIn(a)
		time.Sleep(20 * time.Minute)
		for _, r := range w.regions {
			r.collected(0)
			r.await("gone", func() error { return r.gone("k") })
			r.consistent()
		}
		deleteIn(b)
		for _, r := range w.regions {
			r.collected(4)
			r.consistent()
			if left := append(r.slicesLeft("session"), r.slicesLeft("config")...); len(left) > 0 {
				t.Errorf("%s has %v", r.cfg.Region, left)
			}
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

// Thousands of deletes are forgotten in one go, also such of long keys.
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
	})
}

// That nothing is collected is told, and which region is waited for; so is what fails.
func TestCollectingTellsOfItself(t *testing.T) {
	long(t)
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.cfg.Tombstones.Keep = time.Minute
			r.start()
		}
		a, c := w.regions[0], w.regions[2]
		a.put("k", "v")
		for _, r := range w.regions {
			r.has("k", "v")
			r.consistent()
		}
		time.Sleep(2 * divergence.IdleInterval) // attested, too
		c.stop()
		a.delete("k")
		time.Sleep(30 * time.Minute)
		series := gather(t, a.registry)
		for name, want := range map[string]float64{
			"evenkeel_collect_tombstones{}": 1, "evenkeel_collect_failures_total{}": 0,
			`evenkeel_collect_behind_records{origin="us-east-1"}`: 0, `evenkeel_collect_behind_records{origin="us-west-1"}`: 0,
			`evenkeel_collect_behind_records{origin="eu-central-1"}`: 1,
		} {
			if got, ok := series[name]; !ok || got != want {
				t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
			}
		}
		if stalled := series["evenkeel_collect_stalled_seconds{}"]; stalled < 29*60 || stalled > 31*60 {
			t.Errorf("stalled for %v seconds", stalled)
		}
		var refusing atomic.Bool
		refusing.Store(true)
		a.kafka.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			a.kafka.KeepControl()
			topics := req.(*kmsg.ListOffsetsRequest).Topics
			byTime := len(topics) > 0 && len(topics[0].Partitions) > 0 && topics[0].Partitions[0].Timestamp > 0
			return nil, errors.New("not now"), refusing.Load() && byTime
		})
		c.start()
		a.await("failing", func() error {
			if n := gather(t, a.registry)["evenkeel_collect_failures_total{}"]; n == 0 {
				return errors.New("nothing failed")
			}
			return nil
		})
		a.collected(0)
		refusing.Store(false)
		a.collected(1)
		a.await("told", func() error {
			series := gather(t, a.registry)
			stalled, behind, left := series["evenkeel_collect_stalled_seconds{}"], series[`evenkeel_collect_behind_records{origin="eu-central-1"}`], series["evenkeel_collect_tombstones{}"]
			if stalled > 30 || behind > 0 || left > 0 {
				return fmt.Errorf("stalled for %v s, %v behind, %v left", stalled, behind, left)
			}
			return nil
		})
	}, us, west, eu)
}
