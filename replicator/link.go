package replicator

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/follow"
	"github.com/evenkeel/evenkeel/replicator/ledger"
)

// Config is what a link does.
type Config struct {
	Origin      events.Origin // whose logs
	Destination events.Region

	Topics follow.Patterns // of the logs, in the origin's cluster
	Groups follow.Patterns // whose offsets are kept in step; zero: none

	// Internal tells names of topics that are never mirrored by a pattern; see
	// follow.Internal.
	Internal func(topic string) bool

	// Overrides are configs of mirrors that the operator sets, instead of
	// following the source's.
	Overrides map[string]string

	// Principal is whom the destination knows the link as, e.g. "User:link".
	// With it ACLs follow the source's, and nobody else may write mirrors. Empty:
	// ACLs are left alone.
	Principal string

	// Relays are the peers to take from what is missing while the origin cannot be
	// reached.
	Relays []Relay

	// WindowBytes is how much is fetched ahead at most, but for one batch a connection
	// (of two to each broker). What has to be framed anew is in memory besides: up to as
	// much again. 0: DefaultWindowBytes.
	WindowBytes        int64
	RateBytesPerSecond int64 // read from the source at most, on average; 0: no limit
}

// DefaultWindowBytes is how much a link fetches ahead.
const DefaultWindowBytes = 64 << 20

// LinkTopic is the topic in every destination in which its links keep what the
// mirrors themselves cannot tell.
const LinkTopic = "evenkeel.links"

const (
	requestTimeout  = 10 * time.Second
	topicsInterval  = 5 * time.Second  // between looks for new topics and partitions
	groupsInterval  = 10 * time.Second // between passes over groups
	aclsInterval    = time.Minute
	checkInterval   = 10 * time.Second
	backoffLeast    = 100 * time.Millisecond
	backoffMost     = 5 * time.Second
	endPatience     = requestTimeout  // for answers, when the link ends
	endNotePatience = 2 * time.Second // for a last note in the link topic
	metadataMinAge  = 250 * time.Millisecond
)

// Link mirrors the logs of one origin into one destination.
type Link struct {
	cfg     Config
	source  []kgo.Opt
	dest    []kgo.Opt
	metrics *Metrics
	log     *slog.Logger

	mu    sync.Mutex
	mover *mover // nil: not connected yet, or ended
	err   error  // why there is none
	since time.Time
	told  bool // that the link runs
	last  []PartitionStatus
}

var (
	errNotStarted = errors.New("not started")
	errEnded      = errors.New("ended")
)

// NewLink makes a link from the cluster that the source options reach to the
// one that the dest options reach.
func NewLink(source, dest []kgo.Opt, cfg Config, metrics *Metrics, log *slog.Logger) *Link {
	cfg.WindowBytes = cmp.Or(cfg.WindowBytes, DefaultWindowBytes)
	metrics.begin(cfg.Origin)
	return &Link{
		cfg: cfg, source: source, dest: dest, metrics: metrics,
		log: log.With("link", cfg.name()), err: errNotStarted, since: time.Now(),
	}
}

func (c Config) name() string { return linkName(c.Origin, c.Destination) }

func linkName(o events.Origin, dest events.Region) string { return o.String() + "→" + dest.String() }

const fromOrigin = -1 // instead of the index of a relay

// Run mirrors until the context ends; whatever fails meanwhile is tried again,
// with growing pauses. It returns only after every write under way has been
// answered, or given up after requestTimeout.
func (l *Link) Run(ctx context.Context) {
	pause := backoffLeast
	for source := fromOrigin; ctx.Err() == nil; {
		began := time.Now()
		err := l.run(ctx, source)
		if ctx.Err() != nil {
			break
		}
		l.disconnected(err)
		source = l.nextSource(source, err)
		if time.Since(began) > checkInterval {
			pause = backoffLeast
		}
		sleep(ctx, pause)
		pause = min(2*pause, backoffMost)
	}
	l.disconnected(errEnded)
	l.log.Info("link has ended")
}

// run connects and mirrors until the context ends, or until it finds out that
// it cannot connect.
func (l *Link) run(ctx context.Context, from int) error {
	name, opts := l.cfg.Origin.String(), l.source
	if from >= 0 {
		name, opts = l.cfg.Relays[from].Region.String(), l.cfg.Relays[from].Opts
	}
	source, err := newCluster(name, opts)
	if err != nil {
		return err
	}
	defer source.close()
	dest, err := newCluster(l.cfg.Destination.String(), l.dest)
	if err != nil {
		return err
	}
	defer dest.close()
	book, err := openLedger(ctx, l.dest, l.cfg.Origin, l.cfg.Destination)
	if err != nil {
		return err
	}
	defer book.Close()
	relay, err := l.openRelay(ctx, from)
	if err != nil {
		return err
	}
	if relay != nil {
		defer relay.book.Close()
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var running sync.WaitGroup
	m := &mover{
		origin: l.source, relay: relay, heardAt: time.Now(),
		cfg: l.cfg, end: end, link: l.cfg.name(), source: source, dest: dest, ledger: book, metrics: l.metrics, log: l.log,
		serve: func(run func(context.Context)) { running.Go(func() { run(ctx) }) },
		kick:  make(chan struct{}, 1), room: make(chan struct{}), resuming: make(chan struct{}, 1),
		mark:    newMark(),
		limiter: &limiter{bytesPerSecond: l.cfg.RateBytesPerSecond},
		parts:   map[partition]*part{}, fetchers: map[lane]*fetcher{}, appenders: map[lane]*appender{},
		troubles: map[string]error{}, tasks: newTasks(),
	}
	l.connected(m)
	m.scribe = newScribe(m)
	m.serve(m.scribe.run)
	m.serve(m.locateParts)
	if len(l.cfg.Relays) > 0 {
		m.serve(m.watchSource)
	}
	m.tend(ctx)
	running.Wait()
	m.noteReached(context.WithoutCancel(ctx), endNotePatience)
	return context.Cause(ctx)
}

// openLedger opens the link topic of a region that mirrors an origin.
func openLedger(ctx context.Context, opts []kgo.Opt, origin events.Origin, region events.Region) (*ledger.Ledger, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	book, err := ledger.Open(ctx, append(slices.Clone(opts), kgo.MetadataMinAge(metadataMinAge)), ledger.Config{
		Topic: LinkTopic, Link: linkName(origin, region), Instance: newInstance(), Replication: -1,
	})
	if err != nil {
		return nil, fmt.Errorf("link topic %s of %s: %w", LinkTopic, region, err)
	}
	return book, nil
}

// openRelay opens what is needed of a peer to take its mirrors for the origin's
// logs; nil for the origin itself.
func (l *Link) openRelay(ctx context.Context, from int) (*relaying, error) {
	if from < 0 {
		return nil, nil
	}
	peer := l.cfg.Relays[from]
	book, err := openLedger(ctx, peer.Opts, l.cfg.Origin, peer.Region)
	if err != nil {
		return nil, err
	}
	return &relaying{region: peer.Region, book: book, began: time.Now()}, nil
}

// newInstance names one run of a link among others that may be at work by
// mistake.
func newInstance() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails, by its contract
	return hex.EncodeToString(id[:])
}

// newMark is by how many ms the batches that one run of a link plans are marked: up
// to 24 days, so that the timestamps in them stay short.
func newMark() int64 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	return 1 + int64(binary.BigEndian.Uint32(b[:])>>1)
}
