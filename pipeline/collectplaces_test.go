package pipeline

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/disk"
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

// For how long a log has stood still goes on after a start, without the time that the node was away; it is nothing if it was
// long ago, or not before now, or unknown.
func TestStallsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		c := &collector{}
		begin := func() {
			c = &collector{sweeps: map[events.Log]*sweep{}, places: recallPlaces(fs, "data", slog.New(slog.DiscardHandler))}
		}
		log, moving := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}, events.Log{Origin: events.FirstOrigin("us"), Stream: "t"}
		stands := func(when string, want time.Duration) {
			t.Helper()
			if got := time.Since(c.sweepOf(log, true).moved); got != want {
				t.Errorf("%s it has stood still for %s, want %s", when, got, want)
			}
			if got := time.Since(c.sweepOf(moving, true).moved); got != 0 {
				t.Errorf("%s the other log has stood still for %s", when, got)
			}
		}
		// work is what a collector does of it, but for its end.
		work := func(long time.Duration) {
			for range long / time.Second {
				time.Sleep(time.Second)
				c.sweepOf(moving, true).moved = time.Now()
				c.places.note(c.sweeps, false)
			}
		}

		note := []byte(`{"after": {"us/s/0": "aw=="}}`) // by a program of before
		if err := disk.WriteFile(fs, "data/"+placesFile, note); err != nil {
			t.Fatal(err)
		}
		begin()
		if s := c.sweepOf(log, true); s.after != "k" {
			t.Errorf("the round goes on at %q", s.after)
		}
		stands("at first", 0)
		c.sweepOf(log, true).stable = 7
		for range 3 {
			work(3 * time.Hour)
			c.places.note(c.sweeps, true)
			begin()
			c.sweepOf(log, true)
		}
		stands("after three starts", 9*time.Hour)
		if s := c.sweepOf(log, true); s.stable != 7 {
			t.Errorf("all had folded it up to %d", s.stable)
		}
		work(90 * time.Second)
		begin() // it was killed
		stands("after it was killed", 9*time.Hour+time.Minute)
		work(10 * time.Minute)
		c.sweepOf(log, false) // the note was of almost a minute ago
		work(5 * time.Hour)
		stands("when the shard comes back", 9*time.Hour+10*time.Minute)
		c.places.note(c.sweeps, true)
		time.Sleep(20 * time.Hour)
		begin()
		stands("after the node was away", 9*time.Hour+10*time.Minute)
		c.places.note(c.sweeps, true)
		time.Sleep(stallsFor + time.Minute)
		begin()
		stands("after it was away for long", 0)
		work(2 * time.Minute)
		c.sweepOf(log, true).moved = time.Now()
		c.places.note(c.sweeps, true)
		begin()
		stands("after it has moved", 0)

		for name, s := range map[string]stall{"of the future": {60, 7, time.Now().Add(time.Hour)}, "of nonsense": {-60, 7, time.Now()}} {
			if err := disk.WriteNote(fs, "data/"+placesFile, placesNote{Stood: map[string]stall{log.String(): s}}); err != nil {
				t.Fatal(err)
			}
			begin()
			stands("by a note "+name, 0)
		}
	})
}

// It is not written again and again that nothing stands still.
func TestPlacesAreNotedIfTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		c := &collector{sweeps: map[events.Log]*sweep{}, places: recallPlaces(fs, "data", slog.New(slog.DiscardHandler))}
		log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
		for range 10 {
			c.sweepOf(log, true).moved = time.Now()
			time.Sleep(placesEvery - time.Second)
			c.places.note(c.sweeps, true)
		}
		if there, err := disk.ReadNote(fs, "data/"+placesFile, &placesNote{}); there || err != nil {
			t.Errorf("it was noted: %v, %v", there, err)
		}
	})
}
