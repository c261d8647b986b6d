package replicator_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator"
)

// mirrored is how many records of each partition are mirrored before anything
// is upset.
const mirrored = 30

// upset is a thing that must stop the mirroring of partition 0 and of no other.
type upset struct {
	name  string
	upset func(w *world, source, dest *cluster, l *runningLink) // while the link runs, unless it stops it
	end   int64                                                 // of the mirror afterwards
	stop  want
	again want // of a later link, after three more records; zero: the same
	wrong bool // the mirror was wrong before the link could see it
}

// want is how a partition is stopped.
type want struct {
	state    replicator.State
	from, to int64
}

// The clusters of these tests do not tell who wrote to an idle partition, so that a
// foreign writer looks like a source that has lost records, or like a difference.
var upsets = []upset{
	{"expired while the link was away", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		source.writeTo(0, 20)
		source.do(source.DeleteRecords(topic, 0, mirrored+10))
		l.start()
	}, mirrored, want{replicator.LostRecords, 30, 39}, want{}, false},
	{"everything expired while the link was away", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		source.writeTo(0, 20)
		source.do(source.DeleteRecords(topic, 0, -1))
		l.start()
	}, mirrored, want{replicator.LostRecords, 30, 49}, want{}, false},
	{"expired while the link was behind", func(w *world, source, dest *cluster, l *runningLink) {
		source.gate.Cut()
		source.writeTo(0, 20)
		source.do(source.DeleteRecords(topic, 0, mirrored+10))
		source.gate.Open()
	}, mirrored, want{replicator.LostRecords, 30, 39}, want{}, false},
	{"foreign writer beside a busy link", func(w *world, source, dest *cluster, l *runningLink) {
		dest.produce(foreign())
		source.writeTo(0, 1)
	}, mirrored + 2, want{replicator.ForeignWriter, 30, 30}, want{replicator.Diverged, 31, 31}, true},
	{"foreign writer beside an idle link", func(w *world, source, dest *cluster, l *runningLink) {
		dest.produce(foreign())
	}, mirrored + 1, want{replicator.Truncated, 30, 30}, want{replicator.Diverged, 30, 30}, true},
	{"foreign writer while the link was away", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		dest.produce(foreign())
		l.start()
	}, mirrored + 1, want{replicator.Truncated, 30, 30}, want{replicator.Diverged, 30, 30}, true},
	{"foreign writer while the link was away, and the log grew", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		dest.produce(foreign())
		source.writeTo(0, 5)
		l.start()
	}, mirrored + 1, want{replicator.Diverged, 30, 30}, want{}, true},
	{"foreign writer while the link waits for a transaction", func(w *world, source, dest *cluster, l *runningLink) {
		source.transaction(leaveOpen, record(0, mirrored), record(0, mirrored+1))
		dest.produce(foreign())
	}, mirrored + 1, want{replicator.Truncated, 30, 30}, want{replicator.Diverged, 30, 30}, true},
}

// foreign is a record that somebody else writes to the mirror of partition 0.
func foreign() *kgo.Record {
	return &kgo.Record{Topic: mirror(us, topic), Partition: 0, Value: []byte("foreign")}
}

// What upsets one partition stops it, with an error that names it, before
// anything wrong is written. The other partitions go on; a link made anew stops
// again.
func TestStopsOnePartition(t *testing.T) {
	for _, u := range upsets {
		t.Run(u.name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(mirrored)
				l := w.link(us, eu)
				awaitMirrored(source, dest)
				u.upset(w, source, dest, l)
				u.check(w, source, dest, l, u.stop)
				source.writeTo(0, 3)
				l.stop()
				l.remake()
				u.check(w, source, dest, l, cmp.Or(u.again, u.stop))
			})
		})
	}
}

