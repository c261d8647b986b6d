package replicator_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mirrored is how many records of each partition are mirrored before anything
// is upset.
const mirrored = 30

// upset is a thing that must stop the mirroring of partition 0 and of no other.
type upset struct {
	name  string
	upset func(w *world, source, dest *cluster, l *runningLink) // while the link runs, unless it stops it
	end   int64                                                 // of the mirror afterwards
	says  string                                                // words of the status, besides topic and partition
	again string                                                // words of a later link's, if others
	wrong bool                                                  // the mirror was wrong before the link could see it
}

var upsets = []upset{
	{"expired while the link was away", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		source.writeTo(0, 20)
		source.do(source.DeleteRecords(topic, 0, mirrored+10))
		l.start()
	}, mirrored, "30 to 39", "", false},
	{"everything expired while the link was away", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		source.writeTo(0, 20)
		source.do(source.DeleteRecords(topic, 0, -1))
		l.start()
	}, mirrored, "30 to 49", "", false},
	{"expired while the link was behind", func(w *world, source, dest *cluster, l *runningLink) {
		source.gate.Cut()
		source.writeTo(0, 20)
		source.do(source.DeleteRecords(topic, 0, mirrored+10))
		source.gate.Open()
	}, mirrored, "30 to 39", "", false},
	{"foreign writer beside a busy link", func(w *world, source, dest *cluster, l *runningLink) {
		dest.produce(foreign())
		source.writeTo(0, 1)
	}, mirrored + 2, "30 31", "31", true},
	{"foreign writer beside an idle link", func(w *world, source, dest *cluster, l *runningLink) {
		dest.produce(foreign())
	}, mirrored + 1, "31 30", "30", true},
	{"foreign writer while the link was away", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		dest.produce(foreign())
		l.start()
	}, mirrored + 1, "31 30", "30", true},
	{"foreign writer while the link was away, and the log grew", func(w *world, source, dest *cluster, l *runningLink) {
		l.stop()
		dest.produce(foreign())
		source.writeTo(0, 5)
		l.start()
	}, mirrored + 1, "30", "", true},
	{"foreign writer while the link waits for a transaction", func(w *world, source, dest *cluster, l *runningLink) {
		source.transaction(leaveOpen, record(0, mirrored), record(0, mirrored+1))
		dest.produce(foreign())
	}, mirrored + 1, "31 30 somebody", "30", true},
	{"committed transaction", func(w *world, source, dest *cluster, l *runningLink) {
		source.transaction(commit, record(0, mirrored), record(0, mirrored+1))
		source.writeTo(0, 5)
	}, mirrored + 2, "32", "", false},
	{"committed transaction at the end of the log", func(w *world, source, dest *cluster, l *runningLink) {
		source.transaction(commit, record(0, mirrored), record(0, mirrored+1))
	}, mirrored + 2, "32", "", false},
	{"aborted transaction", func(w *world, source, dest *cluster, l *runningLink) {
		source.transaction(abort, record(0, mirrored), record(0, mirrored+1))
		source.writeTo(0, 5)
	}, mirrored, "30", "", false},
	{"aborted transaction at the end of the log", func(w *world, source, dest *cluster, l *runningLink) {
		source.transaction(abort, record(0, mirrored), record(0, mirrored+1))
	}, mirrored, "30", "", false},
	{"record too large for the mirror", func(w *world, source, dest *cluster, l *runningLink) {
		dest.configure(mirror(us, topic), "max.message.bytes", "100000")
		source.writeTo(0, 1)
		awaitPartition(source, dest, topic, 0)
		large := record(0, mirrored+1)
		large.Value = noise(200_000)
		source.produce(large, record(0, mirrored+2))
		source.writeTo(0, 5)
	}, mirrored + 1, "31 large", "", false},
	{"record too large for any batch", func(w *world, source, dest *cluster, l *runningLink) {
		source.configure(topic, "max.message.bytes", "8000000")
		client := source.dial(kgo.ProducerBatchMaxBytes(7_000_000))
		defer client.Close()
		large := record(0, mirrored+1)
		large.Value = noise(6_000_000)
		source.do(client.ProduceSync(context.Background(), record(0, mirrored), large, record(0, mirrored+2)).FirstErr())
		source.writeTo(0, 5)
	}, mirrored + 1, "31 large", "", false},
	{"timestamp in microseconds", func(w *world, source, dest *cluster, l *runningLink) {
		source.produceAt(0, time.Now().UnixMicro())
		source.writeTo(0, 5)
	}, mirrored, "30 timestamp", "", false},
	{"timestamp of the year 1", func(w *world, source, dest *cluster, l *runningLink) {
		source.produceAt(0, time.Time{}.UnixMilli())
		source.writeTo(0, 5)
	}, mirrored, "30 timestamp", "", false},
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
				u.check(w, source, dest, l, u.says)
				source.writeTo(0, 3)
				l.stop()
				u.check(w, source, dest, w.link(us, eu), cmp.Or(u.again, u.says))
			})
		})
	}
}

