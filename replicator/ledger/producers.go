package ledger

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ProducerID is what writes one partition of a mirror, the same for ever.
type ProducerID struct {
	ID    int64
	Epoch int16
}

// Producer is the partition's producer, if it has been decided as far as the ledger
// has read.
func (l *Ledger) Producer(p Partition) (ProducerID, bool) {
	is := l.producer(p)
	return is.id, is.key != ""
}

func (l *Ledger) producer(p Partition) producer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.producers[p]
}

// Propose proposes producers for partitions that have none, and returns who is the
// producer of each. The first proposal in the topic wins, until a Reset asks for a
// new producer.
func (l *Ledger) Propose(ctx context.Context, proposals map[Partition]ProducerID) (map[Partition]ProducerID, error) {
	for p, id := range proposals {
		if id.ID < 0 || id.Epoch < 0 {
			return nil, fmt.Errorf("propose producer %d, epoch %d for %s: no broker hands out such", id.ID, id.Epoch, p)
		}
	}
	for {
		winners := make(map[Partition]ProducerID, len(proposals))
		var records []*kgo.Record
		for p, id := range proposals {
			is := l.producer(p)
			if is.key != "" {
				winners[p] = is.id
				continue
			}
			records = append(records, l.record(key{
				Kind: kindProducer, Topic: p.Topic, Partition: &p.Partition,
				Generation: is.generation, Writer: l.writerOfThis(),
			}, producerValue(id)))
		}
		if len(records) == 0 {
			return winners, nil
		}
		// Again, for those that were reset meanwhile: the ledger knows it then.
		if err := l.write(ctx, records...); err != nil {
			return nil, fmt.Errorf("propose producers: %w", err)
		}
		l.sweep(ctx)
	}
}
