//go:build kafka

package kafkatest

import (
	"context"
	"regexp"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

// A mirror's name says whose it is. What people want of names that are the same in
// all regions they have all the same: two regions mirror each other's topics of one name,
// by patterns that mean everything, and nothing comes back or is mirrored twice; and a
// group that reads a topic wherever it comes from (one pattern for logs and mirrors) goes
// on in the other region at the offsets where it was.
func TestNamesOfBothWays(t *testing.T) {
	t.Parallel()
	east := plainWorld(t)
	west := &world{T: t, source: east.dest, dest: east.source, topic: east.topic}
	west.source.create(west.topic, partitions)
	everything := func(c *replicator.Config) {
		c.Topics = patterns(t, "/.*"+regexp.QuoteMeta(east.topic)+".*/").Sparing(follow.Internal(sourceRegion, destRegion, forgetfulRegion))
		c.Groups = patterns(t, east.topic)
	}
	links := []*link{east.start(everything), west.start(everything)}
	const written = 40
	east.source.writeAll(east.topic, written)
	west.source.writeAll(west.topic, written)
	for _, l := range links {
		l.awaitMirrored()
	}

	const all = written * partitions
	first := east.consumeInGroup(east.source, func(c consumed) bool { return c.count(east.topic) > all/3 })
	committed := map[int32]int64{}
	for num, records := range first[east.topic] {
		committed[num] = int64(len(records))
	}
	east.awaitCommitted(east.topic, east.mirror(), committed)
	left := all - first.count(east.topic)
	rest := east.consumeInGroup(east.dest, func(c consumed) bool { return c.count(east.mirror()) >= left })[east.mirror()]
	log := east.source.read(east.topic)
	for num := range int32(partitions) {
		var offsets []int64
		for _, r := range slices.Concat(first[east.topic][num], rest[num]) {
			offsets = append(offsets, r.Offset)
		}
		var want []int64
		for _, r := range log[num] {
			want = append(want, r.offset)
		}
		if !slices.Equal(offsets, want) {
			t.Errorf("partition %d: the group has read offsets %v in both regions, the log has %v", num, offsets, want)
		}
	}

	// Once more, to see that nothing has begun to go round.
	east.source.writeAll(east.topic, written)
	west.source.writeAll(west.topic, written)
	for i, w := range []*world{east, west} {
		links[i].awaitMirrored()
		if n := w.sameOffsets(); n != 2*all {
			t.Errorf("%d records from %s, want %d", n, w.source.region, 2*all)
		}
		topics, err := w.source.admin.ListTopics(w.source.ctx())
		w.source.do(err)
		for _, name := range topics.Names() {
			if regexp.MustCompile(regexp.QuoteMeta(w.topic)).MatchString(name) && name != w.topic && name != east.mirror() && name != west.mirror() {
				t.Errorf("%s has a topic %s", w.source.region, name)
			}
		}
	}
}

// consumed is what a group has read, by topic and partition.
type consumed map[string]map[int32][]*kgo.Record

func (c consumed) count(topic string) (n int) {
	for _, records := range c[topic] {
		n += len(records)
	}
	return n
}

// consumeInGroup reads logs and mirrors of the world's topic as a group, until it has
// read enough, and commits.
func (w *world) consumeInGroup(c *cluster, enough func(consumed) bool) consumed {
	w.Helper()
	client, err := kgo.NewClient(append(c.reach(),
		kgo.ConsumerGroup(w.topic), kgo.ConsumeRegex(), kgo.ConsumeTopics(`^([^.]*\.)?`+regexp.QuoteMeta(w.topic)+"$"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.FetchMaxWait(tick))...)
	c.do(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	found := consumed{}
	for !enough(found) {
		fetches := client.PollRecords(ctx, 7) // a few, so that it stops in the middle
		if ctx.Err() != nil {
			w.Fatalf("the group has read %d records of the log, %d of its mirror", found.count(w.topic), found.count(w.mirror()))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if found[r.Topic] == nil {
				found[r.Topic] = map[int32][]*kgo.Record{}
			}
			found[r.Topic][r.Partition] = append(found[r.Topic][r.Partition], r)
		})
	}
	c.do(client.CommitUncommittedOffsets(ctx))
	return found
}
