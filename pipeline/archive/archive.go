package archive

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/orders"
	"github.com/evenkeel/evenkeel/replicator/inflate"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Config is what is archived, and how.
type Config struct {
	Region     events.Region
	Partitions int32
	Software   string                  // name and version, for people
	Topics     map[string]config.Route // of the region's cluster: logs and mirrors
	Sealer     *seal.Sealer

	// Limits say for each stream how long a record that was read waits until
	// its segment is closed.
	Limits map[events.Stream]time.Duration

	// BatchBytesMost is how many bytes a batch may have decompressed.
	BatchBytesMost int64

	// NewChain makes a function as segment.Config.Chain wants it, for one goroutine.
	NewChain func() func(events.Digest, *kgo.Record) events.Digest
}

// Bucket is where the archive is.
type Bucket interface {
	objstore.Reader
	objstore.Creator
}

// Node is what an archiver asks the node that it runs on.
type Node interface {
	// Archives says whether this node is to archive a shard, Sure whether that can be
	// relied on: nil, or why not.
	Archives(shard int32) bool
	Sure() error

	// Epoch is the one under which the shard is owned, 0 if it is not yet.
	Epoch(shard int32) events.Epoch

	// Folded waits until the shard has folded everything before a cut, if it is open
	// here and as long as the context allows. Mark is what it has made of a log.
	Folded(ctx context.Context, shard int32, cut events.Vector)
	Mark(l events.Log, offset int64) (events.Mark, bool)

	// HasRead says whether what one of the region's own logs had between two offsets is known to be nothing to
	// fold, nor to archive, though it may be gone.
	HasRead(ctx context.Context, l events.Log, from, to int64) (bool, error)

	// Touched is told of every record of a shard that is read; nil: nobody wants to know.
	Touched(shard int32) Touched
}

// Touched is told what is read of logs, in order: from where on, and each record. What
// lies between a place and the one before it is not told when Begin skips it.
type Touched interface {
	Begin(l events.Log, offset int64)
	Note(l events.Log, r *kgo.Record)
}

// Offsets translates between the offsets of logs and those of the topics that hold
// them in this region.
type Offsets interface {
	// Begin is where in the topic to read what follows an offset of the log.
	Begin(ctx context.Context, l events.Log, next int64) (int64, error)

	// InTopic is Begin for an offset up to which records of the log have been read here.
	InTopic(ctx context.Context, l events.Log, next int64) (int64, error)

	// InLog is the offset in the log of what is at an offset of the topic, or will be.
	InLog(ctx context.Context, l events.Log, offset int64) (int64, error)

	// ToLog gives records that were read from the topic the offsets that they have in
	// the log; the topic ends at end or behind it. events.KindRefused: they have none.
	ToLog(ctx context.Context, l events.Log, records []*kgo.Record, end int64) error
}

// The bounds of what is in memory: records that were read and are not in the bucket. A
// shard or a node that has reached its bound reads on when it is well below it. One poll
// comes to it, and what the client itself has fetched.
const (
	nodeBytesMost    = 128 << 20
	roomBytesMost    = 64 << 20 // of what the client has fetched
	segmentBytesMost = 8 << 20  // of the records in a segment, before they are compressed
	segmentBytesFew  = 256 << 10
	heldSegments     = 3 // that a shard may hold: one on its way, one that waits, and what comes
)

const (
	pollRecords  = 5_000
	lookInterval = 500 * time.Millisecond // between looks for shards that have come
	troubleStays = 15 * time.Second       // longer than the client's pauses between tries
	pauseLeast   = 200 * time.Millisecond // between tries
	pauseMost    = 5 * time.Second
	stopPatience = 3 * time.Second // for the bucket, at the end
)

// Archiver archives the shards that are its node's.
type Archiver struct {
	cfg     Config
	bucket  Bucket
	node    Node
	offsets Offsets
	metrics *Metrics
	log     *slog.Logger
	opts    []kgo.Opt
	client  *kgo.Client
	admin   *kadm.Client
	orders  *orders.Queue
	ids     map[string]kadm.TopicID // of its topics; of the goroutine that watches
	lasts   chan struct{}           // has one of each shard that reads what is archived last

	tasks sync.WaitGroup

	mu      sync.Mutex
	shards  map[int32]*shard
	trouble error // that the client told last
	told    time.Time
}

// New makes an archiver that reads with a client of the given options.
func New(opts []kgo.Opt, cfg Config, bucket Bucket, node Node, offsets Offsets, m *Metrics, log *slog.Logger) (*Archiver, error) {
	client, err := kgo.NewClient(append(append(slices.Clip(opts), inflate.Opts(roomBytesMost, cfg.BatchBytesMost)...),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // or it would not be known that a log has nothing more
		// A topic that comes to those that are read is asked for when the broker has
		// answered the question before.
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.FetchMaxBytes(8<<20),
		kgo.MaxConcurrentFetches(2),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", cfg.Region, err)
	}
	return &Archiver{
		cfg: cfg, bucket: bucket, node: node, offsets: offsets, metrics: m, log: log, opts: opts, client: client, admin: kadm.NewClient(client),
		orders: orders.New(int(cfg.Partitions)), shards: map[int32]*shard{}, ids: map[string]kadm.TopicID{}, lasts: make(chan struct{}, lastsAtOnce),
	}, nil
}

// Run archives until the context ends; what was gathered by then is appended, if the
// bucket answers soon.
func (a *Archiver) Run(ctx context.Context) {
	defer a.client.Close()
	a.tasks.Go(func() { a.read(ctx) })
	a.tasks.Go(func() { a.watch(ctx) })
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		for p := range a.cfg.Partitions {
			if a.node.Archives(p) {
				a.begin(ctx, p)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	a.tasks.Wait()
}

// begin begins to archive a shard, unless that is under way.
func (a *Archiver) begin(ctx context.Context, p int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shards[p] != nil {
		return
	}
	s := newShard(a, p)
	a.shards[p] = s
	a.tasks.Go(func() {
		s.run(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.shards, p)
	})
}

func (a *Archiver) shard(p int32) *shard {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shards[p]
}

// all are the shards that are archived here, in order.
func (a *Archiver) all() (shards []*shard) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(a.shards)) {
		shards = append(shards, a.shards[p])
	}
	return shards
}

// Problems says what needs an eye.
func (a *Archiver) Problems() (problems []string) {
	a.mu.Lock()
	if a.trouble != nil && time.Since(a.told) < troubleStays {
		problems = append(problems, fmt.Sprintf("the archive cannot read logs: %s", a.trouble))
	}
	a.mu.Unlock()
	for _, s := range a.all() {
		problems = append(problems, s.problems()...)
	}
	return append(problems, a.lagging()...)
}

// Held is how many bytes were read and are not in the bucket yet.
func (a *Archiver) Held() (bytes int64) {
	for _, s := range a.all() {
		bytes += s.held()
	}
	return bytes
}

// segmentBytes is how large the records of a segment get: less if many shards share
// the node's memory.
func (a *Archiver) segmentBytes() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	share := nodeBytesMost / int64((heldSegments+1)*max(1, len(a.shards)))
	return min(max(share, segmentBytesFew), segmentBytesMost)
}
