package pipeline

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
)

// However a log is fetched and begun anew: a state that has folded all records that count is at
// the end of what was read, and one that has not is where it is.
func TestPassed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
		const data, marker, nothing = 0, 1, 2 // nothing: a record that was aborted
		log := rapid.SliceOf(rapid.IntRange(data, nothing)).Draw(t, "log")
		p := passed{}
		at := rapid.IntRange(0, len(log)).Draw(t, "begin")
		p.begin(l, int64(at))
		read, folded := at, at // behind the last that was returned, and the last of these that counts
		for at < len(log) && rapid.Bool().Draw(t, "goes on") {
			if rapid.IntRange(0, 9).Draw(t, "again") == 0 {
				if at = rapid.IntRange(0, at).Draw(t, "from"); at != read {
					read, folded = at, at
				}
				p.begin(l, int64(at))
			}
			to := rapid.IntRange(at+1, len(log)).Draw(t, "to")
			var fetched []*kgo.Record
			counting := 0
			for ; at < to; at++ {
				if log[at] == nothing {
					continue
				}
				r := &kgo.Record{Offset: int64(at)}
				fetched, read = append(fetched, r), at+1
				if log[at] == marker {
					r.Attrs = kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Control: true})
				} else {
					counting, folded = counting+1, at+1
				}
			}
			if got := p.take(l, fetched); len(got) != counting {
				t.Fatalf("%d records count, want %d", len(got), counting)
			}
		}
		next := int64(rapid.IntRange(0, len(log)).Draw(t, "next"))
		got := p.place(l, next)
		want := next
		if next >= int64(folded) {
			want = max(next, int64(read))
		}
		if got != want {
			t.Fatalf("at %d, want %d", got, want)
		}
		for o := next; o < got; o++ {
			if log[o] == data {
				t.Fatalf("at %d, the state is at %d and has not folded %d", got, next, o)
			}
		}
	})
}

// Whatever retention takes of a log while nobody reads it: what a state is then said to have, and where it is gone on
// with, leaves out no record that counts. That the state has all is known where it was as far as the one that read.
func TestEmptied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := events.Log{Origin: events.FirstOrigin("us"), Stream: "s"}
		counts := rapid.SliceOf(rapid.Bool()).Draw(t, "log") // each offset, or it is nothing to fold
		offset := func(name string, least, most int) int64 { return int64(rapid.IntRange(least, most).Draw(t, name)) }
		read := int(offset("read", 0, len(counts)))
		behind := read // behind the last that counts, of what was read
		for behind > 0 && !counts[behind-1] {
			behind--
		}
		s := stretch{offset("state", behind, read), int64(read)}
		start := offset("start", 0, len(counts))
		end := offset("end", int(start), len(counts)) // a log may be truncated
		next := offset("next", 0, len(counts))

		known := passed{}
		if s.isOf(start, end) {
			known[l] = s
		}
		has := start
		if s, is := known[l]; is {
			has = s.from
		}
		place := known.place(l, next)
		if lacking := lacks(events.Vector{l: next}, events.Vector{l: has}); !lacking && place < start {
			t.Fatalf("a state at %d lacks nothing and is read at %d, before %d", next, place, start)
		}
		if place > next && place > end {
			t.Fatalf("read at %d, behind the end", place)
		}
		for o := next; o < place; o++ {
			if counts[o] {
				t.Fatalf("read at %d, the state is at %d and has not folded %d", place, next, o)
			}
		}
		if s.from <= next && next < start && start <= s.to && s.to <= end && place != s.to {
			t.Fatalf("read at %d, what is known is %+v", place, s)
		}
	})
}
