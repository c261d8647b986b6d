package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/archive"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/pipeline/claims"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/disk"
	"github.com/evenkeel/evenkeel/pipeline/links"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/pipeline/telemetry"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Parts are what a region is built of.
type Parts struct {
	FS       vfs.FS          // of the data directory; nil: the real one
	Bucket   objstore.Bucket // for backups; nil: none
	Copies   map[string]objstore.Bucket
	Registry prometheus.Registerer // of the region's metrics
	Log      *slog.Logger

	// Address is where the region's other nodes reach this one's API; empty: they
	// do not.
	Address string

	// Listen and Dial are the network between the region's nodes; nil: the system's.
	Listen func(network, address string) (net.Listener, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)

	// KafkaOpts are added to every Kafka client, e.g. a dialer for a virtual
	// network.
	KafkaOpts []kgo.Opt
}

// Region is one node of one region.
type Region struct {
	api.LinksNode // answered by links

	cfg     *config.Config
	parts   Parts
	origin  events.Origin
	log     *slog.Logger
	metrics *metrics
	clock   *nodeClock
	sources sources

	restoring sync.Mutex // one at a time

	name     string      // of this node
	lock     io.Closer   // on the data directory
	producer *kgo.Client // writes to the region's own logs
	claims   *claims.Log
	member   *claims.Member
	shards   *shardSet
	worker   *worker
	checks   *checks.Checker
	backups  *backupWatch      // nil: there is no bucket
	archiver *archive.Archiver // nil: there is no continuous backup
	touched  *touchedSets
	keeper   *keeper
	renewals *renewals
	links    *links.Links
	peers    *peers.Peers

	started  time.Time
	cancel   context.CancelFunc // ends what goes on in the background
	kill     context.CancelFunc // ends its Kafka clients, whatever they wait for
	running  sync.WaitGroup
	writes   sync.WaitGroup // of the producer; they end when it is closed, at the latest
	stopOnce func() error

	failed  chan struct{} // closed once failure is set
	failure error
}

var _ api.Node = (*Region)(nil)

const (
	startTimeout   = 30 * time.Second // how long Start tries to reach the region's own parts
	commitInterval = 5 * time.Second  // between commits of the group's offsets
	stopPatience   = 3 * time.Second  // how long Stop waits for a cluster that does not answer
)

// NewRegion prepares a region; Start starts it. A Region is started once.
func NewRegion(cfg *config.Config, parts Parts) *Region {
	if parts.FS == nil {
		parts.FS = vfs.Default
	}
	r := &Region{
		cfg:     cfg,
		parts:   parts,
		origin:  cfg.Origin(cfg.Region),
		log:     parts.Log.With("region", cfg.Region.String()),
		metrics: newMetrics(parts.Registry),
		failed:  make(chan struct{}),
		touched: newTouchedSets(cfg.Partitions),
	}
	r.stopOnce = sync.OnceValue(r.stop)
	return r
}

// Start brings the region up. On error everything that was started is stopped
// again.
func (r *Region) Start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Stop())
		}
	}()
	r.started = time.Now()
	if err := r.takeDir(); err != nil {
		return err
	}
	if err := r.checkBucket(ctx); err != nil {
		return err
	}
	if r.backups, err = newBackupWatch(r); err != nil {
		return err
	}
	if err := r.ensureTopics(ctx); err != nil {
		return err
	}
	opts, err := r.kafkaOpts(r.cfg.Region)
	if err != nil {
		return err
	}
	if r.producer, err = kgo.NewClient(append(opts, r.cfg.ProducerOpts()...)...); err != nil {
		return fmt.Errorf("kafka client of %s: %w", r.cfg.Region, err)
	}
	return r.run()
}

// takeDir takes the data directory for this process and looks whether what is in it
// can be used.
func (r *Region) takeDir() (err error) {
	if err := disk.MakeDirs(r.parts.FS, StateDir(r.cfg)); err != nil {
		return fmt.Errorf("state directory %s: %w", StateDir(r.cfg), err)
	}
	if r.lock, err = disk.Lock(r.parts.FS, r.cfg.DataDir); err != nil {
		return err
	}
	if err := checkShards(r.cfg, r.parts.FS); err != nil {
		return err
	}
	r.renewals = newRenewals(r.cfg, r.parts.FS)
	if err := r.renewals.load(); err != nil {
		return err
	}
	begin := r.beginnings()
	if err := errors.Join(begin.clean(), begin.lookAtAll()); err != nil {
		return err
	}
	r.name, err = nodeID(r.parts.FS, r.cfg.DataDir)
	return err
}

