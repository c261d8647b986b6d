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
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/mirrors"
	"github.com/evenkeel/evenkeel/pipeline/orders"
	"github.com/evenkeel/evenkeel/pipeline/pace"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/trouble"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/replicator/inflate"
)

const (
	fetchWait      = 500 * time.Millisecond
	diskFullPause  = 2 * time.Second
	errorPause     = 200 * time.Millisecond
	topicsInterval = 30 * time.Second // between looks at what has become of the topics
	roomBytes      = 128 << 20        // of decompressed batches
)

// worker reads the logs and mirrors of the shards that are open on this node and
// has the shards fold them. What to read it is told by the keeper.
type worker struct {
	cfg     *config.Config
	client  *kgo.Client
	shards  *shardSet
	claims  *claims.Log
	routes  map[string]config.Route
	metrics *metrics
	clock   *nodeClock
	pace    *pace.Meter
	mirrors *mirrors.Offsets
	ends    *ownEnds
	log     *slog.Logger

	orders  *orders.Queue                                         // between a fold and the next poll
	damaged func(partition int32, shard *openShard, reason error) // has a shard closed and restored again

	turns  sync.WaitGroup // of shards that lie in backups
	failed chan error     // why one of them cannot go on, nor the region

	mu        sync.Mutex
	apart     map[int32]bool // shards that fold apart from the others
	passed    passed         // of the region's own logs
	paused    map[events.Log]bool
	waiting   map[int32]error      // why the folding of shards waits
	trouble   *trouble.Recent      // the last that was told
	topics    error                // what is wrong with the topics
	behind    map[events.Log]error // whose mirrors are waited for, and why
	compacted map[string]bool      // topics; see compactedTopics
}

func newWorker(opts []kgo.Opt, cfg *config.Config, shards *shardSet, m *metrics, clock *nodeClock, log *slog.Logger) (*worker, error) {
	w := &worker{
		cfg: cfg, shards: shards, routes: cfg.Routes(), metrics: m, clock: clock, pace: pace.New(), mirrors: mirrors.New(opts, cfg), log: log,
		orders: orders.New(int(cfg.Partitions)), failed: make(chan error, cfg.Partitions),
		apart: map[int32]bool{}, passed: passed{}, paused: map[events.Log]bool{}, waiting: map[int32]error{}, behind: map[events.Log]error{},
	}
	var err error
	w.client, err = kgo.NewClient(append(append(opts, cfg.RoomOpts(roomBytes)...),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a log may end with one; see passed
		// The logs of a shard that is opened are asked for when the broker has answered
		// the question before, for those of others.
		kgo.FetchMaxWait(fetchWait),
		// What was fetched and is not folded yet: so many answers of brokers, of
		// so many bytes each, as they are compressed; see roomBytes.
		kgo.FetchMaxBytes(16<<20),
		kgo.MaxConcurrentFetches(3),
		kgo.WithHooks(w.pace),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", cfg.Region, err)
	}
	w.ends = newOwnEnds(cfg, kadm.NewClient(w.client))
	return w, nil
}

// places are where to begin to read the logs of a shard: where its own vector says,
// which changed in one step with the state, or behind what is nothing to fold there. The
// group's offsets alone would not do.
func (w *worker) places(ctx context.Context, p int32, shard *projections.Shard) (map[string]map[int32]kgo.Offset, error) {
	offsets := map[string]map[int32]kgo.Offset{}
	for topic, rt := range w.routes {
		l := rt.Log(p)
		offset, err := w.mirrors.Begin(ctx, l, w.placeOf(l, shard.Next(l)))
		if err != nil {
			return nil, err
		}
		offsets[topic] = map[int32]kgo.Offset{p: kgo.NewOffset().At(offset)}
	}
	return offsets, nil
}

// recall takes in what is known of the logs of a shard that is about to be read, and nothing that was before.
func (w *worker) recall(p int32, known passed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.passed, func(l events.Log, _ stretch) bool { return l.Partition == p })
	maps.Copy(w.passed, known)
}

// add begins to read at some places.
func (w *worker) add(places map[string]map[int32]kgo.Offset) {
	w.orders.Do(func() { w.read(places) })
}

// read begins to read at some places, between two polls.
func (w *worker) read(places map[string]map[int32]kgo.Offset) {
	w.mu.Lock()
	for topic, offsets := range places {
		for p, o := range offsets {
			if l := w.routes[topic].Log(p); !w.mirrors.IsMirror(l) {
				w.passed.begin(l, o.EpochOffset().Offset)
			}
		}
	}
	w.mu.Unlock()
	w.client.AddConsumePartitions(places)
}

// remove ends the reading of the logs of a shard. What was fetched of them is
// forgotten.
func (w *worker) remove(p int32) {
	partitions := w.partitionsOf(p)
	w.orders.Do(func() {
		w.client.RemoveConsumePartitions(partitions)
		w.client.ResumeFetchPartitions(partitions)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.pace.Forget(p)
		delete(w.apart, p)
		delete(w.waiting, p)
		maps.DeleteFunc(w.paused, func(l events.Log, _ bool) bool { return l.Partition == p })
		maps.DeleteFunc(w.behind, func(l events.Log, _ error) bool { return l.Partition == p })
	})
}

