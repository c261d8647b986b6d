package pipeline

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
)

// What is said to have been there at a time was, over years, restarts, and a clock that was ahead for a while; the newest note that
// is old enough is there, and there are few.
func TestPastEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const span = 30 * 24 * time.Hour
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o755); err != nil {
			t.Fatal(err)
		}
		recall := func() *pastEnds { return recallEnds(fs, "data", span, slog.New(slog.DiscardHandler)) }
		log := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
		born := time.Now()
		end := func(at time.Time) int64 { return int64(at.Sub(born) / time.Hour) } // an event an hour
		e := recall()
		for hour := range 24 * 200 {
			if hour%500 == 0 {
				e = recall()
			}
			ahead := time.Duration(0)
			if hour == 1000 {
				ahead = 20 * 24 * time.Hour
			}
			e.note(time.Now().Add(ahead), func() (map[string]ends, time.Duration) {
				if hour%300 < 30 { // nothing is known of it for a day, and so it may be noted the next time
					return map[string]ends{"other": {1, 1}}, span
				}
				return map[string]ends{log.String(): {end(time.Now()), end(time.Now())}}, span
			})
			at := time.Now().Add(-span)
			got := e.before(at, log)
			if got > max(0, end(at)) {
				t.Fatalf("after %d hours: %d events are said to have been there, it were %d", hour, got, end(at))
			}
			if late := end(at) - 2*int64(span/time.Hour)/endsParts - 2; got < late && (hour < 1000 || hour > 1000+24*30) {
				t.Fatalf("after %d hours: %d events are said to have been there, want %d at least", hour, got, late)
			}
			if len(e.all) > endsParts+3 {
				t.Fatalf("%d notes", len(e.all))
			}
			time.Sleep(time.Hour)
		}
		e = recallEnds(vfs.NewMem(), "none", span, slog.New(slog.DiscardHandler))
		e.note(time.Now(), func() (map[string]ends, time.Duration) { return nil, span })
		if len(e.all) > 0 {
			t.Errorf("nothing is known yet, and %v is noted", e.all)
		}
		if other := (events.Log{Origin: events.FirstOrigin("eu"), Stream: "s"}); e.before(time.Now(), other) != 0 {
			t.Error("a log of which nothing is noted")
		}
	})
}
