package replicator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// setConnected notes whether the source is being read, and says so in the log
// when that changes.
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

// halt is stop for a partition that is being read.
func (l *Link) halt(consumer *kgo.Client, p partition, format string, args ...any) {
	l.stop(p, format, args...)
	consumer.RemoveConsumePartitions(map[string][]int32{p.topic: {p.num}})
}

func (l *Link) isStopped(p partition) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, is := l.stopped[p]
	return is
}

// isLoss reports whether a fetch error means that records are gone, rather
// than that a broker is.
func isLoss(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange)
}

func sortedKeys[V any](m map[partition]V) []partition {
	return slices.SortedFunc(maps.Keys(m), partition.compare)
}
