package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/projections"
)

const (
	openRetryLeast = 500 * time.Millisecond
	openRetryMost  = 10 * time.Second

	// Between looks whether logs can be read again for read models.
	owedRetryLeast = time.Second
	owedRetryMost  = time.Minute

	keepInterval = 500 * time.Millisecond // between looks for what is to be tried again
)

// keeper opens the shards that the group assigns to this node and closes those
// that another node has claimed. A shard that is assigned elsewhere stays open until
// the other node claims it: until then somebody answers for it.
type keeper struct {
	cfg    *config.Config
	begin  *beginnings
	claims *claims.Log
	member *claims.Member
	shards *shardSet
	worker *worker
	reread projections.History // from where read models may have logs again
	forget func(p int32)       // what was found by comparing a shard that is another's now
	log    *slog.Logger

	wake       chan struct{}
	slots      chan struct{} // bounds how many shards are opened at a time
	hydrations chan struct{} // and how many are brought here out of backups
	tasks      sync.WaitGroup

	mu      sync.Mutex
	places  []place
	damaged map[int32]bool // shards that referred to a backup that is damaged

	renewing map[int32]bool      // shards for whose renewal something is being done
	renewAt  map[int32]time.Time // when to look at it again
}

// place is what the keeper knows of one shard.
type place struct {
	state   string             // one of the states below
	began   string             // where the open shard began
	err     error              // why it could not be opened the last time
	since   time.Time          // when it was first tried to open it
	pause   time.Duration      // before the next try
	retryAt time.Time          // when to try again
	cancel  context.CancelFunc // of the opening that is under way
}

// States of a shard on a node.
const (
	shardClosed  = "closed"
	shardOpening = "opening"
	shardOpen    = "open"
	shardClosing = "closing"
)

func newKeeper(cfg *config.Config, begin *beginnings, shards *shardSet, log *slog.Logger) *keeper {
	k := &keeper{
		cfg: cfg, begin: begin, shards: shards, log: log, wake: make(chan struct{}, 1),
		slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))), hydrations: make(chan struct{}, parallelHydrations),
		places: make([]place, cfg.Partitions), damaged: map[int32]bool{},
		renewing: map[int32]bool{}, renewAt: map[int32]time.Time{},
	}
	for p := range k.places {
		k.places[p].state = shardClosed
	}
	return k
}

// nudge has the keeper look again.
func (k *keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run keeps the shards until the context ends, and then closes them all.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	for !ended(ctx) {
		for p := range k.cfg.Partitions {
			k.look(ctx, p)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-k.wake:
		}
	}
	k.tasks.Wait()
}

// claimed takes in a claim, in the order of the log. A shard that is open here
// under an earlier one is fenced at once.
func (k *keeper) claimed(key string, c claims.Claim) {
	p, err := strconv.ParseInt(key, 10, 32)
	if err != nil || p < 0 || p >= int64(k.cfg.Partitions) {
		return
	}
	if shard := k.shards.get(int32(p)); shard != nil && shard.Epoch() < c.Epoch {
		shard.fence(superseded(c))
	}
	k.forgetMoved(int32(p))
	k.nudge()
}

// forgetMoved is called when a shard cannot be compared here any more. What was found stays
// until it is known that another node owns the shard: one that is opened here again may
// prove that it was repaired.
func (k *keeper) forgetMoved(p int32) {
	if newest, ok := k.claims.Of(claims.ShardKey(p)); ok && !k.claims.IsOwn(newest) {
		k.forget(p)
	}
}

func superseded(c claims.Claim) error {
	return fmt.Errorf("node %s owns it since %s, under epoch %s", c.Node, c.At.Format(time.RFC3339), c.Epoch)
}

// look does what is due for one shard.
func (k *keeper) look(ctx context.Context, p int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := &k.places[p]
	newest, _ := k.claims.Of(claims.ShardKey(p))
	assigned := k.member.Has(p)
	switch at.state {
	case shardOpening:
		if !assigned {
			at.cancel()
		}
	case shardOpen:
		if shard := k.shards.get(p); shard.Epoch() < newest.Epoch || shard.isClosing() {
			at.state = shardClosing
			k.tasks.Go(func() { k.close(p, shard, superseded(newest), claims.ReclaimPause) })
		} else {
			k.lookRenewal(ctx, p, shard)
		}
	case shardClosed:
		if !assigned {
			at.err, at.since, at.pause = nil, time.Time{}, 0
		} else if !time.Now().Before(at.retryAt) {
			task, cancel := context.WithCancel(ctx)
			at.state, at.cancel = shardOpening, cancel
			if at.since.IsZero() {
				at.since = time.Now()
			}
			since := at.since
			k.tasks.Go(func() {
				defer cancel()
				if shard := k.open(task, p, since); shard != nil {
					k.begun(ctx, p, shard)
				}
			})
		}
	}
}

// open brings a shard to where it begins, claims it, opens it and has it read. It is
// nil if that was not possible.
func (k *keeper) open(ctx context.Context, p int32, since time.Time) (opened *openShard) {
	select {
	case k.slots <- struct{}{}:
		defer func() { <-k.slots }()
	case <-ctx.Done():
	}
	shard, began, err := k.tryOpen(ctx, p, since)
	var places map[string]map[int32]kgo.Offset
	if err == nil {
		if places, err = k.worker.places(ctx, p, shard); err != nil {
			err = errors.Join(err, shard.Close())
		}
	}
	if err == nil {
		opened = &openShard{Shard: shard}
		k.shards.put(p, opened)
		if c, _ := k.claims.Of(claims.ShardKey(p)); c.Epoch > shard.Epoch() {
			opened.fence(superseded(c)) // and the next look closes it
		}
		k.worker.add(places)
		k.log.Info("shard is open", "shard", p, "epoch", uint64(shard.Epoch()), "began", began, "took", time.Since(since).String())
	}
	k.opened(ctx, p, began, err)
	k.nudge()
	return opened
}

