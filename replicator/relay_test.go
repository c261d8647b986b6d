package replicator_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
)

// threeWithRelay runs a test in which eu has mirrored less of us than ap has when
// us is lost.
func threeWithRelay(t *testing.T, test func(w *world, source, behind, ahead *cluster, l *runningLink)) {
	t.Helper()
	simulate(t, 1, []events.Region{us, eu, ap}, func(w *world) {
		source, behind, ahead := w.clusters[us], w.clusters[eu], w.clusters[ap]
		l := w.linkOf(us, eu, replicator.Config{
			Topics: patterns(t, topic), Relays: []replicator.Relay{{Region: ap, Opts: ahead.opts()}},
		})
		w.link(us, ap)
		source.write(30)
		awaitMirrored(source, behind)
		awaitMirrored(source, ahead)
		l.stop()
		source.write(20)
		awaitMirrored(source, ahead)
		source.down()
		test(w, source, behind, ahead, l)
	})
}

// awaitAsAhead waits until one region's mirrors are as long as another's, and
// then compares their records.
func awaitAsAhead(w *world, behind, ahead *cluster) {
	w.Helper()
	name := mirror(us, topic)
	for p := range int32(partitions) {
		w.await("what the peer has is relayed", func() error {
			if is, want := behind.end(name, p), ahead.end(name, p); is != want {
				return fmt.Errorf("partition %d ends at %d, the peer's at %d", p, is, want)
			}
			return nil
		})
		copies := behind.read(name, p)
		for i, r := range ahead.read(name, p) {
			if err := compare(r, copies[i]); err != nil {
				w.Errorf("partition %d: %v", p, err)
			}
		}
	}
}

// What a lost origin can give no more, a peer gives; and when the origin is back,
// everything goes on from there.
func TestRelay(t *testing.T) {
	threeWithRelay(t, func(w *world, source, behind, ahead *cluster, l *runningLink) {
		l.start()
		awaitAsAhead(w, behind, ahead)
		if s := l.Status(); s.Running || !strings.Contains(s.Error, "relayed") || len(s.Stopped) > 0 {
			t.Errorf("status while the origin is away: %+v", s)
		}
		for _, p := range l.Details().Partitions {
			if p.Lag.Records != nil {
				t.Errorf("partition %d: %d records behind an origin that nobody can see", p.Partition, *p.Lag.Records)
			}
		}
		source.up()
		source.write(10)
		l.awaitRunning()
		awaitMirrored(source, behind)
		awaitMirrored(source, ahead)
		if s := l.Status(); len(s.Stopped) > 0 {
			t.Errorf("stopped: %q", s.Stopped)
		}
	})
}

// The peer's link goes on while the origin cannot be reached from here.
func TestRelayGoesOn(t *testing.T) {
	simulate(t, 1, []events.Region{us, eu, ap}, func(w *world) {
		source, behind, ahead := w.clusters[us], w.clusters[eu], w.clusters[ap]
		reach := newGate(w.dial) // of eu's link to the origin alone
		w.link(us, ap)
		l := w.linkOf(us, eu, replicator.Config{
			Topics: patterns(t, topic), Relays: []replicator.Relay{{Region: ap, Opts: ahead.opts()}},
		})
		l.stop()
		l.Link = replicator.NewLink(append(source.opts(), kgo.Dialer(reach.Dial)), behind.opts(), l.cfg,
			replicator.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
		l.start()
		source.write(10)
		awaitMirrored(source, behind)
		reach.Cut()
		for range 5 {
			source.write(10)
			awaitMirrored(source, ahead)
			awaitAsAhead(w, behind, ahead)
		}
		reach.Open()
		source.write(10)
		awaitMirrored(source, behind)
		l.awaitRunning()
	})
}

// A peer's mirror of another log of that name is not relayed, however long the
// origin stays away.
func TestRelayOfAnotherLog(t *testing.T) {
	simulate(t, 1, []events.Region{us, eu, ap}, func(w *world) {
		source, behind, ahead := w.clusters[us], w.clusters[eu], w.clusters[ap]
		l := w.linkOf(us, eu, replicator.Config{
			Topics: patterns(t, topic), Relays: []replicator.Relay{{Region: ap, Opts: ahead.opts()}},
		})
		source.write(10)
		awaitMirrored(source, behind)
		l.stop()
		source.recreate(topic)
		source.write(30)
		w.link(us, ap)
		awaitMirrored(source, ahead)
		source.down()
		l.start()
		w.await("the partition says why it stops", func() error {
			for _, p := range l.Details().Partitions {
				if p.State == replicator.SourceRecreated {
					return nil
				}
			}
			return errors.New("none is stopped")
		})
		time.Sleep(5 * time.Minute)
		if end := behind.end(mirror(us, topic), 0); end != 10 {
			t.Errorf("the mirror ends at %d, want 10", end)
		}
	})
}