// run reads and folds until the context ends. An error means that the state
// cannot be written or is corrupt.
func (w *worker) run(ctx context.Context) error {
	defer w.turns.Wait()
	defer w.orders.End()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for w.lookAtPolicies(ctx) != nil {
		if pause.For(ctx, errorPause); ended(ctx) {
			return nil
		}
	}
	for {
		w.orders.Obey()
		select {
		case err := <-w.failed:
			return err
		default:
		}
		fetches := w.pace.Poll(w.together(), w.routes, func() kgo.Fetches { return w.orders.Poll(ctx, w.poll) })
		if ended(ctx) {
			return nil
		}
		wrong := w.checkFetchErrors(fetches)
		if err := w.fold(ctx, w.runs(ctx, fetches)); err != nil {
			return err
		}
		if wrong {
			pause.For(ctx, errorPause)
		}
	}
}

func (w *worker) poll(ctx context.Context) kgo.Fetches {
	return w.client.PollRecords(ctx, pace.PollRecords)
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// runs sorts fetched records by shard, under the offsets that they have in their
// logs.
func (w *worker) runs(ctx context.Context, fetches kgo.Fetches) map[int32][]projections.Run {
	runs := map[int32][]projections.Run{}
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		rt, known := w.routes[ftp.Topic]
		if !known || w.isApart(ftp.Partition) {
			return
		}
		ftp.Records = w.counting(rt.Log(ftp.Partition), ftp.Records)
		if len(ftp.Records) == 0 {
			return
		}
		if records := w.translate(ctx, rt.Log(ftp.Partition), ftp); len(records) > 0 {
			runs[ftp.Partition] = append(runs[ftp.Partition], projections.Run{Log: rt.Log(ftp.Partition), Records: records, Sparse: !w.isCompacted(ftp.Topic)})
		}
	})
	return runs
}

// counting are those of some records that were fetched which are no marks of Kafka's own.
func (w *worker) counting(l events.Log, records []*kgo.Record) []*kgo.Record {
	if w.mirrors.IsMirror(l) {
		return records // a link has passed none on
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passed.take(l, records)
}

// readFurther says how far the region's own logs of a shard were read where that is further than its
// state, with nothing to fold in between.
func (w *worker) readFurther(p int32, shard *projections.Shard) events.Vector {
	w.mu.Lock()
	defer w.mu.Unlock()
	further := events.Vector{}
	for _, rt := range w.routes {
		l := rt.Log(p)
		next := shard.Next(l)
		if to := w.passed.place(l, next); to > next {
			further[l] = to
		}
	}
	return further
}

// placeOf is where the reading of one of the region's own logs is if its state is at an offset.
func (w *worker) placeOf(l events.Log, next int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passed.place(l, next)
}

// isCompacted reports whether a topic may lack records; see compactedTopics. Until that is
// known it may.
func (w *worker) isCompacted(topic string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.compacted == nil || w.compacted[topic]
}

// translate gives records the offsets of their log, and returns those to fold. It waits until
// the offsets can be asked for; if they never will be known the log is blocked. Records of which a link
// has not said theirs are left out, and as long as that is so the log is not read: other
// logs go on.
func (w *worker) translate(ctx context.Context, l events.Log, ftp kgo.FetchTopicPartition) []*kgo.Record {
	for waited := false; ; waited = true {
		shard := w.shards.get(l.Partition)
		if shard == nil || shard.isClosing() || ended(ctx) {
			return nil
		}
		records, err := w.mirrors.KnownToLog(ctx, l, ftp.Records, ftp.HighWatermark)
		isRefused, isUnsaid := events.KindOf(err) == events.KindRefused, errors.Is(err, mirrors.ErrNotSaid)
		if waited && (err == nil || isRefused || isUnsaid) {
			w.setWaiting(l.Partition, nil)
		}
		switch {
		case err == nil:
			return records
		case isRefused:
			shard.Block(l, err)
			return nil
		case isUnsaid:
			w.setBehind(l, err)
			return records
		}
		w.setWaiting(l.Partition, err)
		pause.For(ctx, errorPause)
	}
}

func (w *worker) fold(ctx context.Context, runs map[int32][]projections.Run) error {
	if len(runs) > 0 && !w.isSure(ctx) {
		return nil
	}
	var outside []*outsideTurn
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for p, shardRuns := range runs {
		shard := w.shards.get(p)
		switch {
		case shard == nil:
			continue
		case shard.IsInPlace():
			if t := w.beginOutside(ctx, p, shard, shardRuns); t != nil {
				outside = append(outside, t)
			}
			continue
		case !shard.use():
			continue // it is being closed
		}
		g.Go(func() error {
			defer shard.done()
			return w.foldShard(ctx, p, shard, shardRuns)
		})
	}
	if err := errors.Join(g.Wait(), w.awaitOutside(outside)); err != nil {
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
		if w.claims.Lapsed() == nil {
			return true
		}
		pause.For(ctx, errorPause)
	}
	return false
}

// foldShard applies runs to one shard; it waits while the disk is full, or the shard's
// backup is out of reach and what it has of the shard is not here yet.
func (w *worker) foldShard(ctx context.Context, p int32, shard *openShard, runs []projections.Run) error {
	for wait := errorPause; ; wait = min(2*wait, outsideRetryMost) {
		done, err := w.pace.Apply(p, shard.Shard, runs)
		var full *projections.DiskFullError
		switch {
		case err == nil:
			w.clock.Observe(done.MaxClock)
			w.metrics.applied(done)
			w.setWaiting(p, nil)
			return nil
		case shard.isClosing():
			w.setWaiting(p, nil)
			return nil
		case errors.As(err, &full):
			w.setWaiting(p, full)
			pause.For(ctx, diskFullPause)
		default:
			outside := shard.InPlaceError(err)
			if outside == nil {
				return err
			}
			if events.KindOf(outside) == events.KindInconsistent {
				w.damaged(p, shard, outside)
			}
			w.setWaiting(p, outside)
			pause.For(ctx, wait)
		}
		if ended(ctx) || !w.isSure(ctx) {
			return nil
		}
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
				w.client.PauseFetchPartitions(map[string][]int32{w.cfg.TopicOf(l): {l.Partition}})
			}
		}
	}
}

