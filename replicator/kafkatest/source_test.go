//go:build kafka

package kafkatest

import (
	"testing"

	"github.com/evenkeel/evenkeel/replicator"
)

// A log that began to expire before it was mirrored at all: the mirror begins
// with what is there.
func TestSourceStartsAboveZero(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.writeAll(w.topic, 30)
	w.source.expire(w.topic, 0, 10)
	w.source.expire(w.topic, 1, -1) // nothing is left of this one
	l := w.start()
	l.awaitMirrored()
	if ends := w.dest.ends(w.mirror()); ends[0] != 20 || ends[1] != 0 || ends[2] != 30 {
		t.Errorf("the mirror ends at %v, want 20, 0 and 30", ends)
	}
	w.source.writeAll(w.topic, 5)
	l.awaitMirrored()
	if n := w.sameRecords(); n != 25+5+35 {
		t.Errorf("%d records, want 65", n)
	}
	if n, expired := l.verify(); n != 65 || expired != 0 {
		t.Errorf("verified %d records and %d expired, want 65 and 0", n, expired)
	}
	for num, identity := range []bool{false, false, true} {
		if p := l.part(int32(num)); p.Identity != identity {
			t.Errorf("partition %d: identity %v: %+v", num, p.Identity, p)
		}
	}
}

// Retention overtakes a link that is away: the partition stops and names exactly
// what is missing; an operator lets it go on.
func TestRetentionOvertakes(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.writeAll(w.topic, 30)
	l := w.start()
	l.awaitMirrored()
	kept := w.source.read(w.topic)[0]
	l.stop()
	w.source.writeAll(w.topic, 30)
	w.source.expire(w.topic, 0, 45)
	l = w.start()
	l.awaitStopped(0, replicator.LostRecords, 30, 44)
	l.awaitMirrored(1, 2)
	if end := w.dest.ends(w.mirror())[0]; end != 30 {
		t.Errorf("a stopped mirror ends at offset %d, want 30", end)
	}

	l.resume(0, "earliest")
	l.awaitMirrored()
	w.source.writeAll(w.topic, 5)
	l.awaitMirrored()
	log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
	log[0] = append(kept, log[0]...)
	same(t, log, mirror, false)
	if n, expired := l.verify(); n != 20+65+65 || expired != 30 {
		t.Errorf("verified %d records and %d expired, want 150 and 30", n, expired)
	}
}

// A topic that is deleted and created again is another log, however alike: all of
// its partitions stop, and go on together.
func TestRecreatedSource(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]bool{"while the link runs": false, "while the link is away": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := plainWorld(t)
			w.source.writeAll(w.topic, 20)
			l := w.start()
			l.awaitMirrored()
			old := w.source.read(w.topic)
			if away {
				l.stop()
			}
			w.recreate(w.source, w.topic)
			w.source.writeAll(w.topic, 25)
			if away {
				l = w.start()
			}
			for num := range int32(partitions) {
				l.awaitState(num, replicator.SourceRecreated)
			}
			if ends := w.dest.ends(w.mirror()); ends[0] != 20 || ends[1] != 20 || ends[2] != 20 {
				t.Errorf("mirrors of a log that is gone end at %v, want 20", ends)
			}
			w.onFromEarliest(l, old)
		})
	}
}

// onFromEarliest resumes all of a topic: the mirror gets all of the new log behind
// what it had.
func (w *world) onFromEarliest(l *link, old map[int32][]record) {
	w.Helper()
	l.resume(replicator.All, "earliest")
	l.awaitMirrored()
	w.source.writeAll(w.topic, 5)
	l.awaitMirrored()
	want := w.source.read(w.topic)
	for num := range int32(partitions) {
		want[num] = append(old[num], want[num]...)
	}
	same(w.T, want, w.dest.read(w.mirror()), false)
}

// recreate deletes a topic and creates it again.
func (w *world) recreate(c *cluster, topic string) {
	w.Helper()
	w.await("re-create "+topic, patience, func() error {
		_, _ = c.admin.DeleteTopics(c.ctx(), topic) // what matters is that there is another afterwards
		_, err := c.admin.CreateTopic(c.ctx(), partitions, 1, nil, topic)
		return err
	})
	c.awaitLed(topic)
	c.client = c.dial() // the one before remembers the topic that is gone
}

// A mirror that is deleted, and created again by whomever, is not filled up as if
// nothing had happened.
func TestMirrorRecreated(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.writeAll(w.topic, 20)
	l := w.start()
	l.awaitMirrored()
	l.stop()
	w.recreate(w.dest, w.mirror())
	l = w.start()
	for num := range int32(partitions) {
		l.awaitState(num, replicator.MirrorRecreated)
	}
	w.onFromEarliest(l, map[int32][]record{})
}
