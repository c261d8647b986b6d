package replicator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
)

// What a choice comes to.
const (
	again   = -1 // the same stop
	refused = -2 // nothing changes
)

type stopping struct {
	name    string
	stop    func(w *world, source, dest *cluster, l *runningLink) (repair func()) // 30 records are mirrored
	state   replicator.State
	whole   bool             // the topic goes on as a whole only
	choices map[string]int64 // the first offset of the source that is mirrored then
}

var stoppings = []stopping{
	{"expired", func(w *world, source, dest *cluster, l *runningLink) func() {
		l.stop()
		source.writeTo(0, 20)
		source.do(source.DeleteRecords(topic, 0, 40))
		l.start()
		return nil
	}, replicator.LostRecords, false, map[string]int64{"retry": again, "earliest": 40, "latest": 50, "next": refused, "40": 40, "45": 45, "50": 50, "39": refused, "51": refused}},
	{"foreign writer, seen by an ack", func(w *world, source, dest *cluster, l *runningLink) func() {
		dest.produce(foreign())
		source.writeTo(0, 1)
		return nil
	}, replicator.ForeignWriter, false, map[string]int64{"earliest": 0, "latest": 31, "next": 31, "30": 30, "32": refused}},
	{"foreign writer, seen later", func(w *world, source, dest *cluster, l *runningLink) func() {
		l.stop()
		dest.produce(foreign(), foreign(), foreign())
		l.start()
		return nil
	}, replicator.Truncated, false, map[string]int64{"retry": again, "earliest": 0, "latest": 30, "29": 29, "30": 30}},
	{"foreign writer, and the log grew", func(w *world, source, dest *cluster, l *runningLink) func() {
		l.stop()
		dest.produce(foreign())
		source.writeTo(0, 5)
		l.start()
		return nil
	}, replicator.Diverged, false, map[string]int64{"retry": again, "next": refused, "earliest": 0, "latest": 35, "30": 30, "31": 31}},
	{"log re-created, shorter", func(w *world, source, dest *cluster, l *runningLink) func() {
		l.stop()
		source.recreate(topic)
		source.write(10)
		l.start()
		return nil
	}, replicator.SourceRecreated, true, map[string]int64{"retry": again, "earliest": 0, "latest": 10, "5": 5, "same": refused}},
	{"log re-created, longer", func(w *world, source, dest *cluster, l *runningLink) func() {
		source.recreate(topic)
		source.write(40)
		return nil
	}, replicator.SourceRecreated, true, map[string]int64{"earliest": 0, "latest": 40}},
	{"log restored", func(w *world, source, dest *cluster, l *runningLink) func() {
		source.recreate(topic)
		source.write(30)
		source.writeTo(1, 5)
		return nil
	}, replicator.SourceRecreated, true, map[string]int64{"retry": again, "same": 30}},
	{"mirror re-created", func(w *world, source, dest *cluster, l *runningLink) func() {
		dest.recreate(mirror(us, topic))
		source.write(1)
		return nil
	}, replicator.MirrorRecreated, true, map[string]int64{"retry": again, "earliest": 0, "latest": 31, "30": 30}},
	{"corrupt", func(w *world, source, dest *cluster, l *runningLink) func() {
		bad := source.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Partitions: []int32{0}, Err: kerr.CorruptMessage, Count: -1})
		source.writeTo(0, 5)
		return bad.Remove
	}, replicator.Corrupt, false, map[string]int64{"retry": 30, "earliest": 0, "next": 30, "33": 33, "latest": 35}},
	{"refused", func(w *world, source, dest *cluster, l *runningLink) func() {
		bad := dest.Fault(produceFails(-1, kerr.InvalidRecord)...)
		source.writeTo(0, 5)
		return bad.Remove
	}, replicator.Refused, false, map[string]int64{"retry": 30, "next": 30, "31": 31, "latest": 35}},
}

