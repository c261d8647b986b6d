package replicator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// awaitInterrupted waits until the link says that it does not run, and why.
func (l *runningLink) awaitInterrupted(words ...string) {
	l.w.Helper()
	l.w.await("link is interrupted", func() error {
		s := l.Status()
		if s.Running {
			return fmt.Errorf("status: %+v", s)
		}
		for _, word := range words {
			if !strings.Contains(s.Error, word) {
				return fmt.Errorf("status says %q, want %q in it", s.Error, word)
			}
		}
		return nil
	})
}

// One end or the other goes away for a while. Whatever the way, the link says
// that it does not run, and afterwards goes on where it was.
func TestOutages(t *testing.T) {
	for _, test := range []struct {
		name     string
		away     func(source, dest *cluster)
		back     func(source, dest *cluster)
		unlinked bool // the outage begins before the link does
		says     string
	}{
		{"source down at the start", func(s, _ *cluster) { s.down() }, func(s, _ *cluster) { s.up() }, true, "us"},
		{"destination down at the start", func(_, d *cluster) { d.down() }, func(_, d *cluster) { d.up() }, true, "eu"},
		{"source restarts", func(s, _ *cluster) { s.down() }, func(s, _ *cluster) { s.up() }, false, "us"},
		{"destination restarts", func(_, d *cluster) { d.down() }, func(_, d *cluster) { d.up() }, false, "eu"},
		{"both restart", func(s, d *cluster) { s.down(); d.down() }, func(s, d *cluster) { d.up(); s.up() }, false, ""},
		{"source cut off", func(s, _ *cluster) { s.gate.Cut() }, func(s, _ *cluster) { s.gate.Open() }, false, "us"},
		{"destination cut off", func(_, d *cluster) { d.gate.Cut() }, func(_, d *cluster) { d.gate.Open() }, false, "eu"},
		{"source does not answer", func(s, _ *cluster) { s.gate.Hold() }, func(s, _ *cluster) { s.gate.Open() }, false, "us"},
		{"destination does not answer", func(_, d *cluster) { d.gate.Hold() }, func(_, d *cluster) { d.gate.Open() }, false, "eu"},
		{"destination's answers are lost", func(_, d *cluster) { d.gate.Hold() }, func(_, d *cluster) { d.gate.Cut(); d.gate.Open() }, false, "eu"},
	} {
		t.Run(test.name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(10)
				var l *runningLink
				if !test.unlinked {
					l = w.link(us, eu)
					l.awaitRunning()
					source.write(10)
				}
				test.away(source, dest)
				if l == nil {
					l = w.link(us, eu)
				}
				if source.Cluster != nil {
					source.write(10)
				}
				l.awaitInterrupted(test.says)
				interrupted := l.Status().Since
				time.Sleep(10 * time.Minute)
				if s := l.Status(); s.Running || !test.unlinked && !s.Since.Equal(interrupted) {
					t.Errorf("status after ten minutes: %+v, interrupted since %s", s, interrupted)
				}
				test.back(source, dest)
				l.awaitRunning()
				if s := l.Status(); time.Since(s.Since) > patience || s.Error != "" {
					t.Errorf("status: %+v", s)
				}
				source.write(10)
				awaitMirrored(source, dest)
				if s := l.Status(); len(s.Stopped) > 0 {
					t.Errorf("stopped: %q", s.Stopped)
				}
			})
		})
	}
}

// What expires behind the link, at either end, is none of its business.
func TestExpiredBehindTheLink(t *testing.T) {
	for _, test := range []struct {
		name         string
		source, dest int64 // delete records up to here; -1: all; 0: none
	}{
		{"all at the source", -1, 0},
		{"some at the source", 20, 0},
		{"all but the last at the source", 29, 0},
		{"all of the mirror", 0, -1},
		{"some of the mirror", 0, 20},
		{"all at both ends", -1, -1},
	} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, away %t", test.name, away), func(t *testing.T) {
				two(t, func(w *world, source, dest *cluster) {
					source.write(30)
					l := w.link(us, eu)
					awaitMirrored(source, dest)
					if away {
						l.stop()
					}
					if test.source != 0 {
						source.do(source.DeleteRecords(topic, 0, test.source))
					}
					if test.dest != 0 {
						dest.do(dest.DeleteRecords(mirror(us, topic), 0, test.dest))
					}
					if away {
						l.start()
					}
					time.Sleep(time.Minute)
					if s := l.Status(); !s.Running || len(s.Stopped) > 0 {
						t.Errorf("status: %+v", s)
					}
					source.write(5)
					for p := range int32(partitions) {
						awaitEnd(source, dest, topic, p)
					}
					copies := dest.read(mirror(us, topic), 0)
					for i, want := range source.read(topic, 0)[max(0, len(source.read(topic, 0))-5):] {
						if err := compare(want, copies[len(copies)-5+i]); err != nil {
							t.Error(err)
						}
					}
				})
			})
		}
	}
}

// A link that has not written anything yet loses its destination. (A client that
// still needs a producer id then tries without a pause, and this test would hang.)
func TestDestinationLostBeforeTheFirstWrite(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		l.awaitRunning()
		time.Sleep(time.Second)
		dest.gate.Cut()
		source.write(1)
		l.awaitInterrupted("eu")
		dest.gate.Open()
		awaitMirrored(source, dest)
	})
}

