//go:build kafka

package kafkatest

import (
	"cmp"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
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
// instances see different holes, beside those that transactions leave. None of them
// may stop, and the mirror is what a reader of the log could have seen.
func TestZombiesOnCompaction(t *testing.T) {
	k := newKilling(compactedWorld(t))
	load := k.keyedLoad()
	second := k.storm()
	load.awaitCompacted()
	load.stop()
	k.quiet()
	k.calm(second)
	k.link.kill()
	second.kill()
	k.inOrder()
	load.journal.compare(k.world)
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
	load.awaitCompacted()
	load.stop()
	k.quiet()
	k.calm()
	k.link.kill()
	k.inOrder()
	load.journal.compare(k.world)
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
	if same == 0 {
		k.Error("nothing was compared")
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

// keyedLoad is a load that writes few keys again and again, and what it has written.
type keyedLoad struct {
	*load
	journal journal
}

// keyedLoad writes one batch after the other, every third in a transaction, of which
// some abort.
func (w *world) keyedLoad() *keyedLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &keyedLoad{load: &load{w: w, cancel: cancel}, journal: journal{}}
	plain, transactional := w.source.dial(), w.source.dial(kgo.TransactionalID(w.topic))
	l.running.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			var rs []*kgo.Record
			for num := range int32(partitions) {
				rs = append(rs, w.source.records(w.topic, num, 1+n%17)...)
			}
			var err error
			committed := true
			if n%3 > 0 {
				err = plain.ProduceSync(context.Background(), rs...).FirstErr()
			} else {
				committed = n%4 > 0
				err = inTransaction(transactional, committed, rs)
			}
			switch {
			case err != nil:
				w.Errorf("the load cannot write: %v", err) // nobody kills its broker
			case committed:
				l.journal.add(rs)
			}
			time.Sleep(10 * time.Millisecond) // a producer's pace
		}
	})
	w.Cleanup(l.stop)
	return l
}

// awaitCompacted waits, while the load goes on, until most of what it had written in the beginning is
// gone from the log.
func (l *keyedLoad) awaitCompacted() {
	l.w.Helper()
	l.w.await("compaction", patience, func() error {
		for num := range int32(partitions) {
			early, last := 0, int64(0)
			for _, r := range l.w.source.head(l.w.topic, num, 1001) {
				if last = r.offset; last < 1000 {
					early++
				}
			}
			if last < 1000 || early > 500 {
				return fmt.Errorf("partition %d: of the first 1000 offsets up to %d, %d have records", num, last, early)
			}
		}
		return nil
	})
}

func inTransaction(client *kgo.Client, commit bool, rs []*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), transactionTimeout)
	defer cancel()
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	err := client.ProduceSync(ctx, rs...).FirstErr()
	return cmp.Or(err, client.EndTransaction(ctx, kgo.TransactionEndTry(commit && err == nil)))
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
