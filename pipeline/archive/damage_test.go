package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// damage damages the last segments of a shard for good.
func (w *world) damage(shard int32, n int, harm func([]byte) []byte) (last int64) {
	w.Helper()
	numbers, err := segment.Numbers(w.Context(), w.memory, us, shard)
	if err != nil || len(numbers) < n {
		w.Fatalf("segments %d, %v", numbers, err)
	}
	for _, number := range numbers[len(numbers)-n:] {
		if err := w.memory.Damage(format.SegmentName(us, shard, number), harm); err != nil {
			w.Fatal(err)
		}
	}
	return numbers[len(numbers)-1]
}

var harms = map[string]func([]byte) []byte{
	"its header flipped":  func(b []byte) []byte { b = bytes.Clone(b); b[20] ^= 1; return b },
	"its payload flipped": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b },
	"cut off":             func(b []byte) []byte { return b[:len(b)/3] },
	"emptied":             func([]byte) []byte { return nil },
}

// Newest segments that are damaged do not end the archive: behind the last that is whole
// it goes on, after a while, with what the logs have. Nothing is lost, and it is told.
func TestDamagedNewest(t *testing.T) {
	for name, harm := range harms {
		for n := 1; n <= 3; n++ {
			t.Run(fmt.Sprintf("%d %s", n, name), func(t *testing.T) {
				simulate(t, uint64(n), func(w *world) {
					p := w.start(0, 1)
					for range 3 {
						w.produce("session", 0, 5)
						w.produce("secrets", 0, 2)
						w.produce("session", 1, 1)
						w.archived()
					}
					p.end()
					last := w.damage(0, n, harm)
					p = w.start(0, 1)
					w.says(p, format.SegmentName(us, 0, last)+" is damaged", "nothing is lost")
					w.produce("session", 0, 5)
					time.Sleep(2 * time.Minute)
					w.archived()
					if said := strings.Join(p.Problems(), "\n"); !strings.Contains(said, "has gone on behind segment") || strings.Contains(said, "does not go on") {
						t.Errorf("it says %q", said)
					}
					if got := p.counter(t, "evenkeel_archive_void_total"); got != 1 {
						t.Errorf("%f times", got)
					}
					w.produce("session", 0, 5)
					w.archived()
					p.end()
					w.damage(0, 1, harm) // once more
					p = w.start(0, 1)
					time.Sleep(2 * time.Minute)
					w.produce("session", 0, 5)
					w.archived()
					p.end()
				})
			})
		}
	}
}

// What cannot be read for a while is not taken to be damaged.
func TestBadReadings(t *testing.T) {
	simulate(t, 1, func(w *world) {
		p := w.start(0)
		w.produce("session", 0, 5)
		w.produce("session", 1, 5)
		w.await("archived", func() error { _, err := segment.Header(w.Context(), w.memory, us, 0, 1); return err })
		p.end()
		var whole []byte
		last := w.damage(0, 1, func(b []byte) []byte { whole = b; return b[:len(b)/2] })
		p = w.start(0, 1)
		time.Sleep(50 * time.Second)
		w.damage(0, 1, func([]byte) []byte { return whole })
		w.produce("session", 0, 5)
		w.archived()
		newest, err := segment.Newest(w.Context(), w.memory, us, 0)
		if err != nil || newest.Number != last+1 || len(newest.Void) > 0 {
			t.Errorf("%+v, %v", newest, err)
		}
		p.end()
	})
}

// Two archivers, of which one knows a segment that the other finds damaged: one of them
// goes on at each place, and the archive is the logs.
func TestDamagedForOne(t *testing.T) {
	for seed := range uint64(10) {
		simulate(t, seed, func(w *world) {
			p := w.start(0, 1)
			w.produce("session", 0, 5)
			w.produce("session", 1, 5)
			w.archived()
			w.damage(0, 1, harms["emptied"])
			other := w.start(0, 1)
			for range 60 {
				w.produce("session", 0, 1+w.rng.IntN(3))
				time.Sleep(time.Duration(w.rng.IntN(4_000)) * time.Millisecond)
			}
			p.end()
			other.end()
			// Segment 1 is no part of it, or it is missing and everything else is there.
			newest, err := segment.Newest(w.Context(), w.memory, us, 0)
			if err != nil {
				t.Fatal(err)
			}
			if newest.IsVoid(1) {
				p = w.start(0, 1)
				w.archived()
				p.end()
			}
		})
	}
}

// Records that the logs have lost as well are a gap.
func TestDamagedAndExpired(t *testing.T) {
	simulate(t, 1, func(w *world) {
		l := logOf("session", 0)
		p := w.start(0, 1)
		for range 2 {
			w.produce("session", 0, 5)
			w.produce("session", 1, 1)
			w.archived()
		}
		p.end()
		w.damage(0, 1, harms["cut off"])
		w.cutOff(l, 8)
		p = w.start(0, 1)
		w.says(p, "offsets 5 to 7", "has gone on behind segment 1")
		w.produce("session", 0, 2)
		w.await("archived", func() error {
			s, err := segment.Newest(w.Context(), w.memory, us, 0)
			if err != nil {
				return err
			}
			if end, _ := s.End(l); end.Next != 12 {
				return fmt.Errorf("up to %d", end.Next)
			}
			return nil
		})
		p.end()
	})
}

// A log that was made anew and has outgrown its archive is recognised by its records; one that
// has the same ones again goes on. So it is when an archiver starts, and while one runs.
func TestMadeAnew(t *testing.T) {
	for _, same := range []bool{false, true} {
		for _, runs := range []bool{false, true} {
			t.Run(fmt.Sprintf("same=%t,runs=%t", same, runs), func(t *testing.T) { madeAnew(t, same, runs) })
		}
	}
}

func madeAnew(t *testing.T, same, runs bool) {
	simulate(t, 1, func(w *world) {
		p := w.start(0, 1)
		w.produce("session", 0, 5)
		w.produce("secrets", 0, 5)
		w.archived()
		if !runs {
			p.end()
		}
		before := w.read(logOf("session", 0), 0)
		w.recreate("session")
		if same {
			for _, r := range before {
				if err := w.client.ProduceSync(w.Context(), r).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.produce("session", 0, 9)
		if !runs {
			p = w.start(0, 1)
		}
		defer p.end()
		if same {
			w.archived()
			return
		}
		w.says(p, "session/0", "made anew")
		w.produce("session", 0, 20)
		w.produce("secrets", 0, 5)
		w.await("archived", func() error {
			s, err := segment.Newest(w.Context(), w.memory, us, 0)
			if err != nil {
				return err
			}
			if end, _ := s.End(logOf("secrets", 0)); end.Next != 10 {
				return errors.New("not yet")
			}
			if end, _ := s.End(logOf("session", 0)); end.Next != 5 {
				t.Errorf("the other log is archived up to %d", end.Next)
			}
			return nil
		})
	})
}
