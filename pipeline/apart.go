package pipeline

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/pace"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/projections"
)

// A shard that still lies in a backup may have to wait for the bucket whenever it folds. If that
// takes long it goes on apart: the others do not wait for it, its logs are not read
// meanwhile, and what was fetched of them is forgotten but for one piece. Once it has
// folded that its logs are read again, from where its vector is then.

const (
	// apartAfter is how long the other shards wait for one that lies in a backup. Most
	// turns take less, and reading a log again takes longer.
	apartAfter = 50 * time.Millisecond

	// apartBytesMost bounds what a shard that goes on apart keeps of what was fetched; a
	// larger record is kept alone.
	apartBytesMost = 1 << 20

	// outsideRetryMost bounds the pauses, which begin with errorPause and double, before
	// a shard looks again for what is out of reach.
	outsideRetryMost = 10 * time.Second
)

// outsideTurn is what a shard that lies in a backup has to fold of one poll.
type outsideTurn struct {
	partition int32
	shard     *openShard
	folded    chan struct{} // closed when nothing of it is folded any more

	mu      sync.Mutex
	parts   [][]projections.Run // still to be folded
	isOver  bool
	isApart bool
	err     error // after which the region cannot go on
}

// next is what to fold next, nil if that was all.
func (t *outsideTurn) next() []projections.Run {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.parts) == 0 {
		return nil
	}
	part := t.parts[0]
	t.parts = t.parts[1:]
	return part
}

// end ends the folding, and tells whether the others had to go on without it.
func (t *outsideTurn) end(err error) (wasApart bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isOver, t.err = true, err
	close(t.folded)
	return t.isApart
}

// leave lets the shard go on apart with the part that it is at; not ok if it is through.
func (t *outsideTurn) leave() (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOver {
		return false
	}
	t.parts, t.isApart = nil, true
	return true
}

// beginOutside has a shard that lies in a backup fold runs, in a goroutine of its own; nil if
// the shard is being closed.
func (w *worker) beginOutside(ctx context.Context, p int32, shard *openShard, runs []projections.Run) *outsideTurn {
	ctx, done, ok := shard.useWhile(ctx)
	if !ok {
		return nil
	}
	t := &outsideTurn{partition: p, shard: shard, folded: make(chan struct{}), parts: pace.Split(runs, apartBytesMost)}
	w.turns.Go(func() {
		defer done()
		err := w.foldParts(ctx, t)
		switch wasApart := t.end(err); {
		case !wasApart:
		case err != nil:
			w.failed <- err
			w.orders.Nudge()
		default:
			w.rejoin(ctx, t)
		}
	})
	return t
}

// foldParts folds what a turn has, piece by piece: none before all pieces in front of it are.
func (w *worker) foldParts(ctx context.Context, t *outsideTurn) error {
	for !ended(ctx) {
		part := t.next()
		if part == nil {
			return nil
		}
		if err := w.foldShard(ctx, t.partition, t.shard, part); err != nil {
			return err
		}
	}
	return nil
}

// awaitOutside waits shortly for shards that lie in backups; those that are not through
// then go on apart.
func (w *worker) awaitOutside(turns []*outsideTurn) error {
	if len(turns) == 0 {
		return nil
	}
	timer := time.NewTimer(apartAfter)
	defer timer.Stop()
	for _, t := range turns {
		select {
		case <-t.folded:
		case <-timer.C:
			timer.Reset(0) // for the rest
		}
	}
	var errs []error
	for _, t := range turns {
		if t.leave() {
			w.setApart(t.partition, true)
			w.client.PauseFetchPartitions(w.partitionsOf(t.partition))
		} else {
			errs = append(errs, t.err)
		}
	}
	return errors.Join(errs...)
}

// rejoin has the logs of a shard read again that has gone on apart.
func (w *worker) rejoin(ctx context.Context, t *outsideTurn) {
	p := t.partition
	var places map[string]map[int32]kgo.Offset
	for {
		if t.shard.isClosing() || ended(ctx) {
			w.setWaiting(p, nil)
			return // and the keeper has them read no more
		}
		var err error
		if places, err = w.places(ctx, p, t.shard.Shard); err == nil {
			break
		}
		w.setWaiting(p, err)
		pause.For(ctx, errorPause)
	}
	w.setWaiting(p, nil)
	w.orders.Do(func() {
		if t.shard.isClosing() {
			return
		}
		w.setApart(p, false)
		blocked := t.shard.Blocked()
		for topic, rt := range w.routes {
			if l := rt.Log(p); blocked[l] != nil || w.isWaitedFor(l) {
				delete(places, topic)
			}
		}
		w.readFrom(places)
	})
}

// readFrom has logs that are read already, or not at present, be read from some places.
func (w *worker) readFrom(places map[string]map[int32]kgo.Offset) {
	partitions := map[string][]int32{}
	for topic, offsets := range places {
		for p := range offsets {
			partitions[topic] = append(partitions[topic], p)
		}
	}
	if len(partitions) == 0 {
		return // which would mean all, to the client
	}
	w.client.RemoveConsumePartitions(partitions)
	w.client.ResumeFetchPartitions(partitions)
	w.read(places)
}

// partitionsOf are the topics of a shard.
func (w *worker) partitionsOf(p int32) map[string][]int32 {
	partitions := map[string][]int32{}
	for topic := range w.routes {
		partitions[topic] = []int32{p}
	}
	return partitions
}

func (w *worker) setApart(p int32, is bool) {
	w.mu.Lock()
	w.apart[p] = is
	w.mu.Unlock()
	w.pace.SetApart(p, is)
}

func (w *worker) isApart(p int32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.apart[p]
}

// isWaitedFor reports whether a mirror is waited for, see watchBehind.
func (w *worker) isWaitedFor(l events.Log) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.behind[l] != nil
}

// together are the shards that fold at the pace of the polls.
func (w *worker) together() (list []int32) {
	for _, p := range w.shards.numbers() {
		if !w.isApart(p) {
			list = append(list, p)
		}
	}
	return list
}
