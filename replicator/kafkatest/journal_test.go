//go:build kafka

package kafkatest

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// journal is all committed records that were ever in a log, by partition and offset, as
// their numbers: compaction does not take them from here.
type journal map[int32]map[int64]int

func (j journal) add(rs []*kgo.Record) {
	for _, r := range rs {
		if j[r.Partition] == nil {
			j[r.Partition] = map[int64]int{}
		}
		var n int
		if _, err := fmt.Sscanf(string(r.Value), "value-%d", &n); err != nil {
			panic(err) // the test's own record
		}
		j[r.Partition][r.Offset] = n
	}
}

// compare checks every record of the mirror: it is the one that was written at the
// offset of the log that the link topic says, byte for byte where the log still has it.
// And every record that the log still has is in the mirror, at its place, unless the
// mirror has been compacted too.
func (j journal) compare(w *world) {
	w.Helper()
	l := w.start()
	l.awaitMirrored()
	log, mirror := w.source.read(w.topic), w.dest.read(w.mirror())
	ends := w.dest.ends(w.mirror())
	for num := range int32(partitions) {
		runs, err := l.Runs(context.Background(), w.topic, num)
		w.dest.do(err)
		m, err := mapping.New(runs...)
		w.dest.do(err)
		copies := map[int64]record{}
		for _, r := range mirror[num] {
			copies[r.offset] = r
			at, _ := m.Source(r.offset)
			if is, was := numberOf(w.T, r), j[num][at]; is != was {
				w.Fatalf("partition %d: offset %d of the mirror has record %d; it is to be offset %d of the log, where %d was written", num, r.offset, is, at, was)
			}
		}
		last := lastOffsets(mirror[num])
		for _, r := range log[num] {
			at, _ := m.Dest(r.offset, ends[num])
			back, _ := m.Source(at)
			is, there := copies[at]
			switch {
			case back != r.offset || at >= ends[num]:
				w.Fatalf("partition %d: offset %d of the log is not in the mirror: the link topic gives offset %d, which is %d", num, r.offset, at, back)
			case there && is.rest != r.rest:
				w.Fatalf("partition %d: offset %d of the mirror is %q, the log has %q", num, at, is.rest, r.rest)
			case !there && last[keyOf(r)] <= at:
				w.Fatalf("partition %d: offset %d of the log is lost: the mirror has nothing at offset %d, nor of its key behind it", num, r.offset, at)
			}
		}
		w.Logf("partition %d: %d records of the mirror are as they were written, and hold the %d of the log; %d runs", num, len(mirror[num]), len(log[num]), len(runs))
	}
}

// lastOffsets are those of the last records of keys.
func lastOffsets(records []record) map[string]int64 {
	last := map[string]int64{}
	for _, r := range records {
		last[keyOf(r)] = r.offset
	}
	return last
}