// From every stop an operator goes on by any sensible choice. The mirror keeps what
// it has, and from there on the mapping translates exactly; over a restart too.
func TestResume(t *testing.T) {
	for _, s := range stoppings {
		for choice, from := range s.choices {
			t.Run(s.name+", "+choice, func(t *testing.T) {
				two(t, func(w *world, source, dest *cluster) {
					source.write(30)
					l := w.link(us, eu)
					awaitMirrored(source, dest)
					repair := s.stop(w, source, dest, l)
					stop := l.awaitStop(topic, 0)
					if stop.State != s.state {
						t.Fatalf("stopped: %v", stop)
					}
					if repair != nil {
						repair()
					}
					s.resume(w, l, choice, from)
				})
			})
		}
	}
}

func (s stopping) resume(w *world, l *runningLink, choice string, from int64) {
	w.Helper()
	num := int32(0)
	if s.whole {
		if err := l.tryResume(topic, 0, choice); events.KindOf(err) != events.KindRefused {
			w.Errorf("one partition of a topic that was re-created goes on: %v", err)
		}
		num = replicator.All
		l.awaitStopped(partitions)
	}
	end := l.dest.end(mirror(us, topic), 0)
	err := l.tryResume(topic, num, choice)
	switch from {
	case refused:
		if events.KindOf(err) != events.KindRefused {
			w.Errorf("resumed: %v", err)
		}
		if stop := l.awaitStop(topic, 0); stop.State != s.state {
			w.Errorf("stopped: %v", stop)
		}
		return
	case again:
		if err != nil {
			w.Errorf("resumed: %v", err)
		}
		if stop := l.awaitStop(topic, 0); stop.State != s.state {
			w.Errorf("stopped: %v", stop)
		}
		return
	}
	if err != nil {
		w.Fatalf("resumed: %v", err)
	}
	l.awaitState(topic, 0, replicator.Mirroring)
	l.source.writeTo(0, 7)
	l.awaitView(topic)
	if at, ok := mapOf(l.source, l.dest, topic, 0).Source(end); !ok || at != from {
		w.Errorf("offset %d of the mirror is source offset %d, want %d", end, at, from)
	}
	if at, ok := mapOf(l.source, l.dest, topic, 0).Source(0); choice == "same" && (!ok || at != 0) {
		w.Errorf("the beginning of the mirror is source offset %d, %t", at, ok)
	}
	if want := end + l.source.end(topic, 0) - from; l.dest.end(mirror(us, topic), 0) != want {
		w.Errorf("the mirror ends at %d, want %d", l.dest.end(mirror(us, topic), 0), want)
	}
	l.remake()
	l.source.writeTo(0, 7)
	l.awaitView(topic)
	if stops := l.Status().Stopped; len(stops) > 0 {
		w.Errorf("stopped: %q", stops)
	}
	if n := l.metric("evenkeel_link_partitions_stopped"); n != 0 {
		w.Errorf("%v partitions stopped, says the metric", n)
	}
}

// What is said to be the same log again and has another record where the mirror ends
// stops again, since the mirror is not of it, and nothing is mixed up.
func TestResumeSameThatIsAnother(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(30)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		source.recreate(topic)
		for p := range int32(partitions) {
			source.writeTo(p, 29)
			other := record(p, 29)
			other.Value = []byte("another")
			source.produce(other)
			source.writeTo(p, 5)
		}
		l.awaitStopped(partitions)
		if err := l.tryResume(topic, replicator.All, "same"); err != nil {
			t.Fatal(err)
		}
		for p := range int32(partitions) {
			l.awaitState(topic, p, replicator.ForeignWriter)
			if end := dest.end(mirror(us, topic), p); end != 30 {
				t.Errorf("the mirror of partition %d ends at %d", p, end)
			}
		}
	})
}

