package mirrors

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Offsets translates between the offsets of this region's mirrors and those of
// their logs: a mirror has no holes, but a log has one wherever a transaction ended
// or was aborted.
type Offsets struct {
	cfg  *config.Config
	opts []kgo.Opt // of the region's own cluster

	opening chan struct{} // held by whoever opens mappings

	mu      sync.Mutex
	open    map[events.Origin]*replicator.Mappings
	covered map[events.Log]int64 // offsets of the mirror below which the mapping is known
}

// New makes Offsets of a region; the options are of a client of its own cluster.
func New(opts []kgo.Opt, cfg *config.Config) *Offsets {
	return &Offsets{cfg: cfg, opts: opts, opening: make(chan struct{}, 1), open: map[events.Origin]*replicator.Mappings{}, covered: map[events.Log]int64{}}
}

// Close ends the reading of the link topic.
func (m *Offsets) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mappings := range m.open {
		mappings.Close()
	}
	clear(m.open)
}

// IsMirror reports whether the region has a mirror of a log, not the log itself.
func (m *Offsets) IsMirror(l events.Log) bool { return l.Origin.Region != m.cfg.Region }

// Begin is where in the topic of a log, or in its mirror, to read what follows an
// offset of the log.
func (m *Offsets) Begin(ctx context.Context, l events.Log, next int64) (int64, error) {
	if !m.IsMirror(l) || next == 0 {
		return next, nil
	}
	runs, _, err := m.refreshed(ctx, l)
	if err != nil {
		return 0, err
	}
	offset, _ := runs.Dest(next, math.MaxInt64)
	return offset, nil
}

// InTopic is Begin for an offset up to which records of the log have been read, so
// that the mapping is known.
func (m *Offsets) InTopic(ctx context.Context, l events.Log, next int64) (int64, error) {
	if !m.IsMirror(l) || next == 0 {
		return next, nil
	}
	mappings, err := m.of(ctx, l.Origin)
	if err != nil {
		return 0, err
	}
	offset, _ := mappings.Map(m.cfg.Streams[l.Stream].Topic, l.Partition).Dest(next, math.MaxInt64)
	return offset, nil
}

// InLog is the offset in a log of the record at an offset of its topic, or mirror, or
// of the next one to come.
func (m *Offsets) InLog(ctx context.Context, l events.Log, offset int64) (int64, error) {
	if !m.IsMirror(l) {
		return offset, nil
	}
	runs, _, err := m.refreshed(ctx, l)
	if err != nil {
		return 0, err
	}
	inLog, _ := runs.Source(offset)
	return inLog, nil
}

const (
	// planPause is between looks for where a batch of a log that is being compacted has
	// gone; see replicator.Mappings.Bound.
	planPause = 20 * time.Millisecond

	// notSaidPatience is how long that is looked for. A link says it at once, unless it has ended
	// or does not get on just then.
	notSaidPatience = 500 * time.Millisecond
)

// ErrNotSaid is of records of which no link has said yet where they are in their log.
var ErrNotSaid = errors.New("the link has not said yet which offsets its last records have in the log")

// ToLog gives records that were read from the topic of a log, or from its mirror,
// the offsets that they have in the log: all of them, or none. The mirror ends at end, or behind it. If these are not
// known soon the error, of kind not ready, is ErrNotSaid.
func (m *Offsets) ToLog(ctx context.Context, l events.Log, records []*kgo.Record, end int64) error {
	if !m.IsMirror(l) || len(records) == 0 {
		return nil
	}
	runs, _, err := m.covering(ctx, l, records[len(records)-1].Offset, end)
	if err != nil {
		return err
	}
	return m.giveOffsets(l, runs, records)
}

// KnownToLog is ToLog for as many of the records as possible, from the first one on, which it
// returns. If that is not all of them there is ErrNotSaid beside.
func (m *Offsets) KnownToLog(ctx context.Context, l events.Log, records []*kgo.Record, end int64) ([]*kgo.Record, error) {
	if !m.IsMirror(l) || len(records) == 0 {
		return records, nil
	}
	runs, bound, err := m.covering(ctx, l, records[len(records)-1].Offset, end)
	if err != nil && !errors.Is(err, ErrNotSaid) {
		return nil, err
	}
	if err != nil {
		records = records[:slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Offset >= bound })]
	}
	if wrong := m.giveOffsets(l, runs, records); wrong != nil {
		return nil, wrong
	}
	return records, err
}

// giveOffsets gives records of a mirror the offsets that they have in the log.
func (m *Offsets) giveOffsets(l events.Log, runs *mapping.Map, records []*kgo.Record) error {
	if runs.Identity() {
		return nil
	}
	for _, r := range records {
		offset, ok := runs.Source(r.Offset)
		if !ok {
			return events.Errorf(events.KindRefused, "%s: offset %d of its mirror %s has no place in it: the mirror holds records from before it was begun anew; "+
				"give the region of the log a new incarnation", l, r.Offset, m.cfg.TopicOf(l))
		}
		r.Offset = offset
	}
	return nil
}

