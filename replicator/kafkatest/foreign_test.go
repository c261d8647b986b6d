//go:build kafka

package kafkatest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/replicator"
)

// Somebody else writes one record into a mirror: that partition stops and says
// which offset is not its log's, and the others go on.
func TestForeignWriter(t *testing.T) {
	t.Parallel()
	const before = 30
	for name, upset := range map[string]func(w *world, l *link) *link{
		"while the link is idle": func(w *world, l *link) *link {
			w.dest.kcatWrite(w.mirror(), 0, "foreign")
			return l
		},
		"while the link is busy": func(w *world, l *link) *link {
			w.dest.kcatWrite(w.mirror(), 0, "foreign")
			w.source.write(w.topic, 0, 1)
			return l
		},
		"while the link is away": func(w *world, l *link) *link {
			l.stop()
			w.dest.kcatWrite(w.mirror(), 0, "foreign")
			return w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := plainWorld(t)
			w.source.writeAll(w.topic, before)
			l := w.start()
			l.awaitMirrored()
			l = upset(w, l)
			l.awaitStopped(0, replicator.ForeignWriter, before, before)
			w.source.write(w.topic, 1, 10)
			w.source.write(w.topic, 2, 10)
			l.awaitMirrored(1, 2)
			log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
			same(t, map[int32][]record{1: log[1], 2: log[2]}, map[int32][]record{1: mirror[1], 2: mirror[2]}, true)
			same(t, map[int32][]record{0: log[0][:before]}, map[int32][]record{0: mirror[0][:before]}, true)

			l.resume(0, "next")
			w.source.writeAll(w.topic, 5)
			l.awaitMirrored()
			log, mirror = w.source.read(w.topic), w.dest.read(w.mirror())
			mirror[0] = slices.Delete(mirror[0], before, before+1) // what is foreign stays in the mirror, and only that
			same(t, log, mirror, false)
		})
	}
}

// Somebody else writes while many batches are on their way: they land behind the
// stranger's record, and the link knows which did. When an operator lets it go on,
// each record of the log is in the mirror once.
func TestForeignWriterAmidLoad(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	l := w.start()
	w.source.writeAll(w.topic, 10)
	l.awaitMirrored()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				w.source.client.Produce(w.source.ctx(), w.source.records(w.topic, 0, 1)[0], nil)
				time.Sleep(200 * time.Microsecond) // a producer's pace: many small batches
			}
		}
	}()
	w.await("the mirror grows", patience, func() error {
		if end := w.dest.ends(w.mirror())[0]; end < 200 {
			return fmt.Errorf("it ends at offset %d", end)
		}
		return nil
	})
	w.dest.kcatWrite(w.mirror(), 0, "foreign")
	l.awaitState(0, replicator.ForeignWriter)
	close(stop)
	<-ended
	w.source.do(w.source.client.Flush(w.source.ctx()))

	foreign := slices.IndexFunc(w.dest.read(w.mirror())[0], func(r record) bool { return strings.Contains(r.rest, ":foreign ") })
	if s := l.part(0).Stop; s.From != int64(foreign) || s.To != int64(foreign) {
		t.Errorf("stopped with offsets %d to %d, the stranger's record is at %d: %v", s.From, s.To, foreign, s)
	}
	l.resume(0, "next")
	l.awaitMirrored()
	log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
	mirror[0] = slices.Delete(mirror[0], foreign, foreign+1)
	same(t, log, mirror, false)
}
