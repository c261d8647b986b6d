package events_test

import (
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

func TestHLCAt(t *testing.T) {
	const lastMillis = 1<<48 - 1
	for name, c := range map[string]struct {
		millis int64
		want   string
	}{
		"1970":             {0, "0.0"},
		"before 1970":      {-1, "0.0"},
		"long before":      {math.MinInt64, "0.0"},
		"now":              {1750774237000, "1750774237000.0"},
		"last":             {lastMillis, "281474976710655.0"},
		"past the last":    {lastMillis + 1, "281474976710655.0"},
		"long past":        {math.MaxInt64, "281474976710655.0"},
		"Kafka's no time":  {-1, "0.0"},
		"an hour in micro": {3600 * 1e6, "3600000000.0"},
	} {
		h := events.HLCFromMillis(c.millis)
		if h.String() != c.want {
			t.Errorf("%s: %s, want %s", name, h, c.want)
		}
		if got := events.HLCAt(time.UnixMilli(c.millis)); got != h {
			t.Errorf("%s: HLCAt gives %s, HLCFromMillis %s", name, got, h)
		}
	}
	if got := events.HLCAt(time.Time{}); got != 0 {
		t.Errorf("the zero time gives %s", got)
	}
}

func TestHLCOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := genHLC().Draw(t, "h")
		if h == events.MaxHLC {
			t.Skip("it has no next")
		}
		next := h.Next()
		if next <= h || next.Millis() < h.Millis() || next.Millis() > h.Millis()+1 {
			t.Fatalf("after %s comes %s", h, next)
		}
		if !h.Time().Equal(time.UnixMilli(h.Millis())) || events.HLCAt(h.Time()) > h {
			t.Fatalf("%s is at %s", h, h.Time())
		}
	})
	if events.MaxHLC.Next() != events.MaxHLC {
		t.Error("the largest reading turns over")
	}
}

// In a bubble time stands still unless everybody sleeps.
func TestClockWhileTimeStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c events.Clock
		start := events.HLCAt(time.Now())
		last := c.Now()
		if last != start {
			t.Fatalf("the first reading is %s, want physical time, %s", last, start)
		}
		const readings = 200_000 // more than the counter holds, three times
		for range readings {
			now := c.Now()
			if now <= last {
				t.Fatalf("%s after %s", now, last)
			}
			last = now
		}
		if ahead := last.Millis() - start.Millis(); ahead > readings>>16 {
			t.Errorf("%d readings within a millisecond carry the clock %d ms ahead", readings, ahead)
		}
		time.Sleep(time.Hour)
		if now, want := c.Now(), events.HLCAt(time.Now()); now != want {
			t.Errorf("after an hour the reading is %s, want physical time, %s", now, want)
		}
	})
}

// A clock that runs backwards is the same as readings that are ahead of it.
func TestClockWhileTimeRunsBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c events.Clock
		ahead := events.HLCAt(time.Now().Add(events.MaxClockSkew))
		c.Observe(ahead)
		if now := c.Now(); now != ahead.Next() {
			t.Fatalf("%s after %s", now, ahead)
		}
		time.Sleep(events.MaxClockSkew / 2)
		last := c.Now()
		if last <= ahead {
			t.Fatalf("%s while physical time is behind %s", last, ahead)
		}
		time.Sleep(events.MaxClockSkew)
		if now, want := c.Now(), events.HLCAt(time.Now()); now != want {
			t.Errorf("once physical time has caught up the reading is %s, want %s", now, want)
		}
	})
}

func TestClockObserve(t *testing.T) {
	for name, c := range map[string]struct {
		ahead   time.Duration
		counter events.HLC
		heeded  bool
	}{
		"long ago":           {-time.Hour, 0, false},
		"now":                {0, 0, true},
		"a little ahead":     {time.Second, 7, true},
		"as far as allowed":  {events.MaxClockSkew, 0, true},
		"a tick too far":     {events.MaxClockSkew, 1, false},
		"a millisecond more": {events.MaxClockSkew + time.Millisecond, 0, false},
		"in another century": {100 * 365 * 24 * time.Hour, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var clock events.Clock
				met := events.HLCAt(time.Now().Add(c.ahead)) + c.counter
				clock.Observe(met)
				want := events.HLCAt(time.Now())
				if c.heeded {
					want = met.Next()
				}
				if got := clock.Now(); got != want {
					t.Errorf("after %s the reading is %s, want %s", met, got, want)
				}
				if far := events.TooFarAhead(met, events.MaxClockSkew); far != (c.ahead > 0 && !c.heeded) {
					t.Errorf("%s is too far ahead: %t", met, far)
				}
			})
		})
	}
	var clock events.Clock
	clock.Observe(events.MaxHLC)
	if now := clock.Now(); events.TooFarAhead(now, events.MaxClockSkew) {
		t.Errorf("the largest reading dragged the clock to %s", now)
	}
}

func TestClockUnderConcurrency(t *testing.T) {
	const writers, each = 8, 5_000
	var clock events.Clock
	var wg sync.WaitGroup
	readings := make([][]events.HLC, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if i%64 == 0 {
					clock.Observe(events.HLCAt(time.Now().Add(time.Duration(i) * time.Millisecond)))
				}
				readings[w] = append(readings[w], clock.Now())
			}
		})
	}
	wg.Wait()
	for w := range writers {
		if !slices.IsSorted(readings[w]) {
			t.Errorf("writer %d got readings out of order", w)
		}
	}
	all := slices.Sorted(slices.Values(slices.Concat(readings...)))
	if distinct := len(slices.Compact(all)); distinct != writers*each {
		t.Errorf("%d distinct readings of %d", distinct, writers*each)
	}
}
