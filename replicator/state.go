package replicator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// errEnded is why a link whose Run has returned does not mirror.
var errEnded = errors.New("ended")

// setConnected notes what keeps the link from mirroring, if anything does, and
// says so in the log when that changes.
func (l *Link) setConnected(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.connected
	l.connected = err
	switch {
	case err == nil && was != nil:
		l.since = time.Now()
		l.log.Info("link runs")
	case err != nil && was == nil:
		l.since = time.Now()
		if errors.Is(err, errEnded) {
			l.log.Info("link has ended")
			return
		}
		l.log.Warn("link is interrupted and tries again", "error", err)
	}
}

// stop ends the mirroring of one partition until the link is made anew.
func (l *Link) stop(p partition, format string, args ...any) {
	err := &StoppedError{Origin: l.cfg.Origin, Topic: p.topic, Partition: p.num, Reason: fmt.Sprintf(format, args...)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, is := l.stopped[p]; is {
		return
	}
	l.stopped[p] = err
	l.metrics.stop(l.cfg.Origin)
	l.log.Error("mirroring of a partition has stopped", "error", err)
}

func (l *Link) isStopped(p partition) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, is := l.stopped[p]
	return is
}

// sortedKeys are the partitions in order.
func sortedKeys[V any](m map[partition]V) []partition {
	return slices.SortedFunc(maps.Keys(m), partition.compare)
}
