//go:build kafka

package kafkatest

import (
	"testing"

	"github.com/evenkeel/evenkeel/replicator"
)

// A link that ends and starts again goes on where the mirror ends, whatever was
// written meanwhile; a second link into another region does not concern it.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	group := w.topic + "-group"
	withGroup := func(c *replicator.Config) { c.Groups = patterns(t, group) }
	for round := range 4 {
		w.source.writeAll(w.topic, 20)
		l := w.start(withGroup)
		l.awaitMirrored()
		at := int64(40*round + 15)
		w.commit(w.source, group, w.topic, map[int32]int64{0: at, 1: at, 2: at})
		w.awaitCommitted(group, w.mirror(), map[int32]int64{0: at, 1: at, 2: at})
		w.source.writeAll(w.topic, 20)
		l.stop()
		if n := w.sameButTail(); n < 3*(40*round+20) {
			t.Errorf("round %d: %d records are mirrored", round, n)
		}
	}
	l := w.start()
	l.awaitMirrored()
	if n := w.sameOffsets(); n != 4*3*40 {
		t.Errorf("%d records, want %d", n, 4*3*40)
	}
	for num := range int32(partitions) {
		if p := l.part(num); !p.Identity {
			t.Errorf("partition %d: %+v", num, p)
		}
	}
}

// sameButTail compares what the mirror has so far: a prefix of its log.
func (w *world) sameButTail() int {
	w.Helper()
	log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
	for num, records := range mirror {
		if len(records) < len(log[num]) {
			log[num] = log[num][:len(records)]
		}
	}
	return same(w.T, log, mirror, true)
}

// A partition without a record is mirrored as such, beside others, and gets its
// first records later.
func TestEmptyPartition(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.write(w.topic, 0, 10)
	l := w.start()
	l.awaitMirrored()
	if ends := w.dest.ends(w.mirror()); ends[0] != 10 || ends[1] != 0 || ends[2] != 0 {
		t.Errorf("the mirror ends at %v", ends)
	}
	w.source.write(w.topic, 1, 10)
	l.awaitMirrored()
	w.sameOffsets()
}

// An operator who gives up what is past lets a partition go on with what comes.
func TestResumeLatest(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.writeAll(w.topic, 10)
	l := w.start()
	l.awaitMirrored()
	kept := w.source.read(w.topic)[0]
	l.stop()
	w.source.write(w.topic, 0, 40)
	w.source.expire(w.topic, 0, 20)
	l = w.start()
	l.awaitStopped(0, replicator.LostRecords, 10, 19)
	l.resume(0, "latest")
	l.awaitMirrored()
	w.source.writeAll(w.topic, 7)
	l.awaitMirrored()
	log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
	log[0] = append(kept, log[0][30:]...) // offsets 20 to 49 are given up
	same(t, log, mirror, false)
	l.verify()
}

// What is paused stands still, also after a restart, until it is let go.
func TestPause(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.writeAll(w.topic, 10)
	l := w.start()
	l.awaitMirrored()
	what := "topic/" + w.topic + "/1"
	if err := l.SetPause(t.Context(), what, true); err != nil {
		t.Fatal(err)
	}
	w.source.writeAll(w.topic, 10)
	l.awaitMirrored(0, 2)
	l.stop()
	l = w.start()
	w.source.writeAll(w.topic, 10)
	l.awaitMirrored(0, 2)
	if ends := w.dest.ends(w.mirror()); ends[1] != 10 {
		t.Errorf("a paused mirror ends at offset %d, want 10", ends[1])
	}
	if p := l.part(1); p.State != replicator.Paused {
		t.Errorf("partition 1 is %s", p.State)
	}
	if err := l.SetPause(t.Context(), what, false); err != nil {
		t.Fatal(err)
	}
	l.awaitMirrored()
	w.sameOffsets()
}
