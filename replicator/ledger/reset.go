package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// resetRunsMax is how many runs a reset can begin with: they have to fit into one
// message.
const resetRunsMax = chunkRuns * blockChunks

// Reset lets a partition have exactly these runs, in one step: a crash leaves the
// old ones or the new ones. If another instance resets the partition at the same time
// and later, or has appended runs to a map that is only to be cut or to stay as it is, it
// returns ErrSuperseded.
//
// Where the runs are the first ones of those that the partition has, and the producer
// stays, the others are taken back and the epochs stay. Otherwise a new generation
// begins, without epochs; with newProducer it has no producer either, until one is
// proposed.
func (l *Ledger) Reset(ctx context.Context, p Partition, runs *mapping.Map, newProducer bool) error {
	unlock, err := l.lock(ctx, p)
	if err != nil {
		return fmt.Errorf("reset %s: %w", p, err)
	}
	defer unlock()
	is := l.Map(p)
	if keep := runs.Len(); !newProducer && keep > 0 && keep <= is.Len() && slices.Equal(runs.Runs(), is.Runs()[:keep]) {
		if keep < is.Len() {
			err = l.appendChunk(ctx, p, is.Len(), runsValue{Keep: &keep})
		} else if err = l.Refresh(ctx); err == nil && !slices.Equal(l.Map(p).Runs(), runs.Runs()) {
			err = ErrSuperseded // nothing was to be written, which would have told
		}
	} else {
		err = l.reset(ctx, p, runs.Runs(), newProducer)
	}
	if err != nil {
		return fmt.Errorf("reset %s: %w", p, err)
	}
	return nil
}

// Forget makes the partition's runs and epochs void, as an operator's choice: who
// mirrors the partition then starts from an empty map. Its producer stays.
func (l *Ledger) Forget(ctx context.Context, p Partition) error {
	if err := l.reset(ctx, p, nil, false); err != nil {
		return fmt.Errorf("forget %s: %w", p, err)
	}
	return nil
}

func (l *Ledger) reset(ctx context.Context, p Partition, runs mapping.Runs, newProducer bool) error {
	if len(runs) > resetRunsMax {
		return fmt.Errorf("%d runs are more than the %d that a reset can begin with: append the others", len(runs), resetRunsMax)
	}
	writer := l.writerOfThis()
	var records []*kgo.Record
	if newProducer {
		// First, so that the runs never change while this is undone: a partition without
		// a producer is given one, whatever its runs.
		records = append(records, l.record(key{Kind: kindNewProducer, Topic: p.Topic, Partition: &p.Partition}, newProducerValue{Writer: writer}))
	}
	records = append(records, l.record(key{Kind: kindReset, Topic: p.Topic, Partition: &p.Partition}, resetValue{Runs: runs, Writer: writer}))
	if err := l.write(ctx, records...); err != nil {
		return err
	}
	l.sweep(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.state.partition(p).resetBy; last != writer {
		return fmt.Errorf("%s has reset it too: %w", last, ErrSuperseded)
	}
	return nil
}
