package replicator

import (
	"context"
	"time"
)

const lagInterval = 5 * time.Second

// probeLag measures the lag in seconds of every partition whose mirror is behind,
// for which it reads the last stable record of the source. Those that have caught up
// need no question: their lag is nothing.
func (m *mover) probeLag(ctx context.Context) {
	probes, spots := m.lagProbes(time.Now())
	if len(spots) == 0 {
		return
	}
	got := m.source.readAt(ctx, spots, oneBatchBytes)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, probe := range probes {
		last, ok := got[i].lastTime()
		if !ok {
			m.log.Debug("lag in seconds cannot be found out", "partition", probe.part.partition, "error", got[i].err)
			continue
		}
		probe.lag.lastTime, probe.lag.timeAt = last, spots[i].offset+1
		probe.measured(last)
	}
}

// lagProbe is a part whose lag in seconds is being measured: how it was when the
// source's end was taken, since it goes on meanwhile.
type lagProbe struct {
	*part
	lastTime int64 // mirrored, in ms
	at       time.Time
}

// measured notes the lag by the time of the source's last record.
func (p lagProbe) measured(last int64) {
	if p.lastTime > 0 {
		p.lag.seconds, p.lag.measuredAt = max(float64(last-p.lastTime)/1000, 0), p.at
	}
}

// lagProbes are the parts to be measured and where to read for that. What has been
// read before is not read again.
func (m *mover) lagProbes(now time.Time) (probes []lagProbe, spots []spot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range sortedKeys(m.parts) {
		p := m.parts[key]
		if p.flow == nil || !p.lag.known || p.lag.stable <= p.mirrored {
			continue
		}
		probe := lagProbe{part: p, lastTime: p.lastTime, at: now}
		if p.lag.timeAt == p.lag.stable {
			probe.measured(p.lag.lastTime)
			continue
		}
		probes = append(probes, probe)
		spots = append(spots, spot{p.sourceID, p.log, p.num, p.source, p.lag.stable - 1})
	}
	return probes, spots
}

// lastTime is the largest timestamp of the last batch read, in ms.
func (d data) lastTime() (ms int64, ok bool) {
	for b, err := range d.all() {
		if err != nil {
			break
		}
		ms, ok = b.MaxTimestamp, true
	}
	return ms, ok
}
