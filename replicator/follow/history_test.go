package follow_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/replicator/follow"
)

// history is one drawn history of a group at both ends of a link.
type history struct {
	*rapid.T
	w            *world
	topic, group string
	shift        int64 // the mirror's offsets are less by so much
	source       int64 // end of the log
	end, start   int64 // of the mirror
	known        int64 // translations are known before this offset of the log
	leave        func()
}

// translate is exact, and knows nothing yet beyond a point.
func (h *history) translate(_ string, _ int32, source int64) (int64, bool) {
	return max(0, source-h.shift), source <= h.known
}

func (h *history) at() int64 { return h.w.eu.committed(h.group, mirror(h.topic), 0).At }

// pass runs the pass and checks what it did.
func (h *history) pass() follow.GroupsReport {
	h.w.later()
	before := h.at()
	r, err := follow.Groups(context.Background(), h.w.us.adm, h.w.eu.adm, follow.GroupsConfig{
		Select:   func(g string) bool { return g == h.group },
		Selected: func(topic string) bool { return topic == h.topic },
		Mirror:   mirror, Translate: h.translate,
	})
	if err != nil {
		h.Fatal(err)
	}
	o := h.w.eu.committed(h.group, mirror(h.topic), 0)
	switch {
	case o.At < before:
		h.Fatalf("went back from %d to %d: %+v", before, o.At, r)
	case o.At == before:
		if r.Committed > 0 {
			h.Fatalf("said to have committed: %+v", r)
		}
		return r
	case h.leave != nil:
		h.Fatalf("an active group was moved from %d to %d", before, o.At)
	case o.At > h.end || o.At < h.start:
		h.Fatalf("moved to %d, the mirror is [%d, %d)", o.At, h.start, h.end)
	case o.LeaderEpoch != -1 || r.Committed != 1:
		h.Fatalf("%+v: %+v", o, r)
	}
	return r
}

func (h *history) actions() map[string]func(*rapid.T) {
	upTo := func(n int64, what string) int64 { return rapid.Int64Range(0, n).Draw(h.T, what) }
	return map[string]func(*rapid.T){
		"source grows": func(*rapid.T) {
			n := upTo(4, "records")
			h.w.us.fill(h.topic, 0, int(n))
			h.source += n
		},
		"source commits": func(*rapid.T) { h.w.us.commit(h.group, h.topic, 0, upTo(h.source, "at")) },
		"mirror grows": func(*rapid.T) {
			n := upTo(max(0, h.source-h.shift-h.end), "records")
			h.w.eu.fill(mirror(h.topic), 0, int(n))
			h.end += n
		},
		"mirror expires": func(*rapid.T) {
			h.start = max(h.start, upTo(h.end, "to"))
			h.w.eu.do(h.w.eu.DeleteRecords(mirror(h.topic), 0, h.start))
		},
		"more can be translated": func(*rapid.T) { h.known = max(h.known, upTo(h.source, "known")) },
		"destination commits": func(*rapid.T) {
			if h.leave == nil { // else the broker refuses
				h.w.eu.commit(h.group, mirror(h.topic), 0, upTo(h.end, "at"))
			}
		},
		"destination joins or leaves": func(*rapid.T) {
			if h.leave == nil {
				h.leave = h.w.eu.join(h.group, mirror(h.topic))
				return
			}
			h.stop()
		},
		"pass": func(*rapid.T) { h.pass() },
	}
}

func (h *history) stop() {
	if h.leave != nil {
		h.leave()
		h.leave = nil
	}
}

// After any history, a group's offset at the destination has never gone back by
// the link's doing, and is within the mirror; and once the mirror has caught up,
// it is where the source's is or the destination's was.
func TestGroupsAfterAnyHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bubble(t, func(w *world) {
			n := 0
			rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) { // a bubble has no deadline to ask for
				n++
				h := &history{T: rt, w: w, topic: fmt.Sprintf("t%d", n), group: fmt.Sprintf("g%d", n), shift: rapid.Int64Range(0, 2).Draw(rt, "shift")}
				defer h.stop()
				w.us.create(h.topic, 1, nil)
				w.eu.create(mirror(h.topic), 1, nil)
				rt.Repeat(h.actions())

				h.stop()
				if missing := h.source - h.shift - h.end; missing > 0 {
					w.eu.fill(mirror(h.topic), 0, int(missing))
					h.end += missing
				}
				h.known = h.source
				before, at := h.at(), w.us.committed(h.group, h.topic, 0).At
				h.pass()
				want := before
				if at >= 0 {
					want = max(before, h.start, min(max(0, at-h.shift), h.end))
				}
				if got := h.at(); got != want {
					rt.Fatalf("in the end at %d, want %d", got, want)
				}
				if r := h.pass(); r.Committed != 0 {
					rt.Fatalf("a repeated pass did something: %+v", r)
				}
			})
		})
	})
}
