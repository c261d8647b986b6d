package divergence_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/replicator/divergence"
)

func TestPace(t *testing.T) {
	const every = 1024
	var p divergence.Pace
	now := time.UnixMilli(1_750_000_000_000)
	for i, c := range []struct {
		after  time.Duration
		next   int64
		offset int64 // -1: not due
	}{
		{0, 0, 0}, // an empty log is attested too
		{time.Second, 0, -1},
		{time.Second, 5, 5},
		{500 * time.Millisecond, 6, -1}, // too soon
		{500 * time.Millisecond, 7, 7},
		{time.Second, 1023, 1023},
		{time.Second, 1030, 1024}, // a mark that is kept was passed
		{time.Second, 1030, 1030}, // idle: its end
		{time.Second, 1030, -1},
		{18 * time.Second, 1030, -1},
		{time.Second, 1030, 1030}, // still there
		{time.Second, 9000, 8192}, // fast
		{time.Second, 17000, 16384},
		{time.Millisecond, 16000, 16000}, // restored to an earlier cut
	} {
		now = now.Add(c.after)
		offset, due := p.Due(c.next, every, now)
		if due != (c.offset >= 0) || due && offset != c.offset {
			t.Fatalf("step %d: next %d is due %v at %d, want %d", i, c.next, due, offset, c.offset)
		}
		if due {
			p.Attested(offset, now)
		}
	}
}

// Whatever the load: attested offsets never pass the fold, a log that falls idle is
// attested at its end within two seconds, and of any stretch of 2*every records one
// kept mark is attested.
func TestPaceKeepsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p divergence.Pace
		every := rapid.Int64Range(1, 50).Draw(t, "every")
		now, next := time.UnixMilli(1_750_000_000_000), int64(0)
		last, kept := int64(-1), int64(-1)
		tick := func(n int64) {
			now, next = now.Add(divergence.ActiveInterval), next+n
			offset, due := p.Due(next, every, now)
			if !due {
				return
			}
			if offset > next || offset < last {
				t.Fatalf("attested %d after %d, folded up to %d", offset, last, next)
			}
			if last = offset; kept < 0 || offset%every == 0 {
				kept = offset - offset%every
			}
			p.Attested(offset, now)
		}
		for _, n := range rapid.SliceOf(rapid.Int64Range(0, 120)).Draw(t, "records each second") {
			if tick(n); next-next%every > kept && last-last%every > kept {
				t.Fatalf("attested %d, folded %d, the last kept mark attested is %d of every %d", last, next, kept, every)
			}
		}
		tick(0)
		if tick(0); last != next {
			t.Fatalf("idle at %d, attested %d", next, last)
		}
	})
}

// Looks that come early or late by what timers and schedulers do make no gap of more than a
// second in the attestations of a log that is written to.
func TestPaceWithLateLooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p divergence.Pace
		begun := time.UnixMilli(1_750_000_000_000)
		last := begun
		for i := range rapid.IntRange(10, 60).Draw(t, "looks") {
			late := rapid.SampledFrom([]time.Duration{0, time.Millisecond, 2 * time.Millisecond, 40 * time.Millisecond}).Draw(t, "late")
			now := begun.Add(time.Duration(i)*divergence.LookInterval + late)
			if gap := now.Sub(last); gap > divergence.ActiveInterval {
				t.Fatalf("nothing was attested for %s at look %d", gap, i)
			}
			if offset, due := p.Due(int64(i), 1024, now); due {
				p.Attested(offset, now)
				last = now
			}
		}
	})
}
