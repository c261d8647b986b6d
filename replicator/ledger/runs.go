package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Map is the partition's mapping as far as the ledger has read; empty: the
// identity. It does not change any more.
func (l *Ledger) Map(p Partition) *mapping.Map {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.mapOf(p)
}

// AppendRuns adds runs to the partition's mapping, provided that it has exactly
// known runs so far: Len of the map that the writer goes by. If it has others, or
// another instance's come first, it returns ErrSuperseded, and the ledger then knows
// what the other one wrote.
//
// Many runs are written in several steps. If one fails, the runs before it are in.
func (l *Ledger) AppendRuns(ctx context.Context, p Partition, known int, runs []mapping.Run) error {
	unlock, err := l.lock(ctx, p)
	if err != nil {
		return fmt.Errorf("append runs of %s: %w", p, err)
	}
	defer unlock()
	m, err := l.expect(p, known, runs)
	if err != nil {
		return fmt.Errorf("append runs of %s: %w", p, err)
	}
	for part := range slices.Chunk(m.Runs()[known:], chunkRuns) {
		if err := l.appendChunk(ctx, p, known, runsValue{Runs: part}); err != nil {
			return fmt.Errorf("append runs of %s: %w", p, err)
		}
		known += len(part)
	}
	l.tidy(ctx, p)
	return nil
}

// lock waits for other appends of this Ledger to the partition: they would
// supersede each other.
func (l *Ledger) lock(ctx context.Context, p Partition) (unlock func(), err error) {
	l.mu.Lock()
	held := l.appending[p]
	if held == nil {
		held = make(chan struct{}, 1)
		l.appending[p] = held
	}
	l.mu.Unlock()
	select {
	case held <- struct{}{}:
		return func() { <-held }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// expect is the map with the runs, if it is the one that the writer knows and they
// fit.
func (l *Ledger) expect(p Partition, known int, runs []mapping.Run) (*mapping.Map, error) {
	m := l.Map(p)
	if m.Len() != known {
		return nil, fmt.Errorf("there are %d runs, not %d: %w", m.Len(), known, ErrSuperseded)
	}
	for _, r := range runs {
		if err := m.Append(r); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// appendChunk writes one chunk and sees whether it has won.
func (l *Ledger) appendChunk(ctx context.Context, p Partition, known int, value runsValue) error {
	l.mu.Lock()
	part := l.state.partition(p)
	at, length := part.version(), part.runs.Len()
	l.mu.Unlock()
	if length != known {
		return fmt.Errorf("there are %d runs, not %d: %w", length, known, ErrSuperseded)
	}
	return l.appendAt(ctx, p, at, value)
}

// appendAt writes the chunk that follows a version, and whatever else comes behind
// it, and sees whether it has won.
func (l *Ledger) appendAt(ctx context.Context, p Partition, at Version, value runsValue, behind ...*kgo.Record) error {
	writer := l.writerOfThis()
	l.mu.Lock()
	l.state.awaited[writer] = false
	l.mu.Unlock()
	defer l.hasWon(writer)
	r := l.record(key{
		Kind: kindRuns, Topic: p.Topic, Partition: &p.Partition,
		Generation: at.generation, Number: &at.next, Writer: writer,
	}, value)
	if err := l.write(ctx, append([]*kgo.Record{r}, behind...)...); err != nil {
		return err
	}
	if !l.hasWon(writer) {
		l.sweep(ctx)
		return fmt.Errorf("chunk %d is another's: %w", at.next, ErrSuperseded)
	}
	return nil
}

// hasWon tells whether the chunk of a write counts, and ends the waiting for it.
func (l *Ledger) hasWon(writer string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer delete(l.state.awaited, writer)
	return l.state.awaited[writer]
}

// tidy writes full blocks as one record each, and removes what is void. It is no
// part of what it is called after: what it leaves, the next one finds.
func (l *Ledger) tidy(ctx context.Context, p Partition) {
	var records []*kgo.Record
	l.mu.Lock()
	part := l.state.partition(p)
	for number, chunks := range part.fullBlocks() {
		records = append(records, l.record(key{
			Kind: kindBlock, Topic: p.Topic, Partition: &p.Partition,
			Generation: part.generation, Number: &number,
		}, blockValue{Chunks: chunks}))
	}
	l.mu.Unlock()
	if len(records) > 0 && l.write(ctx, records...) != nil {
		return
	}
	l.sweep(ctx)
}
