package checks

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// FoldVersion numbers what folds make of events, of all rules together. Raise it
// when the same record leads to other bytes than before: while regions run
// different versions their states differ and are not compared. It is of the program, not
// of the state that it finds; divergence/DESIGN.md says what follows.
const FoldVersion = 3

// formatVersion is the version of everything that a comparison of two regions'
// folds depends on: the chain, the digest, the merge rule and its slices.
func formatVersion(rule string) uint32 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", rule, FoldVersion)
	return digest.ChainVersion<<24 | digest.SumVersion<<16 | h.Sum32()&0xffff
}

// Attester attests the region's own logs in the shards that this node has.
type Attester struct {
	cfg     *config.Config
	origin  events.Origin
	client  *kgo.Client
	held    Holder // nil: another node has it
	lags    Lags
	metrics *Metrics
	log     *slog.Logger

	mu    sync.Mutex
	paces map[events.Log]*attestPace
}

// attestPace is when a log was attested last. One attestation of a log is under way
// at a time, so a cluster that does not answer costs no memory.
type attestPace struct {
	divergence.Pace
	epoch    events.Epoch
	underWay bool
}

// Lags tells whether a log that is folded up to an offset has had more for a while, or its fold has stopped.
type Lags func(log events.Log, next int64) bool

// NewAttester makes an Attester that writes with the client.
func NewAttester(cfg *config.Config, client *kgo.Client, held Holder, lags Lags, m *Metrics, log *slog.Logger) *Attester {
	return &Attester{
		cfg: cfg, origin: cfg.Origin(cfg.Region), client: client, held: held, lags: lags, metrics: m, log: log, paces: map[events.Log]*attestPace{},
	}
}

// Run attests until the context ends.
func (a *Attester) Run(ctx context.Context) {
	tick := time.NewTicker(divergence.LookInterval)
	defer tick.Stop()
	for {
		a.attest(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// attest attests every log of this node's shards for which it is time.
func (a *Attester) attest(ctx context.Context, now time.Time) {
	for p := range a.cfg.Partitions {
		shard, release := a.held(p)
		if shard != nil {
			a.attestShard(ctx, shard, p, now)
		}
		release()
	}
}

func (a *Attester) attestShard(ctx context.Context, shard *projections.Shard, p int32, now time.Time) {
	for stream := range a.cfg.Streams {
		log := events.Log{Origin: a.origin, Stream: stream, Partition: p}
		if err := a.attestLog(ctx, shard, log, now); err != nil {
			a.log.Debug("log was not attested", "log", log.String(), "error", err)
		}
	}
}

func (a *Attester) attestLog(ctx context.Context, shard *projections.Shard, log events.Log, now time.Time) error {
	if _, _, due := a.due(log, shard.Epoch(), shard.Next(log), now); !due { // as it is at most looks
		return nil
	}
	applied, next := events.ContextOf(shard.Logs(), log)
	epoch := shard.Epoch()
	pace, offset, due := a.due(log, epoch, next, now)
	if !due {
		return nil
	}
	mark, err := shard.At(log, offset)
	if err != nil {
		return err // the next one is newer
	}
	record, err := divergence.Attestation{
		Log: log, Mark: mark, Format: formatVersion(a.cfg.Streams[log.Stream].Merge), Epoch: epoch, Applied: applied, Made: now,
		Lagging: a.lags(log, next), Held: a.cfg.HoldsTombstonesFor(), Group: a.cfg.Group, Topic: a.cfg.Streams[log.Stream].Topic,
	}.Record()
	if err != nil {
		return err
	}
	record.Topic = a.cfg.AttestationTopic()
	a.mu.Lock()
	pace.Attested(offset, now)
	pace.underWay = true
	a.mu.Unlock()
	a.client.TryProduce(ctx, record, func(_ *kgo.Record, err error) { a.attested(pace, err) })
	return nil
}

// due tells whether and where a log is to be attested.
func (a *Attester) due(log events.Log, epoch events.Epoch, next int64, now time.Time) (pace *attestPace, offset int64, due bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pace, ok := a.paces[log]
	if !ok || pace.epoch != epoch {
		pace = &attestPace{epoch: epoch}
		a.paces[log] = pace
	}
	if pace.underWay {
		return nil, 0, false
	}
	offset, due = pace.Due(next, projections.MarkEvery, now)
	return pace, offset, due
}

func (a *Attester) attested(pace *attestPace, err error) {
	a.mu.Lock()
	pace.underWay = false
	if err != nil {
		pace.Pace = divergence.Pace{} // due again at once
	}
	a.mu.Unlock()
	if err != nil {
		a.log.Debug("attestation was not written", "error", err)
		return
	}
	a.metrics.written.Inc()
}
