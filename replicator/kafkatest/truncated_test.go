//go:build kafka

package kafkatest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/batch"
)

// A source that loses its power before its records reach the disk has fewer of
// them than the mirror. Partition 0 just ends earlier; partition 1 has grown again
// with other records, past where the mirror ends; partition 2 has lost nothing.
func TestTruncated(t *testing.T) {
	for name, away := range map[string]bool{"while the link runs": false, "while the link is away": true} {
		t.Run(name, func(t *testing.T) {
			w := plainWorld(t)
			const kept, lost = 20, 10
			w.source.writeAll(w.topic, kept)
			w.source.writeAll(w.topic, lost)
			l := w.start()
			l.awaitMirrored()
			mirrored := w.dest.read(w.mirror())
			if away {
				l.stop()
			}

			kafka(t, nil, "kill", w.source.region.String())
			w.source.truncate(w.topic, 0, kept)
			w.source.truncate(w.topic, 1, kept)
			bringUp(t, w.source.region.String())
			if ends := w.source.ends(w.topic); ends[0] != kept || ends[1] != kept || ends[2] != kept+lost {
				t.Fatalf("the source ends at %v: it was not truncated", ends)
			}
			w.source.client = w.source.dial(kgo.DisableIdempotentWrite())
			w.source.write(w.topic, 1, 2*lost)
			if away {
				l = w.start()
			}
			w.source.write(w.topic, 2, lost)
			for _, num := range []int32{0, 1} {
				if num == 1 && strings.HasPrefix(kafkaVersion(), "3.") {
					// It came back under the same leader epoch: all there is to see is
					// that the last record is another.
					l.awaitState(num, replicator.Diverged)
					continue
				}
				l.awaitState(num, replicator.Truncated)
				if s := l.part(num).Stop; s.From != kept || s.To != kept+lost-1 {
					t.Errorf("partition %d: offsets %d to %d, want %d to %d: %v", num, s.From, s.To, kept, kept+lost-1, s)
				}
			}
			l.awaitMirrored(2)
			log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
			log[0], log[1] = mirrored[0], mirrored[1] // nothing was added to a mirror of what was lost
			same(t, log, mirror, true)
		})
	}
}

// A destination that loses its power loses acknowledged records of the mirror too.
// They are mirrored again, at the same offsets, also where those are not the
// source's.
func TestMirrorTruncated(t *testing.T) {
	for name, away := range map[string]bool{"while the link runs": false, "while the link is away": true} {
		t.Run(name, func(t *testing.T) {
			w := plainWorld(t)
			txn := w.source.dial(txnOf(w.topic))
			w.transactions(txn, 3)
			l := w.start()
			l.awaitMirrored()
			kept := w.dest.ends(w.mirror())
			for range 3 { // so that there are several batches
				w.transactions(txn, 3)
				l.awaitMirrored()
			}
			before := w.dest.read(w.mirror())
			if away {
				l.stop()
			}

			kafka(t, nil, "kill", w.dest.region.String())
			w.dest.truncate(w.mirror(), 0, kept[0])
			w.dest.truncate(w.mirror(), 1, kept[1]+1)
			bringUp(t, w.dest.region.String())
			if ends := w.dest.ends(w.mirror()); away && (ends[0] != kept[0] || ends[1] <= kept[1] || ends[1] >= int64(len(before[1])) || ends[2] != int64(len(before[2]))) {
				t.Fatalf("the mirror ends at %v, was cut to %v", ends, kept)
			}
			if away {
				l = w.start()
			}
			w.transactions(txn, 3)
			l.awaitMirrored()
			n := w.sameRecords()
			if same, expired := l.verify(); same != int64(n) || expired != 0 {
				t.Errorf("verified %d records and %d expired, want %d and 0", same, expired, n)
			}
		})
	}
}

// truncate cuts a partition's file where the batch ends that is before an offset.
// The broker must be down, and not in good order: it then believes the file.
func (c *cluster) truncate(topic string, num int32, offset int64) {
	c.t.Helper()
	name := filepath.Join(kafkaDir(), "data", kafkaVersion(), c.region.String(), "log", fmt.Sprintf("%s-%d", topic, num), "00000000000000000000.log")
	text, err := os.ReadFile(name)
	c.do(err)
	rest := text
	for len(rest) > 0 {
		b, after, err := batch.Read(rest)
		if err != nil || b.BaseOffset >= offset {
			break
		}
		rest = after
	}
	c.do(os.Truncate(name, int64(len(text)-len(rest))))
}
