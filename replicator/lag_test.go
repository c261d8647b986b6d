package replicator_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

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
		w.await("the first answer", func() error {
			if s, err := l.partition(topic, 0); err != nil || s.AckAge != nil || s.FetchAge == nil {
				return fmt.Errorf("before the first record: %+v, %w", s, err)
			}
			return nil
		})
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

// A link that is steadily behind says so at any moment: what was measured some seconds
// ago is not compared with what has been mirrored since.
func TestLagInSecondsOfASlowLink(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		source.produceAt(0, time.Now().UnixMilli())
		awaitPartition(source, dest, topic, 0)
		dest.gate.Slow(3 * time.Second)
		known := 0
		for second := range 90 {
			source.produceAt(0, time.Now().UnixMilli())
			time.Sleep(time.Second)
			s, err := l.partition(topic, 0)
			if err != nil {
				t.Fatal(err)
			}
			lag := s.Lag
			if second < 20 || lag.Records == nil || *lag.Records == 0 || lag.Seconds == nil {
				continue
			}
			if known++; *lag.Seconds == 0 {
				t.Errorf("after %d s: %d records and 0 s behind", second, *lag.Records)
			}
		}
		if known < 30 {
			t.Errorf("the lag was known %d times", known)
		}
	})
}

// A partition that may not be read has a source that answers, and no good fetch.
func TestAgeOfTheLastGoodFetch(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(10)
		l := w.link(us, eu)
		awaitMirrored(source, dest)
		l.awaitNoLag()
		source.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		source.write(5)
		time.Sleep(time.Minute)
		for p := range int32(partitions) {
			s, err := l.partition(topic, p)
			if err != nil || s.FetchAge == nil || s.Lag.Records == nil {
				t.Fatalf("partition %d: %+v, %v", p, s, err)
			}
			if age, denied := *s.FetchAge, p == 0; denied != (age > 55) || denied != (*s.Lag.Records == 5) {
				t.Errorf("partition %d was fetched %v s ago and is %d records behind", p, age, *s.Lag.Records)
			}
		}
	})
}

// A link that may read so many bytes a second reads no more, and is never long without
// an answer.
func TestRateOfALink(t *testing.T) {
	const rate = 100_000
	two(t, func(w *world, source, dest *cluster) {
		sizes := make([]int, 100)
		for i := range sizes {
			sizes[i] = aBatch
		}
		source.writeLarge(time.Now(), sizes...)
		began := time.Now()
		l := w.linkOf(us, eu, replicator.Config{Topics: patterns(t, topic), RateBytesPerSecond: rate})
		l.awaitRunning()
		for dest.end(mirror(us, topic), 0) < int64(len(sizes)) {
			time.Sleep(time.Second)
			if s, err := l.partition(topic, 0); err != nil || s.Lag.Records == nil {
				t.Fatalf("%+v, %v", s, err)
			}
			if time.Since(began) > time.Minute {
				t.Fatal("not mirrored within a minute")
			}
		}
		if took, least := time.Since(began), time.Duration(len(sizes)*aBatch/rate)*time.Second; took < least-2*time.Second || took > 2*least {
			t.Errorf("%d bytes took %v, at %d a second", len(sizes)*aBatch, took, rate)
		}
	})
}

// However much there is to mirror and however long the destination takes nothing: what is
// in memory stays within twice the window and a batch for each connection.
func TestWindowOfALink(t *testing.T) {
	const (
		window = 2 << 20
		large  = 100_000
	)
	two(t, func(w *world, source, dest *cluster) {
		l := w.linkOf(us, eu, replicator.Config{Topics: patterns(t, topic), WindowBytes: window})
		source.write(1)
		awaitMirrored(source, dest)
		dest.gate.Hold()
		sizes := make([]int, 200)
		for i := range sizes {
			sizes[i] = large
		}
		source.writeLarge(time.Now(), sizes...)
		most := int64(0)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			most = max(most, l.Details().Memory)
		}
		if most < window/4 || most > 2*window+2*(large+1000) {
			t.Errorf("%d bytes in memory, of a window of %d", most, window)
		}
		dest.gate.Open()
		awaitMirrored(source, dest)
	})
}