// A link that is told to end does, whatever the network does.
func TestEndsInAnyOutage(t *testing.T) {
	for _, test := range []struct {
		name string
		away func(source, dest *cluster)
	}{
		{"all is well", func(_, _ *cluster) {}},
		{"source cut off", func(s, _ *cluster) { s.gate.Cut() }},
		{"source does not answer", func(s, _ *cluster) { s.gate.Hold() }},
		{"destination cut off", func(_, d *cluster) { d.gate.Cut() }},
		{"destination does not answer", func(_, d *cluster) { d.gate.Hold() }},
	} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, busy %t", test.name, busy), func(t *testing.T) {
				two(t, func(w *world, source, dest *cluster) {
					source.write(10)
					l := w.link(us, eu)
					awaitMirrored(source, dest)
					test.away(source, dest)
					if busy {
						source.write(10)
						time.Sleep(10 * time.Second)
					}
					l.stop() // fails the test if it takes long
					if s := l.Status(); s.Running || s.Error == "" {
						t.Errorf("status of a link that has ended: %+v", s)
					}
				})
			})
		}
	}
}

// A topic that the source does not have yet is waited for, and does not keep
// the others waiting.
func TestTopicCreatedLater(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		dest.create(mirror(us, "later"))
		l := w.link(us, eu, topic, "later")
		source.write(10)
		awaitMirrored(source, dest)
		w.await("status names the missing topic", func() error {
			if s := l.Status(); !strings.Contains(s.Error, "later") {
				return fmt.Errorf("status: %+v", s)
			}
			return nil
		})
		source.create("later")
		r := record(1, 0)
		r.Topic = "later"
		source.produce(r)
		awaitMirrored(source, dest, topic, "later")
		l.awaitRunning()
	})
}

// A mirror that does not exist yet is waited for.
func TestMirrorCreatedLater(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.create("later")
		r := record(1, 0)
		r.Topic = "later"
		source.produce(r)
		l := w.link(us, eu, "later")
		l.awaitInterrupted("eu", "UNKNOWN_TOPIC")
		dest.create(mirror(us, "later"))
		awaitMirrored(source, dest, "later")
	})
}

// A mirror that was lost is made again from the first record on.
func TestLostMirrorIsRebuilt(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(40)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		dest.recreate(mirror(us, topic))
		source.write(5)
		awaitMirrored(source, dest)
		if s := l.Status(); len(s.Stopped) > 0 {
			t.Errorf("stopped: %q", s.Stopped)
		}
	})
}

// A write that the destination carries out only after the link has given it up,
// and another one has begun, doubles records. This link cannot prevent it, but
// it must not go on as if nothing had happened.
func TestLateWriteStops(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		l.awaitRunning()
		land := make(chan struct{})
		var held bool
		dest.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			if !held {
				held = true
				dest.SleepControl(func() { <-land })
			}
			return nil, nil, false
		})
		source.writeTo(0, 1)
		time.Sleep(time.Second)
		l.stop()
		if end := dest.end(mirror(us, topic), 0); end != 0 {
			t.Fatalf("the write has landed: the test tests nothing")
		}
		l.start()
		source.writeTo(0, 1)
		awaitPartition(source, dest, topic, 0)
		close(land)
		w.await("the late write lands", func() error {
			if end := dest.end(mirror(us, topic), 0); end != 3 {
				return fmt.Errorf("the mirror ends at %d", end)
			}
			return nil
		})
		source.write(5)
		if said := l.awaitStopped(1)[0]; !strings.Contains(said, "partition 0") {
			t.Errorf("status says %q", said)
		}
		awaitPartition(source, dest, topic, 1)
	})
}

// What is counted: records and bytes that are in mirrors, once each.
func TestMetricsCount(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		source.write(25)
		awaitMirrored(source, dest)
		var bytes int
		for p := range int32(partitions) {
			for _, r := range source.read(topic, p) {
				bytes += len(r.Key) + len(r.Value)
			}
		}
		w.await("records are counted", func() error {
			if n := l.metric("evenkeel_link_records_total"); n != 25*partitions {
				return fmt.Errorf("%v records", n)
			}
			return nil
		})
		if n := l.metric("evenkeel_link_bytes_total"); n != float64(bytes) {
			t.Errorf("%v bytes counted, %d are in the mirrors", n, bytes)
		}
		if n := l.metric("evenkeel_link_partitions_stopped"); n != 0 {
			t.Errorf("%v partitions stopped", n)
		}
	})
}

// A link all of whose partitions are stopped rests, and ends when it is told to.
func TestAllPartitionsStopped(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(5)
		for p := range int32(partitions) {
			source.do(source.DeleteRecords(topic, p, -1))
		}
		lists := source.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Observe: true, Count: -1})
		l := w.link(us, eu)
		l.awaitStopped(partitions)
		time.Sleep(10 * time.Minute)
		if n := lists.Hits(); n > 1000 {
			t.Errorf("the source was asked %d times for its offsets in ten minutes", n)
		}
		l.stop()
	})
}