// A topic with many partitions goes on, however far away its clusters are.
func TestResumeManyPartitions(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		const many, name = 60, "wide"
		source.do(source.CreateTopic(name, many, nil))
		l := w.link(us, eu, name)
		w.await("all partitions are mirrored", func() error {
			if d := l.Details(); len(d.Partitions) < many || !d.Running {
				return fmt.Errorf("%+v", d.Status)
			}
			return nil
		})
		source.do(source.DeleteTopic(name))
		source.do(source.CreateTopic(name, many, nil))
		l.awaitStopped(many)
		source.gate.Slow(80 * time.Millisecond)
		dest.gate.Slow(80 * time.Millisecond)
		if err := l.tryResume(name, replicator.All, "earliest"); err != nil {
			t.Fatal(err)
		}
		l.awaitRunning()
		if stops := l.Status().Stopped; len(stops) > 0 {
			t.Errorf("stopped: %q", stops)
		}
	})
}

// Of two operators who choose at the same time one is told that nothing is left to
// choose, and the log is mirrored once.
func TestResumeTwice(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(30)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		source.recreate(topic)
		source.write(10)
		l.awaitStopped(partitions)
		dest.gate.Slow(200 * time.Millisecond)
		answers := make(chan error, 2)
		for i := range 2 {
			go func() {
				time.Sleep(time.Duration(i) * 300 * time.Millisecond)
				answers <- l.tryResume(topic, replicator.All, "earliest")
			}()
		}
		if err := <-answers; err != nil {
			t.Error(err)
		}
		if err := <-answers; events.KindOf(err) != events.KindRefused {
			t.Errorf("the second one: %v", err)
		}
		dest.gate.Slow(0)
		l.awaitView(topic)
		for p := range int32(partitions) {
			if end := dest.end(mirror(us, topic), p); end != 40 {
				t.Errorf("the mirror of partition %d ends at %d, want 40", p, end)
			}
		}
	})
}

func TestResumeRefuses(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(1)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		for _, test := range []struct {
			topic string
			num   int32
			kind  events.Kind
		}{
			{"another", 0, events.KindNotFound},
			{topic, partitions, events.KindNotFound},
			{topic, 0, events.KindRefused},
			{topic, replicator.All, events.KindRefused},
		} {
			if err := l.tryResume(test.topic, test.num, "retry"); events.KindOf(err) != test.kind {
				t.Errorf("resume of topic %s, partition %d: %v", test.topic, test.num, err)
			}
		}
		l.stop()
		if err := l.tryResume(topic, 0, "retry"); events.KindOf(err) != events.KindNotReady {
			t.Errorf("resume of a link that has ended: %v", err)
		}
		if err := l.SetPause(context.Background(), "link", true); events.KindOf(err) != events.KindNotReady {
			t.Errorf("pause of a link that has ended: %v", err)
		}
	})
	for _, text := range []string{"", "Retry", "-1", "1.5", "9223372036854775808", "latest "} {
		if _, err := replicator.ParseChoice(text); events.KindOf(err) != events.KindInvalid {
			t.Errorf("choice %q: %v", text, err)
		}
	}
}

// What is paused rests, also over a restart and for every instance, and nothing else
// does.
func TestPause(t *testing.T) {
	all := []int32{0, 1, 2}
	for what, rests := range map[string][]int32{
		"link": all, "data": all, "topic/session/1": {1}, "topics": nil, "groups": nil, "topic/session/9": nil, "topic/another/0": nil,
	} {
		t.Run(what, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(10)
				l := w.link(us, eu)
				awaitMirrored(source, dest)
				source.do(l.SetPause(context.Background(), what, true))
				paused := map[int32]bool{}
				for _, p := range rests {
					paused[p] = true
				}
				source.create("later") // topics are followed, or not
				for range 2 {
					time.Sleep(time.Second)
					source.write(5)
					for p := range int32(partitions) {
						if paused[p] {
							l.awaitState(topic, p, replicator.Paused)
						} else {
							awaitPartition(source, dest, topic, p)
						}
					}
					time.Sleep(time.Minute)
					for _, p := range rests {
						if end := dest.end(mirror(us, topic), p); end != 10 {
							t.Errorf("the mirror of partition %d, which is paused, ends at %d", p, end)
						}
					}
					tasks := l.Details().Tasks
					if len(tasks) != 4 {
						t.Errorf("tasks: %+v", tasks)
					}
					for _, task := range tasks {
						if want := task.Task == replicator.Task(what) || what == "link"; want != (task.State == "paused") && task.State != "off" {
							t.Errorf("task %s is %s", task.Task, task.State)
						}
					}
					if s := l.Status(); !s.Running || len(s.Stopped) > 0 {
						t.Errorf("status: %+v", s)
					}
					l.remake()
				}
				l.awaitLocated()
				source.do(l.SetPause(context.Background(), what, false))
				awaitMirrored(source, dest)
			})
		})
	}
}

