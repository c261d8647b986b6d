//go:build kafka

package kafkatest

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/replicator"
)

// A region that has mirrored less of a lost origin than its peer has takes the rest from
// the peer's mirror, holes and all, at the same offsets: what the peer's link wrote, and
// nothing that somebody else has written behind it. When the origin is back, the link goes
// on from there.
func TestRelay(t *testing.T) {
	t.Parallel()
	ahead := plainWorld(t)
	behind := &world{T: t, source: ahead.source, dest: newCluster(t, forgetfulRegion), topic: ahead.topic}
	txn := ahead.source.dial(txnOf(ahead.topic))
	ahead.transactions(txn, 3)
	peer, first := ahead.start(), behind.start()
	peer.awaitMirrored()
	first.awaitMirrored()
	first.stop()
	ahead.transactions(txn, 6)
	ahead.source.writeAll(ahead.topic, 20)
	peer.awaitMirrored()
	peer.stop()
	want := ahead.dest.ends(ahead.mirror())
	ahead.dest.write(ahead.mirror(), 0, 1)

	gone := &cluster{t: t, region: sourceRegion, address: "127.0.0.1:1"}
	lost := &world{T: t, source: gone, dest: behind.dest, topic: ahead.topic}
	relayed := lost.start(func(c *replicator.Config) {
		c.Relays = []replicator.Relay{{Region: destRegion, Opts: ahead.dest.reach()}}
	})
	lost.await("what the peer has is relayed", patience, func() error {
		if is := behind.dest.ends(behind.mirror()); !maps.Equal(is, want) {
			return fmt.Errorf("the mirror ends at %v, the peer's at %v: %+v", is, want, relayed.Status())
		}
		return nil
	})
	if s := relayed.Status(); s.Running || !strings.Contains(s.Error, "relayed") || len(s.Stopped) > 0 {
		t.Errorf("status without the origin: %+v", s)
	}
	relayed.stop()

	back := behind.start()
	behind.source.writeAll(behind.topic, 5)
	back.awaitMirrored()
	n := behind.sameRecords()
	if same, expired := back.verify(); same != int64(n) || expired != 0 {
		t.Errorf("verified %d records and %d expired, want %d and 0", same, expired, n)
	}
}
