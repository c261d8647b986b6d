package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/orders"
	"github.com/evenkeel/evenkeel/projections"
)

const (
	workerPollRecords = 10_000 // folded in one batch per shard
	fetchWait         = 500 * time.Millisecond
	diskFullPause     = 2 * time.Second
	errorPause        = 200 * time.Millisecond
	troubleStays      = 15 * time.Second // longer than the client's pauses between tries
	topicsInterval    = 30 * time.Second // between looks at what has become of the topics
)

// worker reads the logs and mirrors of the shards that are open on this node and
// has the shards fold them. What to read it is told by the keeper.
type worker struct {
	cfg     *config.Config
	client  *kgo.Client
	shards  *shardSet
	claims  *claims
	routes  map[string]route
	metrics *metrics
	clock   *nodeClock
	pace    *pace
	mirrors *mirrors
	log     *slog.Logger

	orders  *orders.Queue                                         // between a fold and the next poll
	damaged func(partition int32, shard *openShard, reason error) // has a shard closed and restored again

	mu        sync.Mutex
	paused    map[events.Log]bool
	waiting   error           // why folding waits, nil if it does not
	trouble   *recentError    // the last that was told
	topics    error           // what is wrong with the topics
	compacted map[string]bool // topics; see compactedTopics
}

func newWorker(opts []kgo.Opt, cfg *config.Config, shards *shardSet, m *metrics, clock *nodeClock, log *slog.Logger) (*worker, error) {
	w := &worker{
		cfg: cfg, shards: shards, routes: routes(cfg), metrics: m, clock: clock, pace: newPace(), mirrors: newMirrors(opts, cfg), log: log,
		orders: orders.New(int(cfg.Partitions)), paused: map[events.Log]bool{},
	}
	var err error
	w.client, err = kgo.NewClient(append(opts,
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The logs of a shard that is opened are asked for when the broker has answered
		// the question before, for those of others.
		kgo.FetchMaxWait(fetchWait),
		// What was fetched and is not folded yet: so many answers of brokers, of
		// so many bytes each.
		kgo.FetchMaxBytes(16<<20),
		kgo.MaxConcurrentFetches(3),
		kgo.WithHooks(w.pace),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", cfg.Region, err)
	}
	return w, nil
}

// places are where to begin to read the logs of a shard: where its own vector says,
// which changed in one step with the state. The group's offsets did not.
func (w *worker) places(ctx context.Context, p int32, shard *projections.Shard) (map[string]map[int32]kgo.Offset, error) {
	offsets := map[string]map[int32]kgo.Offset{}
	for topic, rt := range w.routes {
		offset, err := w.mirrors.begin(ctx, rt.log(p), shard.Next(rt.log(p)))
		if err != nil {
			return nil, err
		}
		offsets[topic] = map[int32]kgo.Offset{p: kgo.NewOffset().At(offset)}
	}
	return offsets, nil
}

// add begins to read at some places.
func (w *worker) add(places map[string]map[int32]kgo.Offset) {
	w.orders.Do(func() { w.client.AddConsumePartitions(places) })
}

// remove ends the reading of the logs of a shard. What was fetched of them is
// forgotten.
func (w *worker) remove(p int32) {
	partitions := map[string][]int32{}
	for topic := range w.routes {
		partitions[topic] = []int32{p}
	}
	w.orders.Do(func() {
		w.client.RemoveConsumePartitions(partitions)
		w.client.ResumeFetchPartitions(partitions)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pace.forget(p)
		maps.DeleteFunc(w.paused, func(l events.Log, _ bool) bool { return l.Partition == p })
	})
}

// run reads and folds until the context ends. An error means that the state
// cannot be written or is corrupt.
func (w *worker) run(ctx context.Context) error {
	defer w.orders.End()
	for w.lookAtPolicies(ctx) != nil {
		if pause(ctx, errorPause); ended(ctx) {
			return nil
		}
	}
	for {
		w.orders.Obey()
		fetches := w.pace.poll(w.shards.numbers(), w.routes, func() kgo.Fetches { return w.orders.Poll(ctx, w.poll) })
		if ended(ctx) {
			return nil
		}
		wrong := w.checkFetchErrors(fetches)
		if err := w.fold(ctx, w.runs(ctx, fetches)); err != nil {
			return err
		}
		if wrong {
			pause(ctx, errorPause)
		}
	}
}

func (w *worker) poll(ctx context.Context) kgo.Fetches {
	return w.client.PollRecords(ctx, workerPollRecords)
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// runs sorts fetched records by shard, under the offsets that they have in their
// logs.
func (w *worker) runs(ctx context.Context, fetches kgo.Fetches) map[int32][]projections.Run {
	runs := map[int32][]projections.Run{}
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		rt, known := w.routes[ftp.Topic]
		if !known || len(ftp.Records) == 0 || !w.translate(ctx, rt.log(ftp.Partition), ftp) {
			return
		}
		runs[ftp.Partition] = append(runs[ftp.Partition], projections.Run{Log: rt.log(ftp.Partition), Records: ftp.Records, Sparse: !w.isCompacted(ftp.Topic)})
	})
	return runs
}

