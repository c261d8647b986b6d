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
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
)

const (
	workerPollRecords = 10_000 // folded in one batch per shard
	commitInterval    = 5 * time.Second
	commitTimeout     = 1 * time.Second
	diskFullPause     = 2 * time.Second
	errorPause        = 200 * time.Millisecond
	troubleStays      = 15 * time.Second // longer than the client's pauses between tries

	// A node that is gone for longer than this loses its place in the group.
	sessionTimeout    = 10 * time.Second
	heartbeatInterval = 1 * time.Second
)

// worker reads the region's logs and mirrors as a member of its consumer group
// and has the shards fold them.
type worker struct {
	cfg     *config.Config
	client  *kgo.Client
	member  string // name in the group
	shards  *shardSet
	routes  map[string]route
	metrics *metrics
	clock   *nodeClock
	pace    *pace
	log     *slog.Logger

	committing atomic.Bool

	mu       sync.Mutex
	assigned map[string]int // topic → partitions that this member has
	paused   map[events.Log]bool
	waiting  error         // why folding waits, nil if it does not
	trouble  *fetchTrouble // the last that was told; nil if there was none since the group's last assignment
}

func newWorker(opts []kgo.Opt, member string, cfg *config.Config, shards *shardSet, m *metrics, clock *nodeClock, log *slog.Logger) (*worker, error) {
	w := &worker{
		cfg: cfg, member: member, shards: shards, routes: routes(cfg), metrics: m, clock: clock, pace: newPace(), log: log,
		assigned: map[string]int{}, paused: map[events.Log]bool{},
	}
	var err error
	w.client, err = kgo.NewClient(append(slices.Clone(opts),
		kgo.ConsumerGroup(cfg.Group),
		// Killed and started again, a node goes on at once, rather than after
		// the session timeout.
		kgo.InstanceID(member),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval),
		kgo.ConsumeTopics(slices.Sorted(maps.Keys(w.routes))...),
		// All topics have the same number of partitions, so the range
		// assignor gives partition i of all of them to one member.
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.AdjustFetchOffsetsFn(w.startOffsets),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, topics map[string][]int32) { w.assign(topics, +1) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, topics map[string][]int32) { w.assign(topics, -1) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, topics map[string][]int32) { w.assign(topics, -1) }),
		kgo.BlockRebalanceOnPoll(),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
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

// startOffsets lets the shards' vectors decide where reading begins: they
// changed in one step with the state, the group's offsets did not. Partitions that
// a topic was given since the start have no shard and are not read.
func (w *worker) startOffsets(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for topic, partitions := range offsets {
		for p := range partitions {
			if p >= w.cfg.Partitions {
				delete(partitions, p)
				continue
			}
			partitions[p] = kgo.NewOffset().At(w.shards.all[p].Next(w.routes[topic].log(p)))
		}
	}
	return offsets, nil
}

func (w *worker) assign(topics map[string][]int32, sign int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for topic, partitions := range topics {
		w.assigned[topic] += sign * len(partitions)
	}
	if sign > 0 {
		w.trouble = nil
	}
}

// run reads and folds until the context ends. An error means that the state
// cannot be written or is corrupt.
func (w *worker) run(ctx context.Context) error {
	lastCommit := time.Now()
	for {
		fetches := w.pace.poll(w.shards.numbers(), w.routes, func() kgo.Fetches { return w.client.PollRecords(ctx, workerPollRecords) })
		if ended(ctx) {
			w.client.AllowRebalance()
			return nil
		}
		wrong := w.checkFetchErrors(fetches)
		err := w.fold(ctx, w.runs(fetches))
		w.client.AllowRebalance()
		if err != nil {
			return err
		}
		if wrong {
			pause(ctx, errorPause)
		}
		if time.Since(lastCommit) >= commitInterval {
			w.commit()
			lastCommit = time.Now()
		}
	}
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// runs sorts fetched records by shard.
func (w *worker) runs(fetches kgo.Fetches) map[int32][]projections.Run {
	runs := map[int32][]projections.Run{}
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		rt, known := w.routes[ftp.Topic]
		if known && len(ftp.Records) > 0 {
			runs[ftp.Partition] = append(runs[ftp.Partition], projections.Run{Log: rt.log(ftp.Partition), Records: ftp.Records})
		}
	})
	return runs
}

