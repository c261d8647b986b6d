//go:build kafka

package kafkatest

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
)

// A log that is compacted, before and while it is mirrored: the mirror is what a
// consumer of the source sees at that time.
func TestCompactedLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.source.cleanOften()
	w.source.create(w.topic, partitions, "cleanup.policy", "compact", "segment.ms", "200", "min.cleanable.dirty.ratio", "0.001",
		"delete.retention.ms", "100")
	const rounds = 8
	w.source.rewrite(w.topic, rounds)
	w.awaitCleaned()

	// The mirror's own cleaner finds nothing: it never rolls a segment.
	w.source.write(w.topic, 2, 3)
	large := func(c *replicator.Config) { c.Overrides = map[string]string{"segment.ms": "9000000"} }
	l := w.start(large)
	l.awaitMirrored()
	copies, expired := l.verify()
	if n := w.within(); copies+expired != n || copies == 0 {
		t.Errorf("verified %d records and %d expired, the mirror has %d", copies, expired, n)
	}
	l.stop()

	// More of it is compacted while the link is away, the mirror's last record too.
	seen := w.dest.read(w.mirror())
	w.source.rewrite(w.topic, rounds)
	w.awaitCleaned()
	l = w.start(large)
	l.awaitMirrored()
	mirror := w.dest.read(w.mirror())
	for num := range int32(partitions) {
		p := l.part(num)
		if p.Identity || *p.SourceNext != w.source.ends(w.topic)[num] || len(mirror[num]) <= len(seen[num]) {
			t.Errorf("partition %d: %+v; the mirror has %d records, before it had %d", num, p, len(mirror[num]), len(seen[num]))
		}
	}
	w.within()
	if _, expired := l.verify(); expired == 0 {
		t.Error("the mirror has records that the source has compacted away, and verify has not found that out")
	}
}

// within checks that the log, which may have been compacted since it was mirrored,
// has nothing that the mirror lacks, in the same order. It counts the mirror's records.
func (w *world) within() (n int64) {
	w.Helper()
	mirror := w.dest.read(w.mirror())
	for num, records := range w.source.read(w.topic) {
		rest := mirror[num]
		for _, r := range records {
			for len(rest) > 0 && rest[0].rest != r.rest {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				w.Fatalf("partition %d: the mirror lacks %q, or has it out of order", num, r.rest)
			}
		}
		n += int64(len(mirror[num]))
	}
	return n
}

// cleanOften lets the cleaner look for work more often than each 15 s.
func (c *cluster) cleanOften() {
	c.t.Helper()
	often := "200"
	done, err := c.admin.AlterBrokerConfigs(c.ctx(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "log.cleaner.backoff.ms", Value: &often}})
	c.do(err)
	c.do(done[0].Err)
}

// rewrite writes few keys many times, in batches that compaction tears holes into
// and others that it empties, and deletes one of them.
func (c *cluster) rewrite(topic string, rounds int) {
	c.t.Helper()
	for range rounds {
		for num := range int32(partitions) {
			rs := c.records(topic, num, 20)
			for i, r := range rs {
				if i%9 == 4 {
					r.Key = fmt.Appendf(nil, "once-%s", r.Value) // stays, amid others that go
				}
			}
			rs[3].Key, rs[3].Value = []byte("deleted"), nil
			c.do(c.client.ProduceSync(c.ctx(), rs...).FirstErr())
		}
	}
}

// awaitCleaned waits until compaction has done what it can. What is in the last
// segment is never compacted, so something is written now and then to roll it.
func (w *world) awaitCleaned() {
	w.Helper()
	w.await("compaction", patience, func() error {
		var last []*kgo.Record
		for num := range int32(partitions) {
			r := w.source.records(w.topic, num, 1)[0]
			r.Key = []byte("last")
			last = append(last, r)
		}
		w.source.do(w.source.client.ProduceSync(w.source.ctx(), last...).FirstErr())
		for num, records := range w.source.read(w.topic) {
			keys := map[string]int{}
			for _, r := range records {
				keys[keyOf(r)]++
			}
			for key, n := range keys {
				if n > 3 {
					return fmt.Errorf("partition %d has key %q %d times", num, key, n)
				}
			}
		}
		return nil
	})
}

// keyOf finds the key in what kcat printed.
func keyOf(r record) string {
	var stamp, size int
	var key string
	_, _ = fmt.Sscanf(r.rest, "%d %d:%s", &stamp, &size, &key) // keys here have no spaces
	return key
}
