//go:build kafka

package kafkatest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/evenkeel/evenkeel/replicator"
)

// noticed is how soon a link has to see what is new at its source.
const noticed = 10 * time.Second

// Topics that a pattern selects, and partitions, are mirrored soon after they are
// created; what no pattern selects never is.
func TestNewTopicAndPartitions(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.create("not-"+w.topic, partitions)
	w.source.writeAll(w.topic, 5)
	l := w.start(func(c *replicator.Config) { c.Topics = patterns(t, w.topic+"*") })
	l.awaitMirrored()

	second := w.topic + "-second"
	w.source.create(second, 1)
	w.source.write(second, 0, 5)
	w.awaitEnd(mirrorOf(second), 0, 5)

	_, err := w.source.admin.CreatePartitions(w.source.ctx(), 2, w.topic)
	w.source.do(err)
	w.source.client = w.source.dial() // the one before knows of three partitions
	w.source.write(w.topic, partitions+1, 5)
	w.awaitEnd(w.mirror(), partitions+1, 5)
	w.sameOffsets()
	if n := same(t, w.source.read(second), w.dest.read(mirrorOf(second)), true); n != 5 {
		t.Errorf("%s has %d records", second, n)
	}
	topics, err := w.dest.admin.ListTopics(w.dest.ctx())
	w.dest.do(err)
	if topics.Has(mirrorOf("not-" + w.topic)) {
		t.Error("a topic is mirrored that no pattern selects")
	}
}

// awaitEnd waits until a partition of the destination ends at an offset.
func (w *world) awaitEnd(topic string, num int32, end int64) {
	w.Helper()
	w.await(fmt.Sprintf("%s, partition %d, ends at offset %d", topic, num, end), noticed, func() error {
		listed, err := w.dest.admin.ListEndOffsets(w.dest.ctx(), topic)
		if err != nil {
			return err
		}
		if at := offsets(listed, topic)[num]; at != end {
			return fmt.Errorf("it ends at offset %d", at)
		}
		return nil
	})
}

// Configs follow the source, also later; what the operator overrides does not,
// and what makes a mirror a copy never does.
func TestTopicConfigs(t *testing.T) {
	t.Parallel()
	w := plainWorld(t, "retention.ms", "7200000", "segment.ms", "3600000", "compression.type", "gzip", "delete.retention.ms", "1234567")
	l := w.start(func(c *replicator.Config) { c.Overrides = map[string]string{"segment.ms": "600000"} })
	w.source.writeAll(w.topic, 3)
	l.awaitMirrored()
	w.awaitConfigs(map[string]string{
		"retention.ms": "7200000", "segment.ms": "600000", "compression.type": "producer", "delete.retention.ms": "1234567",
	})
	w.source.configure(w.topic, "retention.ms", "8200000", "segment.ms", "1800000", "max.message.bytes", "2000000")
	w.awaitConfigs(map[string]string{"retention.ms": "8200000", "segment.ms": "600000", "max.message.bytes": "2000000"})

	// What somebody changes at the mirror is put right.
	w.dest.configure(w.mirror(), "retention.bytes", "2000", "cleanup.policy", "compact")
	w.awaitConfigs(map[string]string{"retention.bytes": "-1", "cleanup.policy": "delete"})

	// What goes back to its default at the source goes back at the mirror.
	done, err := w.source.admin.AlterTopicConfigs(w.source.ctx(), []kadm.AlterConfig{
		{Op: kadm.DeleteConfig, Name: "retention.ms"}, {Op: kadm.DeleteConfig, Name: "delete.retention.ms"},
	}, w.topic)
	w.source.do(err)
	w.source.do(done[0].Err)
	w.awaitConfigs(map[string]string{"retention.ms": "604800000", "delete.retention.ms": "86400000"})
	w.sameOffsets()
}

func (w *world) awaitConfigs(want map[string]string) {
	w.Helper()
	w.await("configs of the mirror", noticed, func() error {
		for key, value := range want {
			if got := w.dest.config(w.mirror(), key); got != value {
				return fmt.Errorf("%s is %q, want %q", key, got, value)
			}
		}
		return nil
	})
}

// Offsets of groups come after the records before them, translated exactly, and
// never go back; a group's consumer at the destination goes on at the very record.
func TestGroupOffsets(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	txn := w.source.dial(txnOf(w.topic))
	w.transactions(txn, 9) // so that offsets differ
	w.source.create(w.topic+"-empty", 1)
	log := w.source.read(w.topic)
	group := w.topic + "-group"
	at := int64(11)
	w.commit(w.source, group, w.topic, map[int32]int64{0: log[0][at].offset, 1: w.source.ends(w.topic)[1], 2: 0})
	w.commit(w.source, group, w.topic+"-empty", map[int32]int64{0: 0})

	l := w.start(func(c *replicator.Config) {
		c.Groups = patterns(t, group)
		c.Topics = patterns(t, w.topic+"*")
	})
	l.awaitMirrored()
	mirror := w.dest.read(w.mirror())
	w.awaitCommitted(group, w.mirror(), map[int32]int64{0: at, 1: int64(len(mirror[1])), 2: 0})
	if mirror[0][at].rest != log[0][at].rest {
		t.Errorf("the group went on at %s, want %s", mirror[0][at].rest, log[0][at].rest)
	}
	w.awaitCommitted(group, mirrorOf(w.topic+"-empty"), map[int32]int64{0: 0})

	// Back at the source, forward at the destination: neither is undone.
	w.commit(w.source, group, w.topic, map[int32]int64{0: 0, 2: log[2][5].offset})
	w.awaitCommitted(group, w.mirror(), map[int32]int64{0: at, 2: 5})
	w.commit(w.dest, group, w.mirror(), map[int32]int64{0: at + 5})
	w.commit(w.source, group, w.topic, map[int32]int64{0: log[0][at+1].offset, 2: log[2][6].offset})
	w.awaitCommitted(group, w.mirror(), map[int32]int64{0: at + 5, 2: 6})
}

// commit commits offsets of a group that has no members.
func (w *world) commit(c *cluster, group, topic string, at map[int32]int64) {
	w.Helper()
	var offsets kadm.Offsets
	for num, o := range at {
		offsets.AddOffset(topic, num, o, -1)
	}
	w.await("commit of "+group, patience, func() error { // its coordinator may be starting
		done, err := c.admin.CommitOffsets(c.ctx(), group, offsets)
		if err == nil {
			err = done.Error()
		}
		return err
	})
}

// awaitCommitted waits until the group has these offsets at the destination. One
// that is past what it should be fails at once.
func (w *world) awaitCommitted(group, topic string, want map[int32]int64) {
	w.Helper()
	w.await("offsets of "+group, 2*noticed, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), noticed)
		defer cancel()
		got, err := w.dest.admin.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		for num, o := range want {
			switch have, ok := got.Lookup(topic, num); {
			case !ok || have.At < o:
				return fmt.Errorf("%s, partition %d: offset %d (%v), want %d", topic, num, have.At, ok, o)
			case have.At > o:
				w.Fatalf("%s, partition %d: offset %d is past %d", topic, num, have.At, o)
			case have.LeaderEpoch != -1:
				w.Fatalf("%s, partition %d: leader epoch %d of another cluster", topic, num, have.LeaderEpoch)
			}
		}
		return nil
	})
}
