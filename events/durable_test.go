package events_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// Whatever crashes, fails to be kept or is met in between, no reading of a durable
// clock comes at or before an earlier one.
func TestDurableClockNeverRepeats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Physical time hardly moves here, and to readings that are ahead of it
		// that is the same as running backwards.
		kept, fails := events.HLC(0), false
		keep := func(bound events.HLC) error {
			if fails {
				return errors.New("disk")
			}
			if bound <= kept {
				t.Fatalf("a bound of %s is kept after %s", bound, kept)
			}
			kept = bound
			return nil
		}
		clock := events.NewDurableClock(0, time.Minute, keep)
		last := events.HLC(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"now", "now", "now", "crash", "stop", "fails", "observe"}).Draw(t, "step") {
			case "now":
				h, err := clock.Now()
				if err != nil {
					if !fails {
						t.Fatal(err)
					}
					continue
				}
				if h <= last || h >= kept {
					t.Fatalf("%s after %s, with a bound of %s", h, last, kept)
				}
				last = h
			case "stop":
				if fails {
					continue
				}
				before := kept
				kept = 0 // the bound may come down when it settles
				if err := clock.Settle(); err != nil {
					t.Fatal(err)
				}
				if kept == 0 {
					kept = before
				}
				if last > 0 && kept <= last || kept > before {
					t.Fatalf("settled at %s, after %s, from %s", kept, last, before)
				}
				clock = events.NewDurableClock(kept, time.Minute, keep)
			case "crash":
				clock = events.NewDurableClock(kept, time.Minute, keep)
			case "fails":
				fails = !fails
			case "observe":
				ahead := time.Duration(rapid.IntRange(-60_000, 90_000).Draw(t, "ahead")) * time.Millisecond
				clock.Observe(events.HLCAt(time.Now().Add(ahead)))
			}
		}
	})
}

// A clock does not write to the disk for each reading, and a restart does not
// leave it far ahead.
func TestDurableClockKeepsSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept events.HLC
		times := 0
		keep := func(bound events.HLC) error {
			times, kept = times+1, bound
			return nil
		}
		clock := events.NewDurableClock(0, time.Minute, keep)
		for range 1_000 {
			if _, err := clock.Now(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if times > 5 {
			t.Errorf("kept %d times within ten seconds", times)
		}
		if ahead := time.Until(kept.Time()); ahead > 3*time.Second {
			t.Errorf("after a crash it would be %s ahead", ahead)
		}
		if err := clock.Settle(); err != nil {
			t.Fatal(err)
		}
		if ahead := time.Until(kept.Time()); ahead > time.Millisecond {
			t.Errorf("after a stop it would be %s ahead", ahead)
		}
	})
}

// A clock is judged by its own record's timestamp and nothing else.
func TestCheckClock(t *testing.T) {
	at := time.UnixMilli(1_750_774_237_000)
	for name, c := range map[string]struct {
		timestamp time.Time
		clock     events.HLC
		parked    bool
	}{
		"long ago":             {at, 1, false},
		"the same":             {at, events.HLCAt(at), false},
		"as far as allowed":    {at, events.HLCAt(at.Add(events.MaxFoldSkew)), false},
		"a tick too far":       {at, events.HLCAt(at.Add(events.MaxFoldSkew)) + 1, true},
		"the largest":          {at, events.MaxHLC, true},
		"no timestamp":         {time.UnixMilli(-1), events.HLCAt(at), true},
		"no timestamp, no hlc": {time.UnixMilli(-1), 0, false},
		"the last timestamp":   {time.UnixMilli(1<<63 - 1), events.HLCFromMillis(1<<63 - 1), false},
		"the first timestamp":  {time.UnixMilli(-1 << 63), 0, false},
	} {
		err := events.CheckClock(&events.Event{Clock: c.clock}, &kgo.Record{Timestamp: c.timestamp})
		var reason *events.DecodeError
		if parked := errors.As(err, &reason); parked != c.parked || err != nil && !parked {
			t.Errorf("%s: %v", name, err)
		}
	}
}
