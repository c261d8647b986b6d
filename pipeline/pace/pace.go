package pace

import (
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/projections"
)

const (
	// PollRecords is how many records a worker polls at the most, to be folded in one batch
	// per shard.
	PollRecords = 10_000

	// window is how long what a shard's time went into is added up before it is
	// begun anew.
	window = 10 * time.Second

	// applyBytesMost bounds the records of one batch, and so the memory that
	// folding them takes; a larger record is a batch of its own.
	applyBytesMost = 16 << 20
)

// Meter measures what the time of a worker and its shards goes into. The worker has
// it poll and apply; as a hook of the client it sees when brokers answer.
type Meter struct {
	mu      sync.Mutex
	fetched time.Time // last answer of a broker to a fetch; zero if there was none
	polling time.Time // begin of the poll that goes on; zero if there is none
	shards  map[int32]*shardPace
}

var _ kgo.HookBrokerRead = (*Meter)(nil)

// shardPace is what the time of a shard went into.
type shardPace struct {
	now, before effort               // of this window and the one before
	total       effort               // since the start
	behind      map[events.Log]int64 // records of each log that were not fetched yet, as of its last fetch
	diskFull    bool
	isApart     bool // it waits for the bucket, and folds by itself
}

// effort is where time went, from a moment on.
type effort struct {
	since      time.Time
	waiting    time.Duration // for records
	folding    time.Duration
	committing time.Duration // without being stalled
	stalled    time.Duration
}

// New makes a Meter that has measured nothing.
func New() *Meter { return &Meter{shards: map[int32]*shardPace{}} }

// OnBrokerRead implements kgo.HookBrokerRead.
func (p *Meter) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if kmsg.Key(key) != kmsg.Fetch || err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetched = time.Now()
}

// Poll polls, and takes note of how long it took and how far behind that leaves
// whom.
func (p *Meter) Poll(shards []int32, routes map[string]config.Route, do func() kgo.Fetches) kgo.Fetches {
	begun := time.Now()
	p.mu.Lock()
	p.polling = begun
	p.mu.Unlock()
	fetches := do()
	took := time.Since(begun)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.polling = time.Time{}
	for _, n := range shards {
		s := p.shard(n)
		s.spend(effort{waiting: took})
	}
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		if rt, known := routes[ftp.Topic]; known && len(ftp.Records) > 0 {
			last := ftp.Records[len(ftp.Records)-1].Offset
			p.shard(ftp.Partition).behind[rt.Log(ftp.Partition)] = max(0, ftp.HighWatermark-last-1)
		}
	})
	return fetches
}

// Apply has a shard fold runs, in batches of bounded size.
func (p *Meter) Apply(n int32, shard *projections.Shard, runs []projections.Run) (done projections.Applied, err error) {
	for _, part := range Split(runs, applyBytesMost) {
		begun, before := time.Now(), shard.Effort()
		applied, err := shard.Apply(part)
		p.applied(n, time.Since(begun), before, shard.Effort(), err)
		if err != nil {
			return done, err
		}
		done = done.Add(applied)
	}
	return done, nil
}

func (p *Meter) applied(n int32, took time.Duration, before, after projections.Effort, err error) {
	var full *projections.DiskFullError
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shard(n)
	committing, stalled := after.Committing-before.Committing, after.Stalled-before.Stalled
	s.spend(effort{folding: max(0, took-committing), committing: max(0, committing-stalled), stalled: stalled})
	s.diskFull = errors.As(err, &full)
}

// SetApart notes whether the other shards go on without one, because it waits for the bucket.
func (p *Meter) SetApart(n int32, is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shard(n).isApart = is
}

// Forget ends the account of a shard that is not here any more.
func (p *Meter) Forget(n int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.shards, n)
}

func (p *Meter) shard(n int32) *shardPace {
	s, ok := p.shards[n]
	if !ok {
		s = &shardPace{behind: map[events.Log]int64{}, now: effort{since: time.Now()}, total: effort{since: time.Now()}}
		p.shards[n] = s
	}
	return s
}