func (r *Region) beginnings() *beginnings {
	b := &beginnings{cfg: r.cfg, fs: r.parts.FS, log: r.log, node: r.name, renewals: r.renewals}
	b.attested = func(ctx context.Context) (*checks.Attested, error) {
		opts, err := r.kafkaOpts(r.cfg.Region)
		if err != nil {
			return nil, err
		}
		return checks.ReadAttested(ctx, r.cfg, opts)
	}
	if r.parts.Bucket != nil {
		b.bucket, b.outside = r.parts.Bucket, newOutsideTables(r.cfg, r.parts.Bucket, nil)
	}
	return b
}

// run wires the parts and starts what goes on in the background.
func (r *Region) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	life, kill := context.WithCancel(context.Background())
	r.cancel, r.kill = cancel, kill
	own, err := r.kafkaOpts(r.cfg.Region)
	if err != nil {
		return err
	}
	own = slices.Clip(append(own, kgo.WithContext(life))) // each client appends its own
	if err := r.wire(life, own); err != nil {
		return err
	}
	r.register()
	if err := r.startChecks(ctx, own); err != nil {
		return err
	}
	r.keeper.forget = r.checks.Forget
	r.launch(ctx)
	return nil
}

// wire makes the parts and has them know each other. The options are those of clients of the region's own
// cluster; all clients end with life.
func (r *Region) wire(life context.Context, own []kgo.Opt) (err error) {
	r.shards = newShardSet()
	begin := r.beginnings()
	r.keeper = newKeeper(r.cfg, begin, r.shards, r.log)
	r.peers = peers.New(r.name, r.parts.Dial)
	cfg := claims.Config{Topic: claims.Topic(r.cfg), Partitions: r.cfg.Partitions, Node: r.name, Address: r.parts.Address}
	r.claims, err = claims.New(own, cfg, func(key string, c claims.Claim) {
		r.keeper.claimed(key, c)
		r.links.Claimed(key, c)
	}, r.log)
	if err != nil {
		return err
	}
	begin.admin = r.claims.Admin()
	if r.clock, err = openClock(r.parts.FS, r.cfg.DataDir, r.cfg.Limits.MaxClockSkew); err != nil {
		return err
	}
	if r.worker, err = newWorker(own, r.cfg, r.shards, r.metrics, r.clock, r.log); err != nil {
		return err
	}
	if r.member, err = claims.NewMember(own, r.name, r.cfg, r.keeper.nudge, r.log); err != nil {
		return err
	}
	begin.mirrors = r.worker.mirrors
	r.keeper.claims, r.keeper.member, r.keeper.worker = r.claims, r.member, r.worker
	if r.keeper.reread, err = r.newRereader(own); err != nil {
		return err
	}
	if r.archiver, err = r.newArchiver(own); err != nil {
		return err
	}
	r.worker.claims, r.worker.damaged = r.claims, r.keeper.giveUp
	r.links, err = links.New(life, r.cfg, links.Parts{
		Own: own, Opts: r.kafkaOpts, Admin: r.adminOf, Claims: r.claims, Member: r.member, Peers: r.peers, Metrics: replicator.NewMetrics(r.parts.Registry), Log: r.log,
	})
	r.LinksNode = r.links
	return err
}

// register has the parts tell what they do whenever they are asked.
func (r *Region) register() {
	r.parts.Registry.MustRegister(newStateGauges(r), newLoadGauges(r), newModelGauges(r), links.NewGauges(r.links), newInPlaceGauges(r.shards))
	if r.archiver != nil {
		r.parts.Registry.MustRegister(archive.NewGauges(r.archiver))
	}
	if r.backups != nil {
		r.parts.Registry.MustRegister(newBackupGauges(r.backups))
	}
}

