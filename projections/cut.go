package projections

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
)

// Cut is a shard frozen at one vector: applies go on, the cut does not change.
// It pins disk space until it is closed.
type Cut struct {
	partition int32
	lineage   Lineage
	epoch     events.Epoch
	snapshot  *pebble.Snapshot
	logs      map[events.Log]*logEntry
	states    []events.LogState
}

// Freeze takes a cut. It costs next to nothing.
func (s *Shard) Freeze() (*Cut, error) {
	snapshot := s.db.NewSnapshot()
	logs, err := readLogs(snapshot, s.cfg.Partition)
	if err != nil {
		return nil, errors.Join(err, snapshot.Close())
	}
	return &Cut{
		partition: s.cfg.Partition, lineage: s.lineage, epoch: s.epoch, snapshot: snapshot, logs: logs, states: sortedStates(logs),
	}, nil
}

// Close lets go of the cut.
func (c *Cut) Close() error { return c.snapshot.Close() }

// Partition is the shard's number.
func (c *Cut) Partition() int32 { return c.partition }

// Lineage is the line of descent of the shard's state.
func (c *Cut) Lineage() Lineage { return c.lineage }

// Epoch is the term under which the shard is open.
func (c *Cut) Epoch() events.Epoch { return c.epoch }

// States is the state of every log at the cut, in order.
func (c *Cut) States() []events.LogState { return c.states }

// Vector is where the cut is.
func (c *Cut) Vector() events.Vector { return events.VectorOf(c.states) }

// WriteTables writes the cut as sorted tables in Pebble's format, in order and
// disjoint, each of about tableBytes (before compression, rounded up to a whole
// entry). For each table it calls create once, with the table's first key, which is valid
// during the call, and closes the writer that it got.
func (c *Cut) WriteTables(ctx context.Context, tableBytes int64, create func(first []byte) (io.WriteCloser, error)) (err error) {
	it, err := c.snapshot.NewIter(nil)
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	out := tables{bytes: tableBytes, create: create}
	for it.First(); atState(it); it.Next() {
		if it.Key()[0] == prefixFact {
			// A table on both sides of the facts would lie across those that a new
			// database has of its own, and would be rewritten once it is taken in.
			if err := out.close(); err != nil {
				return err
			}
			continue
		}
		if err := out.set(ctx, it.Key(), it.Value()); err != nil {
			return err
		}
	}
	if err = it.Error(); err != nil {
		err = fmt.Errorf("shard %d: %w", c.partition, err)
	}
	return errors.Join(err, out.close())
}
