//go:build kafka

package kafkatest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
)

// Two instances of one link are at work all the time, and one or the other is
// frozen in the middle of whatever it does, again and again, or killed. The log has
// transactions and small batches, so that the two merge and number as they find
// them; what ends up in the mirror is the log once.
func TestZombies(t *testing.T) {
	k := newKilling(plainWorld(t))
	load := k.transactionalLoad(k.seed)
	second := k.storm()
	load.stop()
	k.quiet()
	k.calm(second)
	n := k.sameRecords()
	t.Logf("%d records are the same", n)
	k.link.kill()
	second.kill()
	k.verifyAnew(n)
}

// stormsPerRound is how often one of two instances is frozen or killed for each
// round that TestKillRounds has.
const stormsPerRound = 4

// storm lets another instance work beside the link, and freezes or kills either of
// them, for moments short and long.
func (k *killing) storm() (second *process) {
	k.Helper()
	both := []*process{k.link, k.spawn()}
	for range stormsPerRound * *killRounds {
		i := k.random.IntN(2)
		if k.random.IntN(8) == 0 {
			both[i].kill()
			both[i] = k.spawn()
			continue
		}
		most := []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, time.Second}[k.random.IntN(3)]
		both[i].freeze()
		k.pause(most)
		both[i].thaw()
		k.pause(most)
	}
	k.link = both[0]
	return both[1]
}

// calm waits until the link, and whatever instances there are besides, have
// mirrored everything.
func (k *killing) calm(others ...*process) {
	k.Helper()
	for _, p := range append(others, k.link) {
		p.awaitMirroring()
		if d, _ := p.details(); len(d.Stopped) > 0 {
			k.Errorf("a link has stopped: %v", d.Stopped)
		}
	}
	k.awaitMirroredTo(k.source.stables(k.topic))
}

// The same while compaction takes records from the log all the time, so that the
// instances see different holes. Then a run of the mapping that one has written
// ahead may not be what the other has appended. It is guaranteed that no record is
// in the mirror twice or out of order, and that a partition whose mapping is not
// true stops; a link that is not stopped has all of the log, where its mapping says.
func TestZombiesOnCompaction(t *testing.T) {
	k := newKilling(compactedWorld(t))
	load := k.keyedLoad()
	second := k.storm()
	load.stop()
	k.link.kill()
	second.kill()
	k.ascending()
	l := k.start()
	stopped := 0
	ends := k.source.stables(k.topic)
	k.await("every partition is mirrored or stopped", patience, func() error {
		stopped = 0
		for num, end := range ends {
			switch p := l.part(int32(num)); {
			case p == nil:
				return fmt.Errorf("partition %d is not known to the link", num)
			case p.State == replicator.Truncated || p.State == replicator.Diverged:
				stopped++
			case p.State != replicator.Mirroring || p.SourceNext == nil || *p.SourceNext < end:
				return fmt.Errorf("partition %d is %s at offset %v of %d: %s", num, p.State, text(p.SourceNext), end, p.Reason)
			}
		}
		return nil
	})
	k.Logf("%d of %d partitions have stopped", stopped, partitions)
	if stopped == 0 {
		l.verify()
	}
}

// One instance is killed again and again while compaction changes what the next
// one sees of the same stretch.
func TestKillsOnCompaction(t *testing.T) {
	k := newKilling(compactedWorld(t))
	load := k.keyedLoad()
	for range 2 * *killRounds {
		k.pause(1500 * time.Millisecond)
		k.link.kill()
		k.link = k.spawn()
	}
	load.stop()
	k.calm()
	k.link.kill()
	k.inOrder()
}

// compactedWorld is a world whose topic is compacted all the time.
func compactedWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.source.cleanOften()
	w.source.create(w.topic, partitions, "cleanup.policy", "compact", "segment.ms", "300", "min.cleanable.dirty.ratio", "0.001")
	return w
}

// inOrder checks the mirror of a log that is compacted. It may have records that the
// log has lost since, but each of them once, in their order, at the offset that the
// link topic says, and every key's last value is the log's.
func (k *killing) inOrder() {
	k.Helper()
	l := k.start()
	l.awaitMirrored()
	same, gone := l.verify()
	k.Logf("%d records are the same, %d were compacted since", same, gone)
	if same == 0 || gone == 0 {
		k.Error("nothing was compacted, or everything")
	}
	k.ascending()
	log, mirror := k.source.read(k.topic), k.dest.read(k.mirror())
	for num := range int32(partitions) {
		want, got := lasts(log[num]), lasts(mirror[num])
		for key, rest := range want {
			if got[key] != rest {
				k.Errorf("partition %d: the last record of %s is %q, the log has %q", num, key, got[key], rest)
			}
		}
		if len(got) != len(want) || len(want) == 0 {
			k.Errorf("partition %d: %d keys, the log has %d", num, len(got), len(want))
		}
	}
}

// ascending checks that no record of the mirror comes twice or before one that is
// older, whatever else may be wrong.
func (k *killing) ascending() {
	k.Helper()
	for num, records := range k.dest.read(k.mirror()) {
		before := 0
		for _, r := range records {
			n := numberOf(k.T, r)
			if n <= before {
				k.Errorf("partition %d: offset %d has record %d, after %d", num, r.offset, n, before)
				break
			}
			before = n
		}
	}
}

// keyedLoad writes few keys again and again, one batch after the other.
func (w *world) keyedLoad() *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{w: w, cancel: cancel}
	client := w.source.dial()
	l.running.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			var rs []*kgo.Record
			for num := range int32(partitions) {
				rs = append(rs, w.source.records(w.topic, num, 1+n%17)...)
			}
			if client.ProduceSync(ctx, rs...).FirstErr() != nil {
				l.failed.Add(1)
			}
			time.Sleep(10 * time.Millisecond) // a producer's pace
		}
	})
	w.Cleanup(l.stop)
	return l
}

// lasts are the last records of keys.
func lasts(records []record) map[string]string {
	last := map[string]string{}
	for _, r := range records {
		last[keyOf(r)] = r.rest
	}
	return last
}

// numberOf finds the number of a record in what kcat printed.
func numberOf(t *testing.T, r record) (n int) {
	t.Helper()
	var stamp, sizeKey, sizeValue int
	var key string
	if _, err := fmt.Sscanf(r.rest, "%d %d:%s %d:value-%d", &stamp, &sizeKey, &key, &sizeValue, &n); err != nil {
		t.Fatalf("kcat printed %q: %v", r.rest, err)
	}
	return n
}