// launch starts the goroutines; they end with the context.
func (r *Region) launch(ctx context.Context) {
	r.running.Go(func() {
		if err := r.worker.run(ctx); err != nil {
			r.log.Error("the region cannot go on", "error", err)
			r.failure = err
			close(r.failed)
		}
	})
	parts := []func(context.Context){
		r.claims.Follow, r.claims.KeepConfirmed, r.member.Watch, r.keeper.run, r.worker.watchTopics, r.worker.watchBehind, r.worker.ends.watch, r.keepCommitted, r.announce, r.links.Run,
	}
	if r.archiver != nil {
		parts = append(parts, r.archiver.Run)
	}
	if r.backups != nil {
		parts = append(parts, r.backups.run, r.backups.watchDrills, r.backups.watchCopies, r.backups.watchPrunes, r.backups.watchSamples)
	}
	for _, part := range parts {
		r.running.Go(func() { part(ctx) })
	}
}

// announce tells the region's other nodes that this one is there.
func (r *Region) announce(ctx context.Context) {
	for !ended(ctx) {
		err := r.claims.Enter(ctx)
		if err == nil {
			return
		}
		r.log.Debug("other nodes were not told of this one", "error", err)
		pause.For(ctx, openRetryLeast)
	}
}

// keepCommitted commits how far the logs of the shards were read, again and again.
func (r *Region) keepCommitted(ctx context.Context) {
	for {
		if pause.For(ctx, commitInterval); ended(ctx) {
			return
		}
		r.member.Commit(r.places())
	}
}

// places is how far the logs of the shards were read, as Kafka counts it, and how far their states are. Both
// go by one look at a shard: what it folds meanwhile would be taken for nothing to fold.
func (r *Region) places() map[events.Log]claims.Place {
	open, release := r.shards.use(r.cfg.Shards())
	defer release()
	places := map[events.Log]claims.Place{}
	for p, shard := range open {
		vector := events.VectorOf(shard.Logs())
		for _, rt := range r.cfg.Routes() {
			l := rt.Log(p)
			if read := r.worker.placeOf(l, vector[l]); read > 0 {
				places[l] = claims.Place{State: vector[l], Read: read}
			}
		}
	}
	return places
}

// Failed is closed when the region cannot go on; Failure then says why.
func (r *Region) Failed() <-chan struct{} { return r.failed }

// Failure is the error after which the region cannot go on, nil if it can.
func (r *Region) Failure() error {
	select {
	case <-r.failed:
		return r.failure
	default:
		return nil
	}
}

// Stop ends everything in order and flushes the state. Nothing else may be
// called any more. It may be called again, and on a region that did not start.
func (r *Region) Stop() error { return r.stopOnce() }

func (r *Region) stop() error {
	if r.cancel != nil {
		r.cancel()
		defer r.kill()
		defer time.AfterFunc(stopPatience, r.kill).Stop()
	}
	r.leave()
	r.running.Wait()
	var err error
	if r.worker != nil {
		r.worker.client.Close()
		defer r.worker.mirrors.Close() // until shards are closed logs may be read again
	}
	if r.claims != nil {
		r.claims.Close()
	}
	if r.checks != nil {
		r.checks.Close()
	}
	if r.producer != nil {
		r.producer.Close()
	}
	r.writes.Wait()
	if r.clock != nil {
		err = errors.Join(err, r.clock.close())
	}
	if r.peers != nil {
		r.peers.Close()
	}
	if r.shards != nil {
		err = errors.Join(err, r.keeper.closeAll())
	}
	if r.lock != nil {
		err = errors.Join(err, r.lock.Close())
	}
	return err
}

// leave tells the group, and the other nodes, that this one stops, so that they
// take over at once.
func (r *Region) leave() {
	if r.member == nil {
		return
	}
	r.member.Close(r.places())
	if err := r.claims.Leave(); err != nil {
		r.log.Debug("other nodes were not told that this one stops", "error", err)
	}
}

// kafkaOpts are the options of a client of a region's cluster.
func (r *Region) kafkaOpts(region events.Region) ([]kgo.Opt, error) {
	logger := kgo.WithLogger(telemetry.KafkaLogger(r.log.With("cluster", region.String())))
	return r.cfg.KafkaOpts(region, append([]kgo.Opt{logger}, r.parts.KafkaOpts...)...)
}

func (r *Region) checkBucket(ctx context.Context) error {
	if r.parts.Bucket == nil {
		return nil
	}
	if err := r.parts.Bucket.Check(ctx); err != nil {
		return fmt.Errorf("backups of %s: %w", r.cfg.Region, err)
	}
	return nil
}