// A topic that was made anew goes on as a whole: not while one of its partitions is paused,
// of which nobody sees that its log is another one.
func TestResumeWithAPausedPartition(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(10)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		paused := "topic/" + topic + "/1"
		source.do(l.SetPause(context.Background(), paused, true))
		source.recreate(topic)
		for _, p := range []int32{0, 2} {
			if stop := l.awaitStop(topic, p); stop.State != replicator.SourceRecreated {
				t.Errorf("stopped: %v", stop)
			}
		}
		if err := l.tryResume(topic, replicator.All, "earliest"); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "partition 1 is paused") {
			t.Errorf("resumed without a paused partition: %v", err)
		}
		source.do(l.SetPause(context.Background(), paused, false))
		if stop := l.awaitStop(topic, 1); stop.State != replicator.SourceRecreated {
			t.Errorf("stopped: %v", stop)
		}
		source.write(20)
		l.resume(topic, replicator.All, "earliest")
		for p := range int32(partitions) {
			w.await("the new log", func() error {
				if end := dest.end(mirror(us, topic), p); end != 30 {
					return fmt.Errorf("the mirror of partition %d ends at %d, want 30", p, end)
				}
				return nil
			})
		}
	})
}

// A topic that is not configured any more is not mirrored any more, whatever is paused: also while nobody
// looks what topics there are.
func TestPausedTopicsAreConfigured(t *testing.T) {
	for _, what := range []string{"topics", "link"} {
		t.Run(what, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.create("other")
				source.write(5)
				more := func() {
					for range 5 {
						r := record(0, 0)
						r.Topic = "other"
						source.produce(r)
					}
				}
				more()
				l := w.link(us, eu, topic, "other")
				awaitMirrored(source, dest)
				awaitPartition(source, dest, "other", 0)
				source.do(l.SetPause(context.Background(), what, true))
				l.cfg.Topics = patterns(t, topic)
				l.remake()
				l.awaitLocated()
				more()
				source.write(5)
				time.Sleep(time.Minute)
				for _, p := range l.Details().Partitions {
					if p.Topic != topic {
						t.Errorf("partition %d of %s is %s", p.Partition, p.Topic, p.State)
					}
				}
				if end := dest.end(mirror(us, "other"), 0); end != 5 {
					t.Errorf("its mirror has %d records", end)
				}
				source.do(l.SetPause(context.Background(), what, false))
				awaitMirrored(source, dest)
			})
		})
	}
}

// awaitLocated waits until the link can be given orders.
func (l *runningLink) awaitLocated() {
	l.w.Helper()
	l.w.await("the link is connected", func() error {
		if len(l.Details().Partitions) == 0 {
			return errors.New("no partitions yet")
		}
		return nil
	})
}

// A pause that one instance is told of holds for another.
func TestPauseHoldsForAll(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		r := &rivals{world: w, source: source, dest: dest}
		r.rival()
		r.rival()
		source.write(5)
		for _, l := range r.links {
			l.awaitView(topic)
		}
		source.do(r.links[0].SetPause(context.Background(), "data", true))
		r.links[1].awaitState(topic, 0, replicator.Paused)
		source.write(5)
		time.Sleep(time.Minute)
		for p := range int32(partitions) {
			if end := dest.end(mirror(us, topic), p); end != 5 {
				t.Errorf("partition %d: the mirror ends at %d", p, end)
			}
		}
		source.do(r.links[1].SetPause(context.Background(), "data", false))
		for _, l := range r.links {
			l.awaitView(topic)
		}
	})
}
