package replicator

import (
	"context"
	"errors"
	"time"

	"github.com/evenkeel/evenkeel/replicator/batch"
)

const lagInterval = 5 * time.Second

// probeLag reads the time of the last stable record of every source partition
// whose mirror is behind. Those that have caught up need no question: their lag is
// nothing.
func (m *mover) probeLag(ctx context.Context) error {
	var behind []*part
	var spots []spot
	m.mu.Lock()
	for _, key := range sortedKeys(m.parts) {
		p := m.parts[key]
		if p.flow != nil && p.lag.known && p.lag.stable > p.mirrored && p.lag.timeAt != p.lag.stable {
			behind = append(behind, p)
			spots = append(spots, spot{p.sourceID, p.log, p.num, p.source, p.lag.stable - 1})
		}
	}
	m.mu.Unlock()
	if len(behind) == 0 {
		return nil
	}
	got, err := m.source.readAt(ctx, spots, oneBatchBytes)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range behind {
		if at, ok := got[i].lastTime(); ok {
			p.lag.lastTime, p.lag.timeAt = at, spots[i].offset+1
		}
	}
	return nil
}

// lastTime is the largest timestamp of the last batch read, in ms.
func (d data) lastTime() (ms int64, ok bool) {
	for rest := d.batches; d.err == nil && len(rest) > 0; {
		b, after, err := batch.Read(rest)
		if errors.Is(err, batch.ErrPartial) || err != nil {
			break
		}
		ms, ok, rest = b.MaxTimestamp, true, after
	}
	return ms, ok
}