// isCompacted reports whether a topic may lack records; see compactedTopics. Until that is
// known it may.
func (w *worker) isCompacted(topic string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.compacted == nil || w.compacted[topic]
}

// translate gives records the offsets of their log. It waits until these are known;
// if they never will be the log is blocked. It is false if there is nothing to fold.
func (w *worker) translate(ctx context.Context, l events.Log, ftp kgo.FetchTopicPartition) bool {
	for waited := false; ; waited = true {
		shard := w.shards.get(l.Partition)
		if shard == nil || shard.isClosing() || ended(ctx) {
			return false
		}
		err := w.mirrors.toLog(ctx, l, ftp.Records, ftp.HighWatermark)
		switch {
		case err == nil && waited:
			w.setWaiting(nil)
			return true
		case err == nil:
			return true
		case events.KindOf(err) == events.KindRefused:
			shard.Block(l, err)
			return false
		}
		w.setWaiting(err)
		pause(ctx, errorPause)
	}
}

func (w *worker) fold(ctx context.Context, runs map[int32][]projections.Run) error {
	if len(runs) > 0 && !w.isSure(ctx) {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for p, shardRuns := range runs {
		shard := w.shards.get(p)
		if shard == nil || !shard.use() {
			continue // it is being closed
		}
		g.Go(func() error {
			defer shard.done()
			return w.foldShard(ctx, p, shard, shardRuns)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	w.pauseBlocked()
	return nil
}

// isSure waits, after a silence in which other nodes may have claimed the shards,
// until the claims are known again: one that was frozen must not go on as if
// nothing had happened. It is false if the context has ended before.
func (w *worker) isSure(ctx context.Context) bool {
	for !ended(ctx) {
		if w.claims.lapsed() == nil {
			return true
		}
		pause(ctx, errorPause)
	}
	return false
}

// foldShard applies runs to one shard; it waits while the disk is full, or the shard's
// backup is out of reach and what it has of the shard is not here yet.
func (w *worker) foldShard(ctx context.Context, p int32, shard *openShard, runs []projections.Run) error {
	for {
		done, err := w.pace.apply(p, shard.Shard, runs)
		var full *projections.DiskFullError
		switch {
		case err == nil:
			w.clock.Observe(done.MaxClock)
			w.metrics.applied(done)
			w.setWaiting(nil)
			return nil
		case shard.isClosing():
			w.setWaiting(nil)
			return nil
		case errors.As(err, &full):
			w.setWaiting(full)
			pause(ctx, diskFullPause)
		default:
			outside := shard.InPlaceError(err)
			if outside == nil {
				return err
			}
			if events.KindOf(outside) == events.KindInconsistent {
				w.damaged(p, shard, outside)
			}
			w.setWaiting(outside)
			pause(ctx, errorPause)
		}
		if ended(ctx) {
			return nil
		}
	}
}

// pause waits for a time, or for the end of the context.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// pauseBlocked stops reading logs whose fold has stopped.
func (w *worker) pauseBlocked() {
	for _, p := range w.shards.numbers() {
		shard := w.shards.get(p)
		if shard == nil {
			continue
		}
		for l := range shard.Blocked() {
			w.mu.Lock()
			paused := w.paused[l]
			w.paused[l] = true
			w.mu.Unlock()
			if !paused {
				w.client.PauseFetchPartitions(map[string][]int32{topicOf(w.cfg, l): {l.Partition}})
			}
		}
	}
}

// checkFetchErrors blocks the logs of which records are gone. Everything else
// is wrong and tried again by the client, in part without a pause.
func (w *worker) checkFetchErrors(fetches kgo.Fetches) (wrong bool) {
	var trouble error
	for _, fe := range fetches.Errors() {
		rt, known := w.routes[fe.Topic]
		var loss *kgo.ErrDataLoss
		switch {
		case fe.Topic == "" && isInterrupt(fe.Err):
		case known && fe.Partition >= 0 && (errors.As(fe.Err, &loss) || errors.Is(fe.Err, kerr.OffsetOutOfRange)):
			if shard, l := w.shards.get(fe.Partition), rt.log(fe.Partition); shard != nil {
				shard.Block(l, fmt.Errorf("%s: topic %s of %s does not have offset %d any more (%w); restore this region from a backup that covers what is missing",
					l, fe.Topic, w.cfg.Region, shard.Next(l), fe.Err))
			}
		case fe.Topic == "":
			trouble = fmt.Errorf("kafka of %s: %w", w.cfg.Region, fe.Err)
		default:
			trouble = fmt.Errorf("read topic %s, partition %d of %s: %w", fe.Topic, fe.Partition, w.cfg.Region, fe.Err)
		}
	}
	if trouble == nil {
		return false
	}
	w.mu.Lock()
	known := w.trouble.isFresh()
	w.trouble = &recentError{trouble, time.Now()}
	w.mu.Unlock()
	if !known {
		w.log.Warn("logs cannot be read and are tried again", "error", trouble)
	}
	return true
}

// watchTopics looks now and then whether the topics are still what they have to
// be, until the context ends.
func (w *worker) watchTopics(ctx context.Context) {
	for {
		if pause(ctx, topicsInterval); ended(ctx) {
			return
		}
		err, known := w.lookAtTopics(ctx)
		if !known || w.lookAtPolicies(ctx) != nil {
			continue // that the cluster does not answer is told by those who need it
		}
		w.mu.Lock()
		w.topics = err
		w.mu.Unlock()
	}
}

func (w *worker) lookAtTopics(ctx context.Context) (wrong error, known bool) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	names := slices.Sorted(maps.Keys(w.routes))
	found, err := kadm.NewClient(w.client).Metadata(ctx, names...)
	if err != nil {
		return nil, false
	}
	for _, topic := range names {
		t, ok := found.Topics[topic]
		switch {
		case !ok || t.Err != nil:
			return fmt.Errorf("topic %s of %s cannot be read: %w", topic, w.cfg.Region, t.Err), true
		case len(t.Partitions) > int(w.cfg.Partitions):
			return fmt.Errorf("topic %s of %s was given %d partitions, the configuration says %d: events in the new ones are not folded, and keys have moved",
				topic, w.cfg.Region, len(t.Partitions), w.cfg.Partitions), true
		}
	}
	return nil, true
}

// lookAtPolicies finds out in which topics records may be missing.
func (w *worker) lookAtPolicies(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	compacted, err := compactedTopics(ctx, kadm.NewClient(w.client), slices.Sorted(maps.Keys(w.routes)))
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compacted = compacted
	return nil
}

func (w *worker) setWaiting(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.waiting == nil {
		w.log.Error("folding waits", "error", err)
	}
	w.waiting = err
}

// problem says why the worker does not fold everything at present.
func (w *worker) problem() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.waiting != nil:
		return w.waiting
	case w.trouble.isFresh():
		return w.trouble.err
	}
	return w.topics
}
