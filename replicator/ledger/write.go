package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sweepMax is how many records are removed at a time.
const sweepMax = 500

// writerOfThis names one write: no two have the same name.
func (l *Ledger) writerOfThis() string {
	return fmt.Sprintf("%s/%d", l.writer, l.writes.Add(1))
}

func (l *Ledger) record(k key, value any) *kgo.Record {
	k.Link = l.cfg.Link
	r := &kgo.Record{Topic: l.cfg.Topic, Key: encode(k)}
	if value != nil {
		r.Value = encode(value)
	}
	return r
}

// write writes records and reads on until they are in the state.
func (l *Ledger) write(ctx context.Context, records ...*kgo.Record) error {
	l.mu.Lock()
	failed := l.failed
	l.mu.Unlock()
	if failed != nil {
		return failed
	}
	if err := l.produce(ctx, records); err != nil {
		return fmt.Errorf("link topic %s: write: %w", l.cfg.Topic, err)
	}
	target := int64(0)
	for _, r := range records {
		if r.Offset < 0 {
			// The broker knows that it has it already, but not where any more.
			return l.Refresh(ctx)
		}
		target = max(target, r.Offset+1)
	}
	return l.readTo(ctx, target)
}

// produce writes records. It returns when the context ends even if a write is in
// doubt then, for which the client would wait.
func (l *Ledger) produce(ctx context.Context, records []*kgo.Record) error {
	answers := make(chan error, len(records))
	for _, r := range records {
		l.client.Produce(ctx, r, func(_ *kgo.Record, err error) { answers <- err })
	}
	var errs []error
	for range records {
		select {
		case err := <-answers:
			if errors.Is(err, kgo.ErrClientClosed) {
				err = ErrClosed
			}
			errs = append(errs, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.closed:
			return ErrClosed
		}
	}
	return errors.Join(errs...)
}

// sweep removes records that are void. It is no part of what it is called after:
// what it leaves, the next one finds.
func (l *Ledger) sweep(ctx context.Context) {
	var records []*kgo.Record
	l.mu.Lock()
	for rawKey := range l.state.void {
		if len(records) == sweepMax {
			break
		}
		records = append(records, &kgo.Record{Topic: l.cfg.Topic, Key: []byte(rawKey)})
	}
	l.mu.Unlock()
	_ = l.produce(ctx, records) // what is not removed stays in void
}
