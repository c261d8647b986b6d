package replicator_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator"
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

// Mirrors are the link's to create, with as many partitions as the log, and so is
// the link topic.
func TestLinkCreatesMirrors(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.do(source.CreateTopic("later", 7, map[string]string{"retention.ms": "123456789"}))
		r := record(6, 0)
		r.Topic = "later"
		source.produce(r)
		l := w.link(us, eu, "later")
		l.awaitView("later")
		if got := dest.topics(); !slices.Equal(got, []string{replicator.LinkTopic, topic, mirror(us, "later")}) {
			t.Errorf("the destination has %v", got)
		}
		if n := len(dest.PartitionInfos(mirror(us, "later"))); n != 7 {
			t.Errorf("the mirror has %d partitions", n)
		}
		if v := dest.TopicInfo(mirror(us, "later")).Configs["retention.ms"]; v == nil || *v != "123456789" {
			t.Errorf("the mirror's retention is %v", v)
		}
	})
}

// A mirror that somebody has created beforehand is filled, if it is empty.
func TestEmptyMirrorIsThere(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		dest.create(mirror(us, topic))
		source.write(5)
		w.link(us, eu)
		awaitMirrored(source, dest)
	})
}

// A log that grows by partitions is mirrored with them.
func TestPartitionsAreAdded(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		source.write(5)
		awaitMirrored(source, dest)
		source.grow(topic, partitions+2)
		source.writeTo(partitions, 5)
		source.writeTo(partitions+1, 5)
		l.awaitState(topic, partitions+1, replicator.Mirroring)
		for p := range int32(partitions + 2) {
			awaitPartition(source, dest, topic, p)
		}
		if s := l.Status(); !s.Running || len(s.Stopped) > 0 {
			t.Errorf("status: %+v", s)
		}
	})
}

// A mirror that was deleted under a link, or while it was away, is not made again
// before an operator says so.
func TestDeletedMirror(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("away ", away), func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(40)
				l := w.link(us, eu)
				awaitMirrored(source, dest)
				if away {
					l.stop()
				}
				dest.do(dest.DeleteTopic(mirror(us, topic)))
				source.write(5)
				l.start()
				for p := range int32(partitions) {
					if stop := l.awaitStop(topic, p); stop.State != replicator.MirrorRecreated || stop.From != -1 || stop.To != -1 {
						t.Errorf("partition %d: %v", p, stop)
					}
				}
				time.Sleep(time.Minute)
				for p := range int32(partitions) {
					if end := dest.end(mirror(us, topic), p); end != 0 {
						t.Errorf("partition %d: the mirror ends at %d", p, end)
					}
				}
				l.resume(topic, replicator.All, "earliest")
				l.awaitView(topic)
				source.write(5)
				awaitMirrored(source, dest)
			})
		})
	}
}

// A destination that has lost everything begins anew: there is nothing left that
// could be contradicted.
func TestDestinationThatLostEverything(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("away ", away), func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(40)
				l := w.link(us, eu)
				awaitMirrored(source, dest)
				if away {
					l.stop()
				}
				dest.down()
				dest.wipe()
				dest.up()
				l.start()
				source.write(5)
				l.awaitView(topic)
				awaitMirrored(source, dest)
				l.awaitRunning()
			})
		})
	}
}

// A write that the destination carries out only after the link has given it up,
// and another one has begun, changes nothing: its place is taken.
func TestLateWriteIsAbsorbed(t *testing.T) {
	for _, first := range []int{1, 20} { // records of the late write
		t.Run(fmt.Sprint("records ", first), func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				l := w.link(us, eu)
				source.writeTo(0, 3)
				awaitPartition(source, dest, topic, 0)
				id := dest.TopicInfo(mirror(us, topic)).TopicID
				land, landed := make(chan struct{}), make(chan struct{})
				held := false
				dest.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
					if held || r.(*kmsg.ProduceRequest).Topics[0].TopicID != id {
						dest.KeepControl()
						return nil, nil, false
					}
					held = true
					dest.SleepControl(func() { <-land })
					close(landed)
					return nil, nil, false
				})
				source.writeTo(0, first)
				time.Sleep(time.Second)
				l.stop()
				if end := dest.end(mirror(us, topic), 0); end != 3 || !held {
					t.Fatalf("the write has landed: the test tests nothing")
				}
				l.start()
				source.writeTo(0, 1)
				awaitPartition(source, dest, topic, 0)
				close(land)
				<-landed
				time.Sleep(time.Second)
				source.write(5)
				awaitMirrored(source, dest)
				if s := l.Status(); len(s.Stopped) > 0 {
					t.Errorf("stopped: %q", s.Stopped)
				}
			})
		})
	}
}

// What is counted: records and bytes that are in mirrors, once each.
func TestMetricsCount(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		source.write(25)
		awaitMirrored(source, dest)
		var bytes int64
		for p := range int32(partitions) {
			v, err := l.Verify(context.Background(), topic, p, 0)
			if err != nil || v.Next != v.End || v.Records != 25 {
				t.Fatalf("%+v, %v", v, err)
			}
			bytes += v.Bytes
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
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		l.stop()
		source.write(5)
		for p := range int32(partitions) {
			source.do(source.DeleteRecords(topic, p, -1))
		}
		lists := source.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Observe: true, Count: -1})
		l.start()
		l.awaitStopped(partitions)
		time.Sleep(10 * time.Minute)
		if n := lists.Hits(); n > 1000 {
			t.Errorf("the source was asked %d times for its offsets in ten minutes", n)
		}
		l.stop()
	})
}
