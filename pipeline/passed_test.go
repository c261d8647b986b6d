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
				at = rapid.IntRange(0, at).Draw(t, "from")
				read, folded = at, at
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
