package pipeline

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
)

// A round goes on where it was when the node ended, and what it counts from there is not told as all.
func TestRoundsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		begin := func() *collector {
			return &collector{sweeps: map[events.Log]*sweep{}, places: recallPlaces(fs, "data", slog.New(slog.DiscardHandler))}
		}
		begun, other := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}, events.Log{Origin: events.FirstOrigin("us"), Stream: "t"}
		c := begin()
		c.sweepOf(begun, true).after = "\xff\x00k"
		c.sweepOf(other, true)
		c.places.note(c.sweeps, false)
		c.sweeps[begun].after = "later"
		c.places.note(c.sweeps, false) // within the minute
		if s := begin().sweepOf(begun, true); s.after != "\xff\x00k" {
			t.Errorf("it goes on at %q", s.after)
		}
		time.Sleep(placesEvery)
		c.places.note(c.sweeps, false)
		c = begin()
		s := c.sweepOf(begun, true)
		if o := c.sweepOf(other, true); s.after != "later" || o.after != "" || o.resumed {
			t.Errorf("it goes on at %q, the other at %q", s.after, o.after)
		}
		c.sweepOf(begun, false) // the node's claims have lapsed
		c.places.note(c.sweeps, true)
		if c = begin(); c.sweepOf(begun, true).after != "later" {
			t.Error("the place of a shard that the node did not have any more is lost")
		}
		s = c.sweepOf(begun, true)
		s.begun, s.seen, s.after = time.Now(), tombstones{all: 1}, ""
		if c.endRound(s); s.counted.all != 0 || !s.begun.IsZero() {
			t.Errorf("%d are counted, and the next round waits until %s is over", s.counted.all, s.begun)
		}
		s.seen = tombstones{all: 2}
		if c.endRound(s); s.counted.all != 2 {
			t.Errorf("%d are counted", s.counted.all)
		}
		c.places.note(c.sweeps, true)
		if s := begin().sweepOf(begun, true); s.after != "" {
			t.Errorf("a round that has ended goes on at %q", s.after)
		}
	})
}