// begun starts what is to be done in the background for a shard that has been opened.
func (k *keeper) begun(ctx context.Context, p int32, shard *openShard) {
	if shard.IsInPlace() {
		k.work(ctx, shard, func(ctx context.Context) { k.hydrate(ctx, p, shard) })
	}
	k.work(ctx, shard, func(ctx context.Context) { k.rebuildOwed(ctx, p, shard) })
}

// work does something with a shard in a task that ends when the shard is closed.
func (k *keeper) work(ctx context.Context, shard *openShard, do func(context.Context)) {
	while, done, ok := shard.useWhile(ctx)
	if !ok {
		return
	}
	k.tasks.Go(func() {
		defer done()
		do(while)
	})
}

// rebuildOwed has read models of events made of the logs again that have begun with less than
// the shard has, as those of a restored shard; it tries until it is known how far that can
// be done, or the context ends.
func (k *keeper) rebuildOwed(ctx context.Context, p int32, shard *openShard) {
	for wait := owedRetryLeast; !ended(ctx); wait = min(2*wait, owedRetryMost) {
		err := shard.RebuildOwed(ctx)
		if err == nil {
			return
		}
		if wait == owedRetryLeast && !ended(ctx) {
			k.log.Warn("logs cannot be read again for read models, and it is tried again", "shard", p, "error", err)
		}
		pause.For(ctx, wait)
	}
}

func (k *keeper) opened(ctx context.Context, p int32, began string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := &k.places[p]
	if err == nil {
		*at = place{state: shardOpen, began: began}
		return
	}
	at.state = shardClosed
	if ended(ctx) {
		at.retryAt = time.Now()
		return
	}
	at.err = err
	at.pause = min(max(openRetryLeast, 2*at.pause), openRetryMost)
	at.retryAt = time.Now().Add(at.pause)
	k.log.Warn("shard cannot be opened and is tried again", "shard", p, "error", err)
}

func (k *keeper) tryOpen(ctx context.Context, p int32, since time.Time) (*projections.Shard, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	k.mu.Lock()
	damaged := k.damaged[p]
	k.mu.Unlock()
	began, err := k.begin.find(ctx, p, since, damaged)
	if err != nil {
		return nil, "", err
	}
	epoch, err := k.claims.Take(ctx, claims.ShardKey(p), p, began.epoch)
	if err != nil {
		return nil, "", err
	}
	sc, err := shardConfig(k.cfg, k.begin.fs, k.log, StateDir(k.cfg), p)
	if err != nil {
		return nil, "", err
	}
	sc.Cache, sc.Epoch, sc.Lineage, sc.History = k.shards.cache, epoch, newLineage(""), k.reread
	k.begin.readOutside(&sc)
	shard, err := openState(sc)
	if err != nil {
		return nil, "", err
	}
	ends, err := k.begin.notAhead(ctx, p, shard)
	var read passed
	if err == nil {
		read, err = k.begin.readBefore(ctx, p, events.VectorOf(shard.Logs()))
	}
	if err != nil {
		return nil, "", errors.Join(err, shard.Close())
	}
	k.worker.ends.opened(p, ends)
	k.worker.recall(p, read)
	return shard, began.from, nil
}

// close ends the reading of a shard and closes it, and claims it again after a pause at the
// earliest. Its directory stays.
func (k *keeper) close(p int32, shard *openShard, reason error, again time.Duration) {
	shard.fence(reason)
	k.worker.remove(p)
	err := shard.close(reason)
	k.shards.drop(p)
	k.forgetMoved(p) // it may have been claimed before it was open
	k.log.Info("shard is closed", "shard", p, "reason", reason)
	if err != nil {
		k.log.Error("shard was not closed properly", "shard", p, "error", err)
	}
	k.mu.Lock()
	k.places[p] = place{state: shardClosed, retryAt: time.Now().Add(again)}
	k.mu.Unlock()
	k.nudge()
}

// closeAll closes every shard; nothing is read any more.
func (k *keeper) closeAll() error {
	var first error
	for _, p := range k.shards.numbers() {
		err := k.shards.get(p).close(errStopped)
		k.shards.drop(p)
		if first == nil {
			first = err
		}
	}
	k.shards.cache.Unref()
	return first
}

var errStopped = events.Errorf(events.KindNotReady, "the node stops")

// stateOf tells what a shard is doing here.
func (k *keeper) stateOf(p int32) place {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.places[p]
}

// problem says which of the shards that are assigned to this node are not open,
// and why.
func (k *keeper) problem() error {
	for p := range k.cfg.Partitions {
		at := k.stateOf(p)
		switch {
		case !k.member.Has(p) || at.state == shardOpen:
		case at.err != nil:
			return events.Errorf(events.KindNotReady, "shard %d is not open: %w", p, at.err)
		default:
			return events.Errorf(events.KindNotReady, "shard %d is not open yet", p)
		}
	}
	return nil
}
