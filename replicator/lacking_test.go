package replicator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator"
)

// A topic whose mirror the destination does not let the link make is not mirrored, and
// the link says so for as long.
func TestMirrorThatCannotBeMade(t *testing.T) {
	for _, test := range []struct {
		name string
		key  kmsg.Key
	}{
		{"created", kmsg.CreateTopics},
		{"looked at", kmsg.DescribeConfigs},
		{"altered", kmsg.IncrementalAlterConfigs},
	} {
		t.Run(test.name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				const name = "other"
				source.create(name)
				source.write(3)
				bad := kfake.Fault{Keys: []kmsg.Key{test.key}, Err: kerr.TopicAuthorizationFailed, Count: -1}
				if bad.Topic = mirror(us, name); test.key != kmsg.CreateTopics {
					bad.Topic, bad.Resource = "", mirror(us, name)
					dest.create(mirror(us, name), "retention.ms", "1234567890")
				}
				refused := dest.Fault(bad)
				l := w.linkOf(us, eu, replicator.Config{Topics: patterns(t, topic, name)})
				awaitMirrored(source, dest)
				l.awaitInterrupted(name, "TOPIC_AUTHORIZATION_FAILED")
				d := l.Details()
				if task := d.Tasks[0]; task.State != "failing" || len(task.Problems) == 0 {
					t.Errorf("task: %+v", task)
				}
				if len(d.Lacking) != 1 || !strings.Contains(d.Lacking[0], name) {
					t.Errorf("lacking: %q", d.Lacking)
				}
				refused.Remove()
				l.awaitRunning()
				w.await("the other topic is mirrored", func() error {
					_, err := l.partition(name, partitions-1)
					return err
				})
			})
		})
	}
}

// A link that is not connected does not say of any partition that it mirrors it.
func TestPartitionsOfALinkThatHasEnded(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(3)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		l.stop()
		for _, p := range l.Details().Partitions {
			if p.State != replicator.Waiting || p.Reason == "" || p.Lag != (replicator.Lag{}) {
				t.Errorf("%+v", p)
			}
		}
	})
}

// What somebody else has written into the link topic stops nothing, and is told.
func TestForeignRecordInTheLinkTopic(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(3)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		if problems := l.Details().Tasks[0].Problems; len(problems) > 0 {
			t.Fatalf("%q", problems)
		}
		dest.produce(&kgo.Record{Topic: replicator.LinkTopic, Key: []byte("no key of a link"), Value: []byte("x")})
		source.write(3)
		awaitMirrored(source, dest)
		w.await("the record is told", func() error {
			task := l.Details().Tasks[0]
			if len(task.Problems) != 1 || !strings.Contains(task.Problems[0], "not understood") || task.State != "ok" {
				return fmt.Errorf("task: %+v", task)
			}
			return nil
		})
		l.awaitRunning()
	})
}

// Partitions that a mirror cannot be given are told of, and the others are mirrored.
func TestMirrorThatCannotGrow(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(3)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		refused := dest.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		source.grow(topic, partitions+1)
		l.awaitInterrupted("topic "+topic, fmt.Sprintf("from %d to %d partitions", partitions, partitions+1))
		l.remake()
		source.write(3)
		awaitMirrored(source, dest)
		l.awaitInterrupted("topic "+topic, fmt.Sprintf("from %d to %d partitions", partitions, partitions+1))
		refused.Remove()
		l.awaitRunning()
		source.writeTo(partitions, 3)
		awaitPartition(source, dest, topic, partitions)
	})
}

// A topic that was created again with fewer partitions while the link was away stops
// as any that was created again.
func TestRecreatedWithFewerPartitions(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(mirrored)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		l.stop()
		source.do(source.DeleteTopic(topic))
		source.do(source.CreateTopic(topic, partitions-1, nil))
		l.remake()
		for _, said := range l.awaitStopped(partitions - 1) {
			if !strings.Contains(said, string(replicator.SourceRecreated)) {
				t.Errorf("stopped: %s", said)
			}
		}
		time.Sleep(time.Minute)
		if task := l.Details().Tasks[0]; task.State != "failing" || len(task.Problems) != 1 || !strings.Contains(task.Problems[0], "partitions never become fewer") {
			t.Errorf("task: %+v", task)
		}
	})
}
