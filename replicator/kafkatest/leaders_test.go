//go:build kafka

package kafkatest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
)

// strikesOnLeaders are what happens to the brokers of a cluster, and beside that to
// the link.
var strikesOnLeaders = []string{
	"reassign", "leader", "frozen", "follower", "leader link", "reassign zombie", "frozen zombie", "reassign leader",
}

// One side is a cluster of three brokers, in which leaders move, die, freeze and come
// back: cleanly, so that nothing is lost there, and nothing may be lost or doubled in
// the mirror; and uncleanly, so that records are lost that were acknowledged.
func TestReplicated(t *testing.T) {
	t.Parallel()
	c := newReplicated(t, sourceRegion)
	t.Run("leaders of the source move", func(t *testing.T) {
		testLeaders(t, c.in(t, sourceRegion), func(c *replicated) *world { return worldOf(t, c.cluster, newCluster(t, destRegion)) }, (*world).log)
	})
	t.Run("leaders of the mirror move", func(t *testing.T) {
		testLeaders(t, c.in(t, destRegion), func(c *replicated) *world { return worldOf(t, newCluster(t, sourceRegion), c.cluster) }, (*world).mirror)
	})
	t.Run("what the mirror has is not replicated", func(t *testing.T) { testUnreplicated(t, c.in(t, destRegion)) })
	for name, away := range map[string]bool{"while the link runs": false, "while the link is away": true} {
		t.Run("unclean leader of the source, "+name, func(t *testing.T) { testUncleanSource(t, c.in(t, sourceRegion), away) })
		t.Run("unclean leader of the mirror, "+name, func(t *testing.T) { testUncleanMirror(t, c.in(t, destRegion), away) })
	}
}

// log is the name of the world's topic at the source.
func (w *world) log() string { return w.topic }

func testLeaders(t *testing.T, c *replicated, make func(*replicated) *world, led func(*world) string) {
	w := make(c)
	w.source.create(w.topic, partitions)
	k := newKilling(w)
	k.leaders, k.led = c, led(w)
	k.rounds(strikesOnLeaders, (*killRounds+2)/3, func() *load { return k.load(k.seed) }, func() int {
		ends := k.source.ends(k.topic)
		k.await("all is mirrored", patience, func() error { return k.mirrored(ends) })
		k.link.awaitMirroring()
		return k.sameOffsets()
	})
}

// A replica that was out of sync becomes leader of the log. Partition 0 just ends
// earlier; partition 1 has grown again with other records, past where the mirror ends;
// partition 2 has lost nothing.
func testUncleanSource(t *testing.T, c *replicated, away bool) {
	w := worldOf(t, c.cluster, newCluster(t, destRegion))
	c.place(w.topic, [][]int32{{1, 2}, {1, 2}, {3, 2}}, "unclean.leader.election.enable", "true", "min.insync.replicas", "1")
	const kept, lost = 20, 10
	w.source.writeAll(w.topic, kept)
	l := w.start()
	l.awaitMirrored()

	c.node(2).freeze()
	c.awaitInSync(w.topic, []int32{1}, 0, 1)
	w.source.writeAll(w.topic, lost)
	l.awaitMirrored()
	mirrored := w.dest.read(w.mirror())
	if away {
		l.stop()
	}
	c.node(1).kill()
	c.node(2).thaw()
	c.awaitLeader(w.topic, 2, 0, 1)
	w.await("the unclean leader is in service", patience, func() error {
		if ends := c.ends(w.topic); ends[0] != kept || ends[1] != kept || ends[2] != kept+lost {
			return fmt.Errorf("the source ends at %v", ends)
		}
		return nil
	})
	w.source.client = w.source.dial(kgo.DisableIdempotentWrite())
	w.source.write(w.topic, 1, 2*lost)
	w.source.write(w.topic, 2, lost)
	if away {
		l = w.start()
	}
	for _, num := range []int32{0, 1} {
		l.awaitState(num, replicator.Truncated)
		if s := l.part(num).Stop; s.From != kept || s.To != kept+lost-1 {
			t.Errorf("partition %d: offsets %d to %d, want %d to %d: %v", num, s.From, s.To, kept, kept+lost-1, s)
		}
	}
	l.awaitMirrored(2)

	c.repair() // the leader from before truncates its log too
	l.resume(0, "latest")
	l.resume(1, fmt.Sprint(kept))
	w.source.writeAll(w.topic, lost)
	l.awaitMirrored()
	log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
	for num := range int32(2) { // what the mirror had it keeps, and what came since follows
		log[num] = slices.Concat(mirrored[num], log[num][kept:])
	}
	if n, want := same(t, log, mirror, false), 5*(kept+lost); n != want {
		t.Errorf("the mirror has %d records, want %d", n, want)
	}
}

