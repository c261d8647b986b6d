package replicator_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/evenkeel/evenkeel/replicator"
)

// A source that cannot be reached has a lag that nobody knows, however little it was
// before; the age of what is known grows.
func TestLagOfAnUnreachableSource(t *testing.T) {
	for name, away := range map[string]func(g *gate){"cut": (*gate).Cut, "silent": (*gate).Hold} {
		t.Run(name, func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(10)
				l := w.link(us, eu)
				awaitMirrored(source, dest)
				l.awaitNoLag()
				away(source.gate)
				source.write(10)
				began, age := time.Now(), 0.0
				for time.Since(began) < time.Minute {
					time.Sleep(time.Second)
					for _, s := range l.Details().Partitions {
						lag := s.Lag
						known := lag.Records != nil || lag.Bytes != nil || lag.Seconds != nil
						if since := time.Since(began); known && since > 11*time.Second {
							t.Fatalf("partition %d: lag %+v is still known after %v", s.Partition, lag, since)
						}
						if s.FetchAge == nil || *s.FetchAge < age {
							t.Fatalf("partition %d: age of the last answer %v, it was %v", s.Partition, s.FetchAge, age)
						}
						if s.Partition == partitions-1 {
							age = *s.FetchAge
						}
					}
				}
				if age < 55 || age > 62 {
					t.Errorf("the last answer is %v s old after a minute", age)
				}
				source.gate.Open()
				awaitMirrored(source, dest)
				l.awaitNoLag()
			})
		})
	}
}

// awaitLag waits until the lag of a partition is known to be so.
func (l *runningLink) awaitLag(p int32, records int64, seconds float64) {
	l.w.Helper()
	l.w.await("lag", func() error {
		s, err := l.partition(topic, p)
		switch lag := s.Lag; {
		case err != nil:
			return err
		case lag.Records == nil || lag.Bytes == nil || lag.Seconds == nil:
			return fmt.Errorf("not known: %+v", lag)
		case *lag.Records != records || *lag.Seconds != seconds || (*lag.Bytes == 0) != (records == 0):
			return fmt.Errorf("%d records, %d bytes, %v s; want %d records, %v s", *lag.Records, *lag.Bytes, *lag.Seconds, records, seconds)
		}
		return nil
	})
}

// Lag counts what could be mirrored and is not: up to the last stable offset, and no
// marker that has nothing before it.
func TestLag(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		l.awaitLag(0, 0, 0)
		if s, err := l.partition(topic, 0); err != nil || s.AckAge != nil || s.FetchAge == nil {
			t.Errorf("before the first record: %+v, %v", s, err)
		}
		source.write(10)
		awaitMirrored(source, dest)
		l.awaitLag(0, 0, 0)
		if s, err := l.partition(topic, 0); err != nil || s.AckAge == nil || *s.AckAge > 60 {
			t.Errorf("after the first records: %+v, %v", s, err)
		}

		refusals := dest.Fault(produceFails(-1, kerr.NotEnoughReplicas)...)
		source.writeTo(0, 5) // a millisecond from one to the next
		l.awaitLag(0, 5, 0.005)
		l.awaitLag(1, 0, 0)
		source.transaction(leaveOpen, records(100, 3)...)
		time.Sleep(10 * time.Second)
		l.awaitLag(0, 5, 0.005) // what is not decided does not count
		refusals.Remove()
		awaitMirrorEnd(w, dest, 15)
		l.awaitLag(0, 0, 0)
		time.Sleep(2 * time.Minute) // the transaction times out
		source.writeTo(0, 1)
		l.awaitView(topic)
		l.awaitLag(0, 0, 0)
		source.transaction(abort, records(100, 3)...)
		time.Sleep(10 * time.Second)
		l.awaitLag(0, 0, 0)
		if s, err := l.partition(topic, 0); err != nil || *s.AckAge < 10 {
			t.Errorf("nothing was written for ten seconds: %+v, %v", s, err)
		}
		l.stop()
		if s, err := l.partition(topic, 0); err != nil || s.MirrorEnd == nil || *s.MirrorEnd != 16 {
			t.Errorf("after the end: %+v, %v", s, err)
		}
	})
}

func awaitMirrorEnd(w *world, dest *cluster, end int64) {
	w.Helper()
	w.await("the mirror's end", func() error {
		if got := dest.end(mirror(us, topic), 0); got != end {
			return fmt.Errorf("%d, want %d", got, end)
		}
		return nil
	})
}

// Offsets of consumer groups go over by the mapping: to the mirror's record that is
// the source's at the group's offset, or the first after it.
func TestGroupsFollowByTheMapping(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.writeTo(0, 3)                         // 0 to 2
		source.transaction(commit, records(3, 2)...) // 3, 4, marker 5
		source.transaction(abort, records(6, 3)...)  // 6 to 8, marker 9
		source.writeTo(0, 4)                         // 10 to 13
		want := map[int64]int64{0: 0, 3: 3, 4: 4, 5: 5, 6: 5, 9: 5, 10: 5, 11: 6, 14: 9}
		admin := kadm.NewClient(source.client)
		ctx := context.Background()
		for at := range want {
			var offsets kadm.Offsets
			offsets.AddOffset(topic, 0, at, -1)
			_, err := admin.CommitOffsets(ctx, fmt.Sprint("group ", at), offsets)
			source.do(err)
		}
		groups := patterns(t, "group *")
		l := w.linkOf(us, eu, replicator.Config{Topics: patterns(t, topic), Groups: groups})
		l.awaitView(topic)
		mirrored := kadm.NewClient(dest.client)
		for at, to := range want {
			w.await(fmt.Sprintf("group at %d", at), func() error {
				offsets, err := mirrored.FetchOffsets(ctx, fmt.Sprint("group ", at))
				if err != nil {
					return err
				}
				o, ok := offsets.Lookup(mirror(us, topic), 0)
				if !ok || o.At != to {
					return fmt.Errorf("at %d (known %t), want %d; tasks %+v", o.At, ok, to, l.Details().Tasks)
				}
				return nil
			})
		}
	})
}

// An idle link knows at once that it is not behind, and still does when its
// partitions were interrupted before the source said anything: it says it once.
func TestLagOfAnIdleLink(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		for range 3 {
			l.awaitRunning()
			for p := range int32(partitions) {
				if s, err := l.partition(topic, p); err != nil || s.Lag.Records == nil || *s.Lag.Records != 0 {
					t.Errorf("partition %d: %+v, %v", p, s, err)
				}
			}
			for _, paused := range []bool{true, false} {
				source.do(l.SetPause(context.Background(), "link", paused))
			}
		}
	})
}
