package replicator_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
)

// holes are things that leave offsets without records in partition 0 of the log.
var holes = []struct {
	name string
	make func(source *cluster, n int) // from record n on
}{
	{"committed transaction", func(c *cluster, n int) { c.transaction(commit, records(n, 2)...) }},
	{"committed transaction, and more", func(c *cluster, n int) { c.transaction(commit, records(n, 2)...); c.writeTo(0, 5) }},
	{"aborted transaction", func(c *cluster, n int) { c.transaction(abort, records(n, 2)...) }},
	{"aborted transaction, and more", func(c *cluster, n int) { c.transaction(abort, records(n, 2)...); c.writeTo(0, 5) }},
	{"transactions in a row", func(c *cluster, n int) {
		for i, end := range []int{commit, abort, abort, commit, commit} {
			c.transaction(end, records(n+10*i, i+1)...)
		}
	}},
	{"transaction around others' records", func(c *cluster, n int) {
		c.around(commit, records(n, 2), func() { c.writeTo(0, 3) })
	}},
	{"aborted transaction around others' records", func(c *cluster, n int) {
		c.around(abort, records(n, 2), func() { c.writeTo(0, 3) })
	}},
	{"transaction around another", func(c *cluster, n int) {
		c.around(abort, records(n, 2), func() { c.transaction(commit, records(n+2, 3)...) })
	}},
	{"aborted, then committed by the same producer", func(c *cluster, n int) {
		c.transaction(abort, records(n, 3)...)
		c.transaction(commit, records(n+3, 3)...)
		c.transaction(abort, records(n+6, 3)...)
		c.transaction(commit, records(n+9, 3)...)
	}},
	{"timestamp in microseconds", func(c *cluster, _ int) { c.produceAt(0, time.Now().UnixMicro()); c.writeTo(0, 5) }},
	{"timestamp of the year 1", func(c *cluster, _ int) { c.produceAt(0, time.Time{}.UnixMilli()); c.writeTo(0, 5) }},
	{"record larger than usual", func(c *cluster, n int) {
		c.configure(topic, "max.message.bytes", "8000000")
		client := c.dial(kgo.ProducerBatchMaxBytes(7_000_000))
		defer client.Close()
		large := record(0, n+1)
		large.Value = noise(6_000_000)
		c.do(client.ProduceSync(context.Background(), record(0, n), large, record(0, n+2)).FirstErr())
		c.writeTo(0, 5)
	}},
}

// records are records of partition 0.
func records(from, n int) (list []*kgo.Record) {
	for i := range n {
		list = append(list, record(0, from+i))
	}
	return list
}

// What leaves holes is mirrored without them, at exactly the offsets that the link
// topic gives, whether the link runs meanwhile, is started after it, or is made anew
// between any two of them.
func TestHolesAreClosed(t *testing.T) {
	for _, h := range holes {
		for _, when := range []string{"running", "before", "between"} {
			t.Run(h.name+", "+when, func(t *testing.T) {
				two(t, func(w *world, source, dest *cluster) {
					l := w.link(us, eu)
					if when == "before" {
						l.stop()
					}
					for range 3 {
						source.write(7)
						if when != "before" {
							l.awaitView(topic)
						}
						h.make(source, int(source.end(topic, 0)))
						if when == "between" {
							l.remake()
						}
					}
					l.start()
					l.awaitView(topic)
					if s := l.Status(); len(s.Stopped) > 0 {
						t.Errorf("stopped: %q", s.Stopped)
					}
					l.awaitNoLag()
				})
			})
		}
	}
}

// awaitNoLag waits until the link knows that it has mirrored all there is.
func (l *runningLink) awaitNoLag() {
	l.w.Helper()
	l.w.await("no lag", func() error {
		for _, s := range l.Details().Partitions {
			switch lag := s.Lag; {
			case lag.Records == nil || lag.Bytes == nil || lag.Seconds == nil:
				return fmt.Errorf("topic %s, partition %d, %s: lag is not known: %+v", s.Topic, s.Partition, s.State, lag)
			case *lag.Records != 0 || *lag.Bytes != 0 || *lag.Seconds != 0:
				return fmt.Errorf("topic %s, partition %d, %s: %d records, %d bytes, %v s", s.Topic, s.Partition, s.State, *lag.Records, *lag.Bytes, *lag.Seconds)
			}
		}
		return nil
	})
}

// A log that began to expire before it was mirrored begins at the mirror's offset 0.
func TestSourceStartsAboveZero(t *testing.T) {
	for _, to := range []int64{1, 20, 29, 30} {
		t.Run(fmt.Sprint("start ", to), func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.write(30)
				source.do(source.DeleteRecords(topic, 0, to))
				l := w.link(us, eu)
				l.awaitRunning()
				l.remake()
				source.write(10)
				l.awaitView(topic)
				if end := dest.end(mirror(us, topic), 0); end != 40-to {
					t.Errorf("the mirror ends at %d, want %d", end, 40-to)
				}
				s, err := l.partition(topic, 0)
				if err != nil || s.Identity || *s.MirrorEnd != 40-to || *s.SourceNext != 40 {
					t.Errorf("%+v, %v", s, err)
				}
				if s, err := l.partition(topic, 1); err != nil || !s.Identity {
					t.Errorf("%+v, %v", s, err)
				}
			})
		})
	}
}