func (w *worker) fold(ctx context.Context, runs map[int32][]projections.Run) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for p, shardRuns := range runs {
		g.Go(func() error { return w.foldShard(ctx, p, w.shards.all[p], shardRuns) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	w.pauseBlocked()
	return nil
}

// foldShard applies runs to one shard; while the disk is full it waits.
func (w *worker) foldShard(ctx context.Context, p int32, shard *projections.Shard, runs []projections.Run) error {
	for {
		done, err := w.pace.apply(p, shard, runs)
		var full *projections.DiskFullError
		if !errors.As(err, &full) {
			if err == nil {
				w.clock.Observe(done.MaxClock)
				w.metrics.applied(done)
			}
			w.setWaiting(nil)
			return err
		}
		w.setWaiting(full)
		if pause(ctx, diskFullPause); ended(ctx) {
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
	for _, shard := range w.shards.all {
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
		case known && fe.Partition >= 0 && (errors.As(fe.Err, &loss) || errors.Is(fe.Err, kerr.OffsetOutOfRange)):
			shard, l := w.shards.all[fe.Partition], rt.log(fe.Partition)
			shard.Block(l, fmt.Errorf("%s: topic %s of %s does not have offset %d any more (%w); restore this region from a backup that covers what is missing",
				l, fe.Topic, w.cfg.Region, shard.Next(l), fe.Err))
		case fe.Topic == "":
			trouble = fmt.Errorf("group %s of %s: %w", w.cfg.Group, w.cfg.Region, fe.Err)
		default:
			trouble = fmt.Errorf("read topic %s, partition %d of %s: %w", fe.Topic, fe.Partition, w.cfg.Region, fe.Err)
		}
	}
	if trouble == nil {
		return false
	}
	w.mu.Lock()
	known := w.trouble.isFresh()
	w.trouble = &fetchTrouble{trouble, time.Now()}
	w.mu.Unlock()
	if !known {
		w.log.Warn("logs cannot be read and are tried again", "error", trouble)
	}
	return true
}

// fetchTrouble is an error of the client and when it was told. As long as it
// lasts the client tells it again and again; that it is over it does not tell.
type fetchTrouble struct {
	err error
	at  time.Time
}

func (t *fetchTrouble) isFresh() bool { return t != nil && time.Since(t.at) < troubleStays }

// commit stores the shards' vectors as the group's offsets, for tools that show
// lag. Nothing depends on it, so nothing waits for it.
func (w *worker) commit() {
	if w.committing.Swap(true) {
		return // the last one is still under way
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	w.client.CommitOffsets(ctx, w.offsets(), func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		cancel()
		w.committed(err)
		w.committing.Store(false)
	})
}

func (w *worker) committed(err error) {
	if err != nil {
		w.log.Debug("group offsets were not committed", "error", err)
	}
}

func (w *worker) offsets() map[string]map[int32]kgo.EpochOffset {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, st := range w.shards.states() {
		topic := topicOf(w.cfg, st.Log)
		if offsets[topic] == nil {
			offsets[topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[topic][st.Log.Partition] = kgo.EpochOffset{Epoch: -1, Offset: st.Next}
	}
	return offsets
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
	if w.waiting != nil {
		return w.waiting
	}
	if w.trouble.isFresh() {
		return w.trouble.err
	}
	for topic := range w.routes {
		n := w.assigned[topic]
		if n > int(w.cfg.Partitions) {
			return fmt.Errorf("topic %s of %s was given %d partitions, the configuration says %d: events in the new ones are not folded, and keys have moved", topic, w.cfg.Region, n, w.cfg.Partitions)
		}
		if n != int(w.cfg.Partitions) {
			return fmt.Errorf("group %s has assigned %d of %d partitions of topic %s to this node", w.cfg.Group, n, w.cfg.Partitions, topic)
		}
	}
	return nil
}

// close ends the membership. A static member keeps its place when it goes
// silent, so that a restart after a crash is quick; one that stops on purpose says
// so, and nobody waits for it.
func (w *worker) close() {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	w.client.CommitOffsetsSync(ctx, w.offsets(), func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		w.committed(err)
	})
	_, err := kadm.NewClient(w.client).LeaveGroup(ctx, kadm.LeaveGroup(w.cfg.Group).InstanceIDs(w.member).Reason("node stops"))
	if err != nil {
		w.log.Debug("group was not told that the node stops", "error", err)
	}
	w.client.CloseAllowingRebalance()
}
