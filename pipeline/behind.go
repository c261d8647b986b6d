package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/pause"
)

// behindInterval is between looks whether mirrors that have less than the state have come
// so far again, and links have said where in their logs records are.
const behindInterval = time.Second

// isBehind says whether it may be that a topic has not yet what is asked for: that of a
// mirror, which a link makes anew, after the loss of the region's Kafka say.
func (w *worker) isBehind(l events.Log, err error) bool {
	var loss *kgo.ErrDataLoss
	return w.mirrors.IsMirror(l) && errors.Is(err, kerr.OffsetOutOfRange) && !errors.As(err, &loss)
}

// setBehind ends the reading of a mirror that does not have what comes next, or of which nobody
// knows what that is, until lookBehind finds that it has. It is called between two polls. Of a shard that
// is being closed nothing is paused: it may be behind remove, and would stay so.
func (w *worker) setBehind(l events.Log, why error) {
	if shard := w.shards.get(l.Partition); shard == nil || shard.isClosing() {
		return
	}
	// Or the client would ask again at once, for ever.
	w.client.PauseFetchPartitions(map[string][]int32{w.cfg.TopicOf(l): {l.Partition}})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.behind[l] == nil {
		w.log.Warn("a mirror is waited for", "log", l.String(), "error", why)
	}
	w.behind[l] = why
}

// stillBehind notes why a mirror is still waited for, unless its shard was closed meanwhile.
func (w *worker) stillBehind(l events.Log, why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.behind[l] != nil {
		w.behind[l] = why
	}
}

// endBehind does with a log what ends the waiting for its mirror, unless its shard was closed
// meanwhile.
func (w *worker) endBehind(l events.Log, shard *openShard, do func()) {
	w.orders.Do(func() {
		if w.shards.get(l.Partition) != shard || shard.isClosing() {
			return
		}
		do()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.behind, l)
	})
}

// behindLogs are the logs whose mirrors are waited for, in order.
func (w *worker) behindLogs() []events.Log {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Keys(w.behind), events.Log.Compare)
}

// watchBehind lets the reading of mirrors go on that have come so far again, until the
// context ends.
func (w *worker) watchBehind(ctx context.Context) {
	for {
		if pause.For(ctx, behindInterval); ended(ctx) {
			return
		}
		for _, l := range w.behindLogs() {
			if err := w.lookBehind(ctx, l); err != nil && !ended(ctx) {
				w.stillBehind(l, err)
			}
		}
	}
}

// lookBehind looks whether a mirror has come to where the state is. An error says why the
// log is not read.
func (w *worker) lookBehind(ctx context.Context, l events.Log) error {
	shard := w.shards.get(l.Partition)
	switch {
	case shard == nil || shard.isClosing():
		return nil // and it is forgotten, see remove
	case w.isApart(l.Partition):
		return nil // what is read meanwhile would be dropped
	case shard.Blocked()[l] != nil:
		w.endBehind(l, shard, func() {}) // and it stays paused
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	topic, next := w.cfg.TopicOf(l), shard.Next(l)
	offset, err := w.mirrors.Begin(ctx, l, next)
	if err != nil {
		return err
	}
	start, end, err := boundsOf(ctx, kadm.NewClient(w.client), topic, l.Partition)
	switch {
	case err != nil:
		return fmt.Errorf("mirror %s of %s: %w", topic, w.cfg.Region, err)
	case offset > end:
		return fmt.Errorf("%s: its mirror %s in %s ends at offset %d, before %d, where the state is; it is waited for until the link has brought it so far again", l, topic, w.cfg.Region, end, offset)
	case offset < start:
		w.endBehind(l, shard, func() {
			shard.Block(l, fmt.Errorf("%s: topic %s of %s begins at offset %d, and does not have %d any more; restore this region from a backup that covers what is missing", l, topic, w.cfg.Region, start, offset))
		})
		return nil
	}
	if offset < end {
		if err := w.mirrors.Covers(ctx, l, offset, end); err != nil {
			return err
		}
	}
	w.endBehind(l, shard, func() {
		w.readFrom(map[string]map[int32]kgo.Offset{topic: {l.Partition: kgo.NewOffset().At(offset)}})
	})
	return nil
}

// boundsOf are the first offset of a partition, and the one behind its last.
func boundsOf(ctx context.Context, admin *kadm.Client, topic string, partition int32) (start, end int64, err error) {
	for _, ask := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		to   *int64
	}{{admin.ListStartOffsets, &start}, {admin.ListEndOffsets, &end}} {
		listed, err := ask.list(ctx, topic)
		if err != nil {
			return 0, 0, err
		}
		o, ok := listed.Lookup(topic, partition)
		if !ok {
			return 0, 0, fmt.Errorf("there is no partition %d", partition)
		}
		if o.Err != nil {
			return 0, 0, o.Err
		}
		*ask.to = o.Offset
	}
	return start, end, nil
}
