package ledger

import (
	"context"
	"fmt"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// resetRunsMax is how many runs a reset can begin with: they have to fit into one
// message.
const resetRunsMax = chunkRuns * blockChunks

// Reset begins a partition anew with exactly these runs, in one step: a crash leaves the
// old ones or the new ones. It has no epochs then, and no producer until one is
// proposed. If another instance resets the partition at the same time and later, it
// returns ErrSuperseded.
func (l *Ledger) Reset(ctx context.Context, p Partition, runs *mapping.Map) error {
	unlock, err := l.lock(ctx, p)
	if err != nil {
		return fmt.Errorf("reset %s: %w", p, err)
	}
	defer unlock()
	if n := runs.Len(); n > resetRunsMax {
		return fmt.Errorf("reset %s: %d runs are more than the %d that a reset can begin with: append the others", p, n, resetRunsMax)
	}
	writer := l.writerOfThis()
	// The producer first, so that the runs never change while it is undone: a partition
	// without a producer is given one, whatever its runs.
	producer := l.record(key{Kind: kindNewProducer, Topic: p.Topic, Partition: &p.Partition}, newProducerValue{Writer: writer})
	reset := l.record(key{Kind: kindReset, Topic: p.Topic, Partition: &p.Partition}, resetValue{Runs: runs.Runs(), Writer: writer})
	if err := l.write(ctx, producer, reset); err != nil {
		return fmt.Errorf("reset %s: %w", p, err)
	}
	l.sweep(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.state.partition(p).resetBy; last != writer {
		return fmt.Errorf("reset %s: %s has reset it too: %w", p, last, ErrSuperseded)
	}
	return nil
}