// A compacted log has holes, inside batches and between them, and gets more while
// it is mirrored.
func TestCompactedLog(t *testing.T) {
	const name = "compacted"
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.Lz4Compression()} {
		t.Run(fmt.Sprint(codec), func(t *testing.T) {
			two(t, func(w *world, source, dest *cluster) {
				source.create(name, "cleanup.policy", "compact", "segment.bytes", "2000")
				client := source.dial(kgo.ProducerBatchCompression(codec))
				defer client.Close()
				write := func(n int) {
					var batch []*kgo.Record
					for i := range n {
						key := fmt.Sprintf("key %d", i*i%7)
						if i%5 == 0 {
							key = fmt.Sprintf("of its own %d", source.end(name, 0)+int64(i))
						}
						batch = append(batch, &kgo.Record{Topic: name, Key: []byte(key), Value: bytes.Repeat([]byte{'v'}, i)})
					}
					source.do(client.ProduceSync(context.Background(), batch...).FirstErr())
				}
				for i := range 8 {
					write(10 + 7*i)
				}
				before := len(source.read(name, 0))
				source.Compact()
				if left := len(source.read(name, 0)); left == before {
					t.Fatalf("all of %d records are left: the test tests nothing", left)
				}
				l := w.link(us, eu, name)
				l.awaitView(name)
				for i := range 8 {
					write(10 + 7*i)
					if i%2 == 0 {
						l.remake()
					}
					source.Compact()
				}
				l.awaitView(name)
				if s, err := l.partition(name, 0); err != nil || s.Identity {
					t.Errorf("%+v, %v", s, err)
				}
			})
		})
	}
}

// What expires behind a mirror that has come to its log's end is no loss, even if
// the log's last offsets had no records.
func TestMarkersExpireBehindTheLink(t *testing.T) {
	for _, end := range []int{commit, abort} {
		for _, how := range []string{"running", "reconnected", "remade"} {
			t.Run(fmt.Sprint(end, how), func(t *testing.T) {
				two(t, func(w *world, source, dest *cluster) {
					source.write(5)
					source.transaction(end, records(5, 3)...)
					l := w.link(us, eu)
					l.awaitView(topic)
					l.awaitNoLag()
					source.do(source.DeleteRecords(topic, 0, -1))
					switch how {
					case "reconnected":
						dest.gate.Cut()
						time.Sleep(time.Second)
						dest.gate.Open()
					case "remade":
						l.remake()
					}
					time.Sleep(time.Minute)
					source.writeTo(0, 5)
					l.awaitView(topic)
					if s := l.Status(); len(s.Stopped) > 0 {
						t.Errorf("stopped: %q", s.Stopped)
					}
				})
			})
		}
	}
}

// Records below what a mirror has may be deleted from it, or expire there.
func TestMirrorsOwnRetention(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		source.write(5)
		source.transaction(commit, records(5, 3)...)
		l := w.link(us, eu)
		l.awaitView(topic)
		for _, to := range []int64{3, -1} {
			dest.do(dest.DeleteRecords(mirror(us, topic), 0, to))
			l.remake()
			source.transaction(commit, records(int(source.end(topic, 0)), 3)...)
			l.awaitView(topic)
		}
		if s, err := l.partition(topic, 0); err != nil || s.State != replicator.Mirroring {
			t.Errorf("%+v, %v", s, err)
		}
		if n := len(dest.read(mirror(us, topic), 0)); n != 3 {
			t.Errorf("%d records in the mirror", n)
		}
	})
}

// A log may begin with offsets that have no records, where it began to expire or
// where an operator wants it mirrored from.
func TestSourceStartsWithAHole(t *testing.T) {
	for to := range int64(9) {
		for _, resumed := range []bool{false, true} {
			t.Run(fmt.Sprintf("start %d, resumed %t", to, resumed), func(t *testing.T) {
				two(t, func(w *world, source, dest *cluster) {
					var l *runningLink
					if resumed {
						source.write(2)
						l = w.link(us, eu)
						awaitMirrored(source, dest)
						l.stop()
						source.recreate(topic)
					}
					source.transaction(abort, records(0, 5)...) // marker at 5
					source.transaction(commit, records(6, 1)...)
					source.writeTo(0, 3)
					source.do(source.DeleteRecords(topic, 0, to))
					if resumed {
						l.start()
						l.awaitStopped(partitions)
						l.resume(topic, replicator.All, "earliest")
					} else {
						l = w.link(us, eu)
					}
					l.awaitView(topic)
					l.remake()
					source.writeTo(0, 3)
					l.awaitView(topic)
				})
			})
		}
	}
}