func (s *shardPace) spend(e effort) {
	if time.Since(s.now.since) > window {
		s.before, s.now = s.now, effort{since: time.Now()}
	}
	s.now.add(e)
	s.total.add(e)
}

// recent is what the time of the last seconds went into, up to this moment.
func (s *shardPace) recent(polling time.Time) effort {
	var e effort
	if time.Since(s.now.since) <= 2*window {
		e.add(s.now)
		e.add(s.before)
	}
	if !polling.IsZero() {
		e.waiting += time.Since(polling)
	}
	return e
}

func (e *effort) add(f effort) {
	e.waiting += f.waiting
	e.folding += f.folding
	e.committing += f.committing
	e.stalled += f.stalled
}

// Load is what is known of a shard.
func (p *Meter) Load(n int32, shard *projections.Shard) api.ShardLoad {
	storage, isBlocked := shard.Storage(), len(shard.Blocked()) > 0
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shard(n)
	pr := pressure{isBlocked: isBlocked, diskFull: s.diskFull, isApart: s.isApart, isStalled: storage.IsStalled, sublevels: storage.L0Sublevels, recent: s.recent(p.polling)}
	for _, n := range s.behind {
		pr.behind += n
	}
	pr.isCut = p.fetched.IsZero() || time.Since(p.fetched) > fetchAgeMost
	return api.ShardLoad{
		Pace: pr.word(), Behind: pr.behind,
		WaitSeconds: s.total.waiting.Seconds(), FoldSeconds: s.total.folding.Seconds(),
		CommitSeconds: s.total.committing.Seconds(), StallSeconds: s.total.stalled.Seconds(),
		L0Sublevels: storage.L0Sublevels, CompactionDebtBytes: storage.CompactionDebtBytes,
	}
}

const (
	// fetchAgeMost is how old the last answer of a broker may be: one to a fetch
	// without records comes every five seconds.
	fetchAgeMost = 15 * time.Second

	// behindMost is what a shard may be behind and still be said to keep up: two
	// polls.
	behindMost = 2 * PollRecords

	sublevelsMost = 20 // of Pebble's level 0; at 100 it stops writes
)

// pressure is what the word for a shard's pace is decided from.
type pressure struct {
	isBlocked bool
	diskFull  bool
	isApart   bool
	isCut     bool  // no broker has answered a fetch of late
	behind    int64 // records, as of the last fetches
	isStalled bool
	sublevels int
	recent    effort
}

// word is what holds a shard up, if anything does.
func (p pressure) word() string {
	e := p.recent
	storing := e.committing + e.stalled
	busy := e.folding + storing
	switch {
	case p.isBlocked:
		return api.PaceBlocked
	case p.diskFull:
		return api.PaceDiskFull
	case p.isApart:
		return api.PaceBucket
	case p.isStalled || p.sublevels > sublevelsMost || 4*e.stalled > busy+e.waiting && e.stalled > 0:
		return api.PacePebble
	case p.isCut && busy <= e.waiting:
		return api.PaceNetwork
	case p.behind <= behindMost:
		return api.PaceKeepingUp
	case busy < e.waiting:
		return api.PaceNetwork
	case storing > e.folding:
		return api.PacePebble
	}
	return api.PaceFold
}

// Split cuts runs into batches of at most so many bytes each, in order.
func Split(runs []projections.Run, bytesMost int) (parts [][]projections.Run) {
	var part []projections.Run
	size := 0
	for _, run := range runs {
		from := 0
		for i, r := range run.Records {
			n := len(r.Key) + len(r.Value)
			if size+n > bytesMost && size > 0 {
				if i > from {
					part = append(part, withRecords(run, run.Records[from:i]))
				}
				parts, part, size, from = append(parts, part), nil, 0, i
			}
			size += n
		}
		part = append(part, withRecords(run, run.Records[from:]))
	}
	return append(parts, part)
}

func withRecords(run projections.Run, records []*kgo.Record) projections.Run {
	run.Records = records
	return run
}
