package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
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
