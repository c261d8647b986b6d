//go:build kafka

package kafkatest

import (
	"testing"

	"github.com/evenkeel/evenkeel/replicator"
)

// A group is ahead of a mirror that stands still: its offset waits, because a
// consumer that got there first would be past the end. It comes when the records do,
// and those of partitions that are not behind come at once.
func TestGroupsBehind(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.writeAll(w.topic, 10)
	group := w.topic + "-group"
	l := w.start(func(c *replicator.Config) { c.Groups = patterns(t, group) })
	l.awaitMirrored()
	what := "topic/" + w.topic + "/0"
	if err := l.SetPause(t.Context(), what, true); err != nil {
		t.Fatal(err)
	}
	w.source.writeAll(w.topic, 10)
	w.commit(w.source, group, w.topic, map[int32]int64{0: 15, 1: 15, 2: 20})
	l.awaitMirrored(1, 2)
	w.awaitCommitted(group, w.mirror(), map[int32]int64{1: 15, 2: 20})
	got, err := w.dest.admin.FetchOffsets(w.dest.ctx(), group)
	w.dest.do(err)
	if o, ok := got.Lookup(w.mirror(), 0); ok && o.At > 10 {
		t.Errorf("the group is at offset %d of a mirror that ends at 10", o.At)
	}
	if err := l.SetPause(t.Context(), what, false); err != nil {
		t.Fatal(err)
	}
	l.awaitMirrored()
	w.awaitCommitted(group, w.mirror(), map[int32]int64{0: 15, 1: 15, 2: 20})
}

// What a link keeps besides its mirrors is one compacted topic in the destination,
// and nothing in the source: neither topics nor groups.
func TestLinkTopic(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	w.source.writeAll(w.topic, 10)
	l := w.start()
	l.awaitMirrored()
	if policy := w.dest.config(replicator.LinkTopic, "cleanup.policy"); policy != "compact" {
		t.Errorf("cleanup.policy of %s is %q", replicator.LinkTopic, policy)
	}
	topics, err := w.source.admin.ListTopics(w.source.ctx())
	w.source.do(err)
	if topics.Has(w.mirror()) {
		t.Errorf("the source has %v", topics.Names())
	}
}
