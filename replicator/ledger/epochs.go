package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Epoch says that the first record mirrored under a leader epoch of the log had
// offset Start there.
type Epoch struct {
	Epoch int32
	Start int64 // offset in the log
}

// Epochs are the last epochs of the partition's log that were mirrored, 64 at most,
// increasing in both.
func (l *Ledger) Epochs(p Partition) []Epoch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.partitions[p] == nil {
		return nil
	}
	return l.state.partitions[p].history()
}

// ErrReplaced is what AppendEpoch returns if the log had records of a later epoch at the
// same place, or before it: it has lost them since.
var ErrReplaced = errors.New("the log has lost records there, of a later leader epoch")

// AppendEpoch notes an epoch, which has to be later than all that begin before it. One
// that is noted already, at this offset or an earlier one, stays as it is: what is written
// ahead of records is written again if they were not mirrored then. Earlier ones that were
// to begin at this offset or behind it are forgotten: the log lost those records before
// they were mirrored. If another instance came first with a later offset it returns
// ErrSuperseded.
func (l *Ledger) AppendEpoch(ctx context.Context, p Partition, e Epoch) error {
	if e.Epoch < 0 || e.Start < 0 {
		return fmt.Errorf("append epoch %d at %d to %s: neither may be negative", e.Epoch, e.Start, p)
	}
	was := l.Epochs(p)
	for _, is := range was {
		if is.Epoch > e.Epoch && is.Start <= e.Start {
			return fmt.Errorf("append epoch %d at %d to %s: epoch %d began at %d: %w", e.Epoch, e.Start, p, is.Epoch, is.Start, ErrReplaced)
		}
	}
	if covers(was, e) {
		return nil
	}
	if len(was) > 0 && e.Epoch <= was[len(was)-1].Epoch {
		last := was[len(was)-1]
		return fmt.Errorf("append epoch %d at %d to %s: it does not come after epoch %d at %d", e.Epoch, e.Start, p, last.Epoch, last.Start)
	}
	l.mu.Lock()
	generation := l.state.partition(p).generation
	l.mu.Unlock()
	number := int64(e.Epoch)
	r := l.record(key{
		Kind: kindEpoch, Topic: p.Topic, Partition: &p.Partition,
		Generation: generation, Number: &number, Writer: l.writerOfThis(),
	}, epochValue{Start: e.Start})
	if err := l.write(ctx, r); err != nil {
		return fmt.Errorf("append epoch %d to %s: %w", e.Epoch, p, err)
	}
	l.sweep(ctx)
	if !covers(l.Epochs(p), e) {
		return fmt.Errorf("append epoch %d at %d to %s: %w", e.Epoch, e.Start, p, ErrSuperseded)
	}
	return nil
}

// covers tells whether an epoch is noted, at its offset or before.
func covers(history []Epoch, e Epoch) bool {
	return slices.ContainsFunc(history, func(is Epoch) bool { return is.Epoch == e.Epoch && is.Start <= e.Start })
}