// check waits until partition 0 is stopped, and checks that it says why, that
// the others go on, and that the mirror is a copy up to where it stopped.
func (u upset) check(w *world, source, dest *cluster, l *runningLink, is want) {
	w.Helper()
	said := l.awaitStopped(1)[0]
	stop := l.awaitStop(topic, 0)
	if got := (want{stop.State, stop.From, stop.To}); got != is {
		w.Errorf("stopped: %+v, want %+v: %s", got, is, said)
	}
	for _, word := range []string{"us,", "topic session,", "partition 0:", string(is.state), fmt.Sprint(is.from)} {
		if !strings.Contains(said, word) {
			w.Errorf("status says %q, want %q in it", said, word)
		}
	}
	for p := range int32(partitions) {
		if p != 0 {
			source.writeTo(p, 10)
			awaitPartition(source, dest, topic, p)
		}
	}
	time.Sleep(time.Minute) // nothing more may be written
	if s := l.Status(); !s.Running || len(s.Stopped) != 1 {
		w.Errorf("status: %+v", s)
	}
	if n := l.metric("evenkeel_link_partitions_stopped"); n != 1 {
		w.Errorf("%v partitions stopped, says the metric", n)
	}
	if end := dest.end(mirror(us, topic), 0); end != u.end {
		w.Errorf("the mirror ends at %d, want %d", end, u.end)
	}
	if !u.wrong {
		checkPrefix(source, dest, topic, 0)
	}
}

// A topic that is deleted and created again has other records at the same
// offsets: every partition is stopped, and nothing is appended.
func TestRecreatedTopicStops(t *testing.T) {
	for _, test := range []struct {
		name    string
		away    bool // the link is, meanwhile
		records int  // in the new topic
	}{
		{"empty, beside a running link", false, 0},
		{"empty, while the link was away", true, 0},
		{"shorter, beside a running link", false, 20},
		{"shorter, while the link was away", true, 20},
		{"of the same length, beside a running link", false, 30},
		{"of the same length, while the link was away", true, 30},
		{"longer, beside a running link", false, 40},
		{"longer, while the link was away", true, 40},
	} {
		t.Run(test.name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(mirrored)
				l := w.link(us, eu)
				awaitMirrored(source, dest)
				if test.away {
					l.stop()
				}
				source.recreate(topic)
				for i := range test.records * partitions {
					r := record(int32(i%partitions), i)
					r.Value = []byte("of the new topic")
					source.produce(r)
				}
				if test.away {
					l.start()
				}
				l.awaitStopped(partitions)
				for p := range int32(partitions) {
					if stop := l.awaitStop(topic, p); stop.State != replicator.SourceRecreated || stop.From != -1 || stop.To != -1 {
						t.Errorf("partition %d: %v", p, stop)
					}
				}
				source.write(30)
				time.Sleep(time.Minute)
				for p := range int32(partitions) {
					if end := dest.end(mirror(us, topic), p); end != mirrored {
						t.Errorf("partition %d: the mirror ends at %d, want %d", p, end, mirrored)
					}
				}
			})
		})
	}
}

// The last record of a mirror decides whether the mirror is one: it must be the
// source's in every part.
func TestTailIsComparedWholly(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(r *kgo.Record)
		stops  int
	}{
		{"the same", func(*kgo.Record) {}, 0},
		{"key", func(r *kgo.Record) { r.Key = []byte("another") }, 1},
		{"value", func(r *kgo.Record) { r.Value = []byte("another") }, 1},
		{"timestamp", func(r *kgo.Record) { r.Timestamp = r.Timestamp.Add(time.Millisecond) }, 1},
		{"header", func(r *kgo.Record) { r.Headers[0].Value = []byte("another") }, 1},
		{"no header", func(r *kgo.Record) { r.Headers = nil }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(mirrored)
				r := record(0, 0)
				test.change(r)
				r.Topic = mirror(us, topic)
				dest.create(r.Topic)
				dest.produce(r)
				l := w.link(us, eu)
				l.awaitStopped(test.stops)
				for p := int32(test.stops); p < partitions; p++ {
					awaitPartition(source, dest, topic, p)
				}
				if end := dest.end(mirror(us, topic), 0); test.stops > 0 && end != 1 {
					t.Errorf("the mirror ends at %d", end)
				}
			})
		})
	}
}