// checkFetchErrors blocks the logs of which records are gone. Everything else
// is wrong and tried again by the client, in part without a pause.
func (w *worker) checkFetchErrors(fetches kgo.Fetches) (wrong bool) {
	var last error
	for _, fe := range fetches.Errors() {
		rt, known := w.routes[fe.Topic]
		var loss *kgo.ErrDataLoss
		var large *inflate.TooLargeError
		switch {
		case fe.Topic == "" && errors.Is(fe.Err, context.Canceled):
		case known && errors.As(fe.Err, &large):
			w.blockTooLarge(fe.Topic, rt.Log(fe.Partition), large)
		case known && fe.Partition >= 0 && w.isBehind(rt.Log(fe.Partition), fe.Err):
			w.setBehind(rt.Log(fe.Partition), fe.Err)
		case known && fe.Partition >= 0 && (errors.As(fe.Err, &loss) || errors.Is(fe.Err, kerr.OffsetOutOfRange)):
			if shard, l := w.shards.get(fe.Partition), rt.Log(fe.Partition); shard != nil {
				shard.Block(l, fmt.Errorf("%s: topic %s of %s does not have offset %d any more (%w); restore this region from a backup that covers what is missing",
					l, fe.Topic, w.cfg.Region, shard.Next(l), fe.Err))
			}
		case fe.Topic == "":
			last = fmt.Errorf("kafka of %s: %w", w.cfg.Region, fe.Err)
		default:
			last = fmt.Errorf("read topic %s, partition %d of %s: %w", fe.Topic, fe.Partition, w.cfg.Region, fe.Err)
		}
	}
	if last == nil {
		return false
	}
	w.mu.Lock()
	known := w.trouble.IsFresh()
	w.trouble = &trouble.Recent{Err: last, At: time.Now()}
	w.mu.Unlock()
	if !known {
		w.log.Warn("logs cannot be read and are tried again", "error", last)
	}
	return true
}

// blockTooLarge ends the reading of a log before a batch that is too large. Nothing behind that is
// read either: no record of a log is ever left out.
func (w *worker) blockTooLarge(topic string, l events.Log, large *inflate.TooLargeError) {
	shard := w.shards.get(l.Partition)
	if shard == nil || w.isApart(l.Partition) || shard.Blocked()[l] != nil {
		return // where it is read again this is told again
	}
	next := w.placeOf(l, shard.Next(l))
	w.metrics.tooLarge.Inc()
	shard.Block(l, fmt.Errorf("%s: topic %s of %s: the batch at offset %d of the log is larger than %d MiB decompressed, or has more records than go with that; if the nodes of all regions have the memory, raise limits.max_batch_bytes there and start them again, "+
		"and find out who has written it", l, topic, w.cfg.Region, next, large.Most>>20))
}

// watchTopics looks now and then whether the topics are still what they have to
// be, until the context ends.
func (w *worker) watchTopics(ctx context.Context) {
	for {
		if pause.For(ctx, topicsInterval); ended(ctx) {
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

// setWaiting notes why the folding of a shard waits, nil if it does not.
func (w *worker) setWaiting(p int32, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.waiting, p)
		return
	}
	if w.waiting[p] == nil {
		w.log.Error("folding waits", "shard", p, "error", err)
	}
	w.waiting[p] = err
}

// waitsFor says why the folding of a shard waits, nil if it does not.
func (w *worker) waitsFor(p int32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting[p]
}

// countWaiting is how many shards wait.
func (w *worker) countWaiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting)
}

// problem says why the worker does not fold everything at present.
func (w *worker) problem() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(w.waiting) > 0:
		return w.waiting[slices.Min(slices.Collect(maps.Keys(w.waiting)))]
	case w.trouble.IsFresh():
		return w.trouble.Err
	case len(w.behind) > 0:
		return w.behind[slices.MinFunc(slices.Collect(maps.Keys(w.behind)), events.Log.Compare)]
	}
	return w.topics
}