// A replica that was out of sync becomes leader of the mirror, as an operator orders:
// records are lost that the link knows to be written. It writes them again, at the
// same offsets, even if nothing new comes.
func testUncleanMirror(t *testing.T, c *replicated, away bool) {
	w := worldOf(t, newCluster(t, sourceRegion), c.cluster)
	w.source.create(w.topic, partitions)
	w.source.writeAll(w.topic, 20)
	l := w.start()
	l.awaitMirrored()
	c.configure(w.mirror(), "min.insync.replicas", "1")
	c.reassign(w.mirror(), map[int32][]int32{0: {1, 2}, 1: {1, 2}, 2: {3, 1}})
	c.awaitElected(kadm.ElectPreferredReplica, w.mirror(), 1, 0, 1)

	c.node(2).freeze()
	c.awaitInSync(w.mirror(), []int32{1}, 0, 1)
	w.source.writeAll(w.topic, 10)
	l.awaitMirrored()
	if away {
		l.stop()
	}
	c.node(1).kill()
	c.node(2).thaw()
	c.awaitElected(kadm.ElectLiveReplica, w.mirror(), 2, 0, 1)
	if away {
		if ends := c.ends(w.mirror()); ends[0] != 20 || ends[1] != 20 {
			t.Fatalf("the mirror ends at %v: nothing was lost", ends)
		}
		l = w.start()
	}
	w.await("what the mirror has lost is there again", patience, func() error { return w.mirrored(w.source.ends(w.topic)) })
	c.repair()
	w.source.writeAll(w.topic, 10)
	l.awaitMirrored()
	if n := w.sameOffsets(); n != partitions*40 {
		t.Errorf("%d records are the same, want %d", n, partitions*40)
	}
}

// A leader without followers has records of the mirror that nobody may read yet, and may
// not give its followers up while there is no controller either. The link waits for them
// to be replicated, and says so; it does not take them for lost.
func testUnreplicated(t *testing.T, c *replicated) {
	w := worldOf(t, newCluster(t, sourceRegion), c.cluster)
	w.source.create(w.topic, 1)
	w.source.write(w.topic, 0, 10)
	l := w.start()
	l.awaitMirrored()
	leads := c.partition(replicator.LinkTopic, 0).Leader
	ids := []int32{leads}
	for _, b := range []int32{1, 2, 3} {
		if b != leads {
			ids = append(ids, b)
		}
	}
	c.reassign(w.mirror(), map[int32][]int32{0: ids})
	c.awaitElected(kadm.ElectPreferredReplica, w.mirror(), leads, 0)
	c.awaitInSync(w.mirror(), []int32{1, 2, 3}, 0)
	l.awaitMirrored()

	for _, id := range ids[1:] {
		c.node(id).kill()
	}
	w.source.write(w.topic, 0, 5)
	w.await("the link waits for replicas", 2*patience, func() error {
		if p := l.part(0); p == nil || p.State != replicator.Waiting || !strings.Contains(p.Reason, "not replicated yet") {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	c.repair()
	l.awaitMirrored()
	if n := w.sameOffsets(); n != 15 {
		t.Errorf("%d records, want 15", n)
	}
}