// A topic that was re-created with more partitions than before is another one for
// those that are mirrored, and stays so when the new ones are.
func TestRecreatedWithMorePartitions(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(mirrored)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		l.stop()
		source.do(source.DeleteTopic(topic))
		source.do(source.CreateTopic(topic, partitions+1, nil))
		source.redial()
		for p := range int32(partitions + 1) {
			source.writeTo(p, mirrored+10)
		}
		for range 2 {
			l.start()
			for p := range int32(partitions) {
				if stop := l.awaitStop(topic, p); stop.State != replicator.SourceRecreated {
					t.Errorf("partition %d: %v", p, stop)
				}
			}
			time.Sleep(time.Minute)
			l.stop()
		}
		for p := range int32(partitions) {
			if end := dest.end(mirror(us, topic), p); end != mirrored {
				t.Errorf("partition %d: the mirror ends at %d", p, end)
			}
		}
	})
}

// A record that is larger than the mirror takes, because the source's limit was
// lowered since, stops its partition after everything before it was mirrored, be it in
// the same batch; smaller ones in a batch that is too large pass.
func TestTooLarge(t *testing.T) {
	for _, large := range []int{0, 1, 15, 19} {
		for _, alone := range []bool{false, true} {
			t.Run(fmt.Sprintf("record %d, alone %t", large, alone), func(t *testing.T) {
				two(t, func(w *world, source, dest *cluster) {
					var batch []*kgo.Record
					for i := range 20 {
						r := record(0, i)
						r.Value = noise(20_000)
						if i == large {
							r.Value = noise(200_000)
						}
						batch = append(batch, r)
						if alone {
							source.produce(r)
						}
					}
					if !alone {
						source.produce(batch...)
					}
					source.configure(topic, "max.message.bytes", "100000")
					source.write(5)
					l := w.link(us, eu)
					for range 2 {
						stop := l.awaitStop(topic, 0)
						if got := (want{stop.State, stop.From, stop.To}); got != (want{replicator.TooLarge, int64(large), int64(large)}) {
							t.Errorf("%+v", stop)
						}
						if end := checkPrefix(source, dest, topic, 0); end != int64(large) {
							t.Errorf("the mirror ends at %d", end)
						}
						awaitPartition(source, dest, topic, 1)
						l.remake()
					}
					l.awaitStop(topic, 0)
					source.configure(topic, "max.message.bytes", "1000000")
					w.await("the mirror's limit is raised", func() error {
						if v := dest.TopicInfo(mirror(us, topic)).Configs["max.message.bytes"]; v == nil || *v != "1000000" {
							return fmt.Errorf("%v", v)
						}
						return nil
					})
					l.resume(topic, 0, "retry")
					awaitMirrored(source, dest)
				})
			})
		}
	}
}

// A batch that has to be split goes on at any of its records when a link is made
// anew.
func TestSplitBatchGoesOnInTheMiddle(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		var batch []*kgo.Record
		for i := range 40 {
			r := record(0, i)
			r.Value = noise(20_000)
			batch = append(batch, r)
		}
		source.client.Close()
		source.client = source.dial(kgo.ProducerBatchCompression(kgo.NoCompression()))
		source.produce(batch...)
		source.configure(topic, "max.message.bytes", "50000")
		var most atomic.Int32
		within := map[int64]bool{}
		refusals := dest.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: mirror(us, topic), Partitions: []int32{0}, Err: kerr.NotEnoughReplicas, Count: -1,
			When: func(r kmsg.Request) bool {
				const atSequence = 53
				for _, p := range r.(*kmsg.ProduceRequest).Topics[0].Partitions {
					if p.Partition == 0 && int32(binary.BigEndian.Uint32(p.Records[atSequence:])) >= most.Load() {
						return true
					}
				}
				return false
			},
		})
		l := w.link(us, eu)
		for i := range int32(12) {
			most.Store(i)
			l.remake()
			time.Sleep(20 * time.Second)
			within[dest.end(mirror(us, topic), 0)] = true
		}
		refusals.Remove()
		awaitMirrored(source, dest)
		if len(within) < 4 {
			t.Errorf("the link was made anew with the mirror's end at %v only: the test tests little", within)
		}
	})
}