// Known is the end of what is known, of the topic of a log or its mirror: of the records before an
// offset, those before known have their offsets in the log.
func (m *Offsets) Known(ctx context.Context, l events.Log, end int64) (known int64, err error) {
	if !m.IsMirror(l) || end == 0 {
		return end, nil
	}
	_, bound, err := m.covering(ctx, l, end-1, end)
	if err != nil && !errors.Is(err, ErrNotSaid) {
		return 0, err
	}
	return min(end, bound), nil
}

// Covers is nil if it is known, soon at the latest, where in its log the record at an offset
// of a mirror is. If nobody has said so yet the error is ErrNotSaid.
func (m *Offsets) Covers(ctx context.Context, l events.Log, last, end int64) error {
	_, _, err := m.covering(ctx, l, last, end)
	return err
}

// covering is the mapping of a log once it holds good for an offset of the mirror, if that is
// soon, and before which offset it does. If it is not, these are there beside ErrNotSaid.
func (m *Offsets) covering(ctx context.Context, l events.Log, last, end int64) (runs *mapping.Map, bound int64, err error) {
	m.mu.Lock()
	mappings, covered := m.open[l.Origin], m.covered[l]
	m.mu.Unlock()
	if last < covered {
		return mappings.Map(m.cfg.Streams[l.Stream].Topic, l.Partition), covered, nil
	}
	for begun := time.Now(); ; {
		if runs, bound, err = m.refreshed(ctx, l); err != nil {
			return nil, 0, err
		}
		if last < bound {
			m.mu.Lock()
			m.covered[l] = min(max(end, last+1), bound)
			m.mu.Unlock()
			return runs, bound, nil
		}
		if time.Since(begun) >= notSaidPatience {
			return runs, bound, events.Errorf(events.KindNotReady, "%s: mirror %s in %s, from offset %d on: %w", l, m.cfg.TopicOf(l), m.cfg.Region, bound, ErrNotSaid)
		}
		if pause.For(ctx, planPause); ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
	}
}

// refreshed is the mapping of a log as it is now, and the offset of the mirror
// before which it holds good.
func (m *Offsets) refreshed(ctx context.Context, l events.Log) (runs *mapping.Map, bound int64, err error) {
	mappings, err := m.of(ctx, l.Origin)
	if err != nil {
		return nil, 0, err
	}
	if err := mappings.Refresh(ctx); err != nil {
		return nil, 0, err
	}
	topic := m.cfg.Streams[l.Stream].Topic
	bound = mappings.Bound(topic, l.Partition) // first: somebody else may read on in between
	return mappings.Map(topic, l.Partition), bound, nil
}

// Offset is an offset, or why it is not known.
type Offset struct {
	N    int64
	Open int64 // of an end: records behind it that nobody can read before a transaction ends
	Err  error
}

// Starts turns beginnings of topics into those of logs: a mirror's into the offset of its
// first record.
func (m *Offsets) Starts(ctx context.Context, starts map[events.Log]Offset) {
	m.inLogs(ctx, starts, 0, func(runs *mapping.Map, start int64) int64 {
		first, ok := runs.Source(start)
		if !ok { // it has no place in the log
			first = runs.Runs()[0].Source
		}
		return first
	})
}

// Ends turns ends of topics into those of logs: a mirror's into the offset behind
// that of its last record.
func (m *Offsets) Ends(ctx context.Context, ends map[events.Log]Offset) {
	m.inLogs(ctx, ends, 1, func(runs *mapping.Map, end int64) int64 {
		last, ok := runs.Source(end - 1)
		if !ok {
			return 0
		}
		return last + 1
	})
}

// inLogs turns offsets of mirrors, from some offset on, into those of logs.
func (m *Offsets) inLogs(ctx context.Context, offsets map[events.Log]Offset, from int64, inLog func(runs *mapping.Map, n int64) int64) {
	refreshed := map[events.Origin]error{}
	for l, o := range offsets {
		if !m.IsMirror(l) || o.Err != nil || o.N < from {
			continue
		}
		mappings, err := m.of(ctx, l.Origin)
		if err == nil {
			if _, done := refreshed[l.Origin]; !done {
				refreshed[l.Origin] = mappings.Refresh(ctx)
			}
			err = refreshed[l.Origin]
		}
		if err != nil {
			offsets[l] = Offset{Err: err}
			continue
		}
		offsets[l] = Offset{N: inLog(mappings.Map(m.cfg.Streams[l.Stream].Topic, l.Partition), o.N)}
	}
}

// of is the mappings of an origin. One caller at a time opens some, which takes requests;
// the others wait no longer than their context.
func (m *Offsets) of(ctx context.Context, origin events.Origin) (*replicator.Mappings, error) {
	if mappings := m.opened(origin); mappings != nil {
		return mappings, nil
	}
	select {
	case m.opening <- struct{}{}:
		defer func() { <-m.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if mappings := m.opened(origin); mappings != nil {
		return mappings, nil
	}
	mappings, err := replicator.OpenMappings(ctx, m.opts, origin, m.cfg.Region)
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.open[origin] = mappings
	}
	return mappings, err
}

func (m *Offsets) opened(origin events.Origin) *replicator.Mappings {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open[origin]
}