// check waits until partition 0 is stopped, and checks that it says why, that
// the others go on, and that the mirror is a copy up to where it stopped.
func (u upset) check(w *world, source, dest *cluster, l *runningLink, says string) {
	w.Helper()
	said := l.awaitStopped(1)[0]
	for _, word := range append(strings.Fields(says), "us,", "topic session,", "partition 0:") {
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
		says    string
	}{
		{"empty, beside a running link", false, 0, "30"},
		{"empty, while the link was away", true, 0, "30"},
		{"shorter, beside a running link", false, 20, "30 20"},
		{"shorter, while the link was away", true, 20, "30 20"},
		{"of the same length, beside a running link", false, 30, "29"},
		{"of the same length, while the link was away", true, 30, "29"},
		{"longer, beside a running link", false, 40, "29"},
		{"longer, while the link was away", true, 40, "29"},
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
				for p, said := range l.awaitStopped(partitions) {
					for _, word := range append(strings.Fields(test.says), fmt.Sprintf("partition %d:", p)) {
						if !strings.Contains(said, word) {
							t.Errorf("status says %q, want %q in it", said, word)
						}
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

// A compacted log has holes.
func TestCompactedLogStops(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.create("compacted", "cleanup.policy", "compact", "segment.bytes", "100")
		dest.create(mirror(us, "compacted"))
		source.produce(&kgo.Record{Topic: "compacted", Key: []byte("written once"), Value: []byte("v")})
		for i := range 20 {
			source.produce(&kgo.Record{Topic: "compacted", Key: []byte("written often"), Value: bytes.Repeat([]byte{'v'}, i)})
		}
		source.Compact()
		if left := source.read("compacted", 0); len(left) == 21 || left[0].Offset != 0 {
			t.Fatalf("%d records left from offset %d on: the test tests nothing", len(left), left[0].Offset)
		}
		l := w.link(us, eu, "compacted")
		if said := l.awaitStopped(1)[0]; !strings.Contains(said, "topic compacted, partition 0:") || !strings.Contains(said, "offsets 1 to") {
			t.Errorf("status says %q", said)
		}
		if end := dest.end(mirror(us, "compacted"), 0); end != 1 {
			t.Errorf("the mirror ends at %d, want 1", end)
		}
		checkPrefix(source, dest, "compacted", 0)
	})
}

// A log with more partitions than the configuration knows is not mirrored
// wholly, and nobody must believe that it is.
func TestPartitionsBeyondTheConfigurationStop(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		source.write(5)
		awaitMirrored(source, dest)
		answers, err := kadm.NewClient(source.client).CreatePartitions(context.Background(), 1, topic)
		source.do(err)
		source.do(answers.Error())
		said := l.awaitStopped(1)[0]
		if want := fmt.Sprintf("partition %d:", partitions); !strings.Contains(said, want) || !strings.Contains(said, fmt.Sprintf("says %d", partitions)) {
			t.Errorf("status says %q", said)
		}
		source.write(5)
		awaitMirrored(source, dest)
	})
}
