//go:build kafka

package kafkatest

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Transactions that commit and that abort, between plain records: the mirror is
// what a consumer sees that reads committed records, and offsets translate exactly.
func TestTransactions(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	txn := w.source.dial(txnOf(w.topic))
	w.transactions(txn, 12)
	l := w.start()
	l.awaitMirrored()
	w.transactions(txn, 12) // while the link runs
	l.awaitMirrored()
	w.sameRecords()
	w.translates(l)

	l.stop()
	w.transactions(txn, 12)
	l = w.start()
	l.awaitMirrored()
	n := w.sameRecords()
	w.translates(l)
	if same, expired := l.verify(); same != int64(n) || expired != 0 {
		t.Errorf("verified %d records and %d expired, want %d and 0", same, expired, n)
	}
}

// transactions writes plain records with transactions between them, every third
// of which aborts.
func (w *world) transactions(txn *kgo.Client, n int) {
	w.Helper()
	for i := range n {
		w.source.do(txn.BeginTransaction())
		for num := range int32(partitions) {
			if num == 2 && i%2 == 0 {
				continue // its transactions have other partitions than the others'
			}
			w.source.do(txn.ProduceSync(w.source.ctx(), w.source.records(w.topic, num, 3)...).FirstErr())
			w.source.write(w.topic, num, 1)
			w.source.do(txn.ProduceSync(w.source.ctx(), w.source.records(w.topic, num, 2)...).FirstErr())
		}
		w.source.do(txn.EndTransaction(w.source.ctx(), kgo.TransactionEndTry(i%3 != 1)))
	}
}

// translates checks, by what a consumer sees on both sides, the map of a mirror
// against the offset that the link tells: the last record of each partition.
func (w *world) translates(l *link) {
	w.Helper()
	mirror := w.dest.read(w.mirror())
	ends := w.source.stables(w.topic)
	for num := range int32(partitions) {
		p := l.part(num)
		if p == nil || *p.MirrorEnd != int64(len(mirror[num])) || *p.SourceNext != ends[num] || p.Identity {
			w.Errorf("partition %d: %+v; the mirror has %d records, the log ends at offset %d", num, p, len(mirror[num]), ends[num])
		}
	}
}

// Records behind an open transaction wait for its end, and the link is not behind
// meanwhile; a read of what is stable never passes the transaction by.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	txn := w.source.dial(txnOf(w.topic))
	w.source.writeAll(w.topic, 5)
	l := w.start()
	l.awaitMirrored()
	w.source.do(txn.BeginTransaction())
	w.source.do(txn.ProduceSync(w.source.ctx(), w.source.records(w.topic, 0, 4)...).FirstErr())
	w.source.writeAll(w.topic, 5)
	l.awaitMirrored() // what is stable
	if end := w.dest.ends(w.mirror()); end[0] != 5 || end[1] != 10 {
		t.Errorf("the mirror ends at %v while a transaction is open in partition 0 at offset 5, want 5 and 10", end)
	}
	w.source.do(txn.EndTransaction(w.source.ctx(), kgo.TryCommit))
	l.awaitMirrored()
	w.sameRecords()
	w.await("lag is nothing", patience, func() error {
		if p := l.part(0); p.Lag.Records == nil || *p.Lag.Records != 0 {
			return fmt.Errorf("lag %v, next %d, source ends at %v", text(p.Lag.Records), *p.SourceNext, w.source.ends(w.topic))
		}
		return nil
	})
}

// txnOf makes a client's producer transactional, with an id of the topic's own.
func txnOf(topic string) kgo.Opt { return kgo.TransactionalID(topic) }
