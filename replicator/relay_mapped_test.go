package replicator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
)

// threeWithHoles runs a test in which us, whose logs have transactions and are
// compacted, is lost when eu has mirrored less of it than ap.
func threeWithHoles(t *testing.T, test func(w *world, source, behind, ahead *cluster, l *runningLink)) {
	t.Helper()
	simulate(t, 1, []events.Region{us, eu, ap}, func(w *world) {
		source, behind, ahead := w.clusters[us], w.clusters[eu], w.clusters[ap]
		source.create(compacted, "cleanup.policy", "compact", "segment.bytes", "2000")
		l := w.linkOf(us, eu, replicator.Config{
			Topics: patterns(t, topic, compacted), Relays: []replicator.Relay{{Region: ap, Opts: ahead.opts()}},
		})
		peer := w.link(us, ap, topic, compacted)
		source.holed(0)
		awaitViews(l, peer)
		l.stop()
		for n := range 4 {
			source.holed(100 * (n + 1))
			if n%2 == 0 {
				awaitViews(peer)
			}
			source.Compact() // the peer sees other holes than one that reads it all later
		}
		awaitViews(peer)
		test(w, source, behind, ahead, l)
	})
}

// holed writes what leaves holes, in all partitions of both logs.
func (c *cluster) holed(n int) {
	c.w.Helper()
	for p := range int32(partitions) {
		one := func(i int) *kgo.Record {
			r := record(p, n+i)
			r.Topic = compacted
			if i == 3 {
				r.Key = fmt.Appendf(nil, "once %d", n)
			}
			return r
		}
		for i := range 10 {
			batch := []*kgo.Record{one(3 * i), one(3*i + 1), one(3*i + 2)}
			c.produce(batch...)
			c.note(batch...)
		}
		at := int(c.end(topic, p))
		c.transactionIn(p, abort, at, 3)
		c.transactionIn(p, commit, at+3, 5)
		c.writeTo(p, 4)
		c.transactionIn(p, abort, at+20, 2)
	}
}

func (c *cluster) transactionIn(p int32, end, from, n int) {
	c.w.Helper()
	var list []*kgo.Record
	for i := range n {
		list = append(list, record(p, from+i))
	}
	c.transaction(end, list...)
}

func awaitViews(links ...*runningLink) {
	for _, l := range links {
		l.w.Helper()
		l.awaitView(topic)
		l.awaitView(compacted)
	}
}

// awaitRelayed waits until one region's mirrors have all that another's have, with the
// same offsets of the log for it, and nothing else.
func awaitRelayed(w *world, source, behind, ahead *cluster) {
	w.Helper()
	for _, log := range []string{topic, compacted} {
		name := mirror(us, log)
		for p := range int32(partitions) {
			last := func(c *cluster) int64 {
				at, _ := mapOf(source, c, log, p).Source(c.end(name, p) - 1)
				return at
			}
			w.await(fmt.Sprintf("topic %s, partition %d is relayed", log, p), func() error {
				if is, want := last(behind), last(ahead); is != want {
					return fmt.Errorf("it ends with offset %d of the log, the peer's mirror with %d", is, want)
				}
				return nil
			})
			have, want := placed(source, behind, log, p), placed(source, ahead, log, p)
			if log == topic && len(have) != len(want) {
				w.Errorf("topic %s, partition %d: %d records, the peer has %d", log, p, len(have), len(want))
			}
			for at, r := range want {
				switch is := have[at]; {
				case is != nil:
					if err := compareParts(r, is); err != nil {
						w.Errorf("topic %s, partition %d: %v", log, p, err)
					}
				case log == topic || at > last(behind):
					w.Errorf("topic %s, partition %d: offset %d of the log is missing", log, p, at)
				}
			}
			for at, r := range have {
				if was := source.journal[spot{log, p, at}]; log == compacted && (was == nil || compareParts(was, r) != nil) {
					w.Errorf("topic %s, partition %d: %q is to be offset %d of the log, where %v was written", log, p, r.Value, at, was)
				}
			}
		}
	}
}

// placed are a mirror's records by the offsets of the log that the link topic gives.
func placed(source, dest *cluster, log string, p int32) map[int64]*kgo.Record {
	found := map[int64]*kgo.Record{}
	runs := mapOf(source, dest, log, p)
	for _, r := range dest.read(mirror(us, log), p) {
		at, _ := runs.Source(r.Offset)
		found[at] = r
	}
	return found
}

// Logs with holes are relayed to the same mapping, and the origin's return finds
// nothing doubled and nothing lost.
func TestRelayOfHoles(t *testing.T) {
	threeWithHoles(t, func(w *world, source, behind, ahead *cluster, l *runningLink) {
		source.down()
		l.start()
		awaitRelayed(w, source, behind, ahead)
		if s := l.Status(); len(s.Stopped) > 0 {
			t.Errorf("stopped while the origin is away: %q", s.Stopped)
		}
		l.remake() // what was relayed is found again
		time.Sleep(5 * time.Minute)
		awaitRelayed(w, source, behind, ahead)
		source.up()
		source.holed(1000)
		source.Compact()
		awaitViews(l)
		l.awaitRunning()
		for _, p := range l.Details().Partitions {
			if p.Identity {
				t.Errorf("%s, partition %d has no mapping: the test tests nothing", p.Topic, p.Partition)
			}
		}
	})
}

// The mirror of the peer is compacted as well before it is relayed, and goes on
// growing meanwhile.
func TestRelayOfHolesThatGrow(t *testing.T) {
	threeWithHoles(t, func(w *world, source, behind, ahead *cluster, l *runningLink) {
		ahead.Compact()
		l.toSource = newGate(w.dial) // eu's link alone cannot reach the origin
		l.toSource.Cut()
		l.remake()
		awaitRelayed(w, source, behind, ahead)
		for n := range 3 {
			source.holed(2000 + 100*n)
			source.Compact()
			w.await("the peer has it", func() error {
				for p := range int32(partitions) {
					if checkView(source, ahead, topic, p, false) != nil || checkView(source, ahead, compacted, p, true) != nil {
						return fmt.Errorf("partition %d is behind", p)
					}
				}
				return nil
			})
			awaitRelayed(w, source, behind, ahead)
		}
		l.toSource.Open()
		l.awaitRunning()
		source.holed(5000)
		awaitViews(l)
	})
}

// A peer that has less is no reason to stop.
func TestRelayFromBehind(t *testing.T) {
	threeWithHoles(t, func(w *world, source, behind, ahead *cluster, l *runningLink) {
		toPeer := w.linkOf(us, ap, replicator.Config{
			Topics: patterns(t, topic, compacted), Relays: []replicator.Relay{{Region: eu, Opts: behind.opts()}},
		})
		toPeer.stop()
		source.down()
		toPeer.remake()
		time.Sleep(5 * time.Minute)
		if s := toPeer.Status(); len(s.Stopped) > 0 {
			t.Errorf("stopped: %q", s.Stopped)
		}
		source.up()
		source.holed(1000)
		awaitViews(toPeer)
	})
}
