package projections_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// What is left of a state that is reduced is the state of the streams that are left, and
// goes on like any other.
func TestReduce(t *testing.T) {
	for _, stream := range streams {
		w, fs := smallWorld(0), vfs.NewMem()
		s := open(t, config(fs))
		apply(t, s, w.everything()...)
		closeShard(t, s)
		if err := projections.Reduce(config(fs), []events.Stream{stream}); err != nil {
			t.Fatal(err)
		}
		left := world{}
		for l, records := range w {
			if l.Stream == stream {
				left[l] = records
			}
		}
		s = open(t, config(fs))
		checkShard(t, s, left, left.ends())
		if states, err := s.Verify(); err != nil || len(states) != len(left) {
			t.Errorf("%s: %v, %v", stream, states, err)
		}
		for l := range left {
			left.write(l, bare("after", []byte("it was reduced"), 1))
			apply(t, s, left.from(l, s.Next(l), 1))
		}
		checkShard(t, s, left, left.ends())
		closeShard(t, s)
	}
}
