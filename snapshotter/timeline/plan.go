package timeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// Plan says how to bring a region to a vector.
type Plan struct {
	Region  events.Region   `json:"region"`
	Target  string          `json:"target"`                // as it was asked for
	Vector  events.Vector   `json:"vector"`                // to which the restore goes exactly
	Streams []events.Stream `json:"streams,omitzero"`      // none: all
	Base    string          `json:"base,omitzero"`         // the backup to begin with; empty: with nothing
	Created time.Time       `json:"base_created,omitzero"` // of that backup

	// Attested says, for people, how that backup's states compare with what other regions have
	// attested at the same offsets; empty: nobody has looked.
	Attested string `json:"attested,omitzero"`

	Shards  []ShardPlan `json:"shards"`
	Objects int64       `json:"objects"`
	Bytes   int64       `json:"bytes"`   // of all objects
	Records int64       `json:"records"` // to be folded, about
	Seconds float64     `json:"expected_seconds"`
	Rates   Rates       `json:"rates"`   // from which that follows
	Classes []ClassPlan `json:"classes"` // of storage, in which the objects are
	Lacks   []string    `json:"lacks"`   // what will not be there, as far as is known

	Chain catalog.Chain   `json:"-"` // of the base; empty: there is none
	Left  []events.Stream `json:"-"` // that were left as the base has them, see Leave
}

// ShardPlan says how to bring one shard there.
type ShardPlan struct {
	Span
	Tables     int   `json:"tables"`
	TableBytes int64 `json:"table_bytes"` // of the objects that hold them
}

// Rates are how fast a restore is taken to be.
type Rates struct {
	BytesPerS   float64 `json:"bytes_per_s"`
	RecordsPerS float64 `json:"records_per_s,omitzero"` // 0: that is in the bytes
	Drill       string  `json:"drill,omitzero"`         // id of the restore drill that has measured them; empty: careful guesses
}

func (r Rates) seconds(p *Plan) float64 {
	s := float64(p.Bytes) / r.BytesPerS
	if r.RecordsPerS > 0 {
		s += float64(p.Records) / r.RecordsPerS
	}
	return s
}

// DefaultRates are careful ones for a machine with two processors.
func DefaultRates() Rates { return Rates{BytesPerS: 50 << 20, RecordsPerS: 50_000} }

// basesTried is how many backups are looked at, newest first, if segments do not follow.
const basesTried = 20

// Leave has plans that are asked for all streams leave some as the base has them, to which no
// segments lead then: those that nobody folds any more.
func (t *Timeline) Leave(streams func(events.Stream) bool) { t.leave = streams }

// Plan finds the way to a target.
func (t *Timeline) Plan(ctx context.Context, req Request) (*Plan, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	shards, err := t.shards(req)
	if err != nil {
		return nil, err
	}
	left := map[events.Stream]bool{}
	wanted := func(l events.Log) bool {
		if len(req.Streams) > 0 {
			return slices.Contains(req.Streams, l.Stream)
		}
		if t.leave != nil && t.leave(l.Stream) {
			left[l.Stream] = true
			return false
		}
		return true
	}
	p, err := t.resolve(ctx, req, shards, wanted)
	if err != nil {
		return nil, err
	}
	plan := &Plan{
		Region: t.region, Target: req.Target.String(), Vector: p.vector, Streams: req.Streams,
		Lacks: append([]string{}, p.lacks...), Shards: []ShardPlan{},
	}
	m, spans, err := t.way(ctx, req, p, shards, wanted)
	if events.KindOf(err) == events.KindNotFound && req.IsNewest() && req.Base == "" {
		m, spans, err = t.wayToArchived(ctx, req, &p, shards, wanted, err)
		plan.Vector, plan.Lacks = p.vector, p.lacks
	}
	if err != nil {
		return nil, err
	}
	if m != nil {
		if plan.Chain, err = catalog.LoadChain(ctx, t.bucket, m); err != nil {
			return nil, err
		}
		plan.Base, plan.Created, plan.Objects = m.ID, m.Created, int64(len(plan.Chain))
	}
	for _, span := range spans {
		plan.add(span)
	}
	plan.Left = slices.Sorted(maps.Keys(left))
	if plan.Rates, err = t.rates(ctx); err != nil {
		return nil, err
	}
	plan.Seconds = plan.Rates.seconds(plan)
	plan.Classes, err = t.classes(ctx, plan)
	return plan, err
}

func (p *Plan) add(span Span) {
	s := ShardPlan{Span: span}
	for _, m := range p.Chain {
		if int(span.Shard) >= len(m.Shards) {
			continue
		}
		for _, table := range m.Shards[span.Shard].Tables {
			size, _ := table.Stored()
			s.Tables, s.TableBytes = s.Tables+1, s.TableBytes+size
		}
	}
	p.Shards = append(p.Shards, s)
	p.Objects += int64(s.Tables) + s.Segments()
	p.Bytes += s.TableBytes + s.Bytes
	p.Records += s.Records
}

// shards are those that are asked for, in order.
func (t *Timeline) shards(req Request) (shards []int32, err error) {
	for p := range int32(len(t.archives)) {
		if len(req.Shards) == 0 || slices.Contains(req.Shards, p) {
			shards = append(shards, p)
		}
	}
	for _, p := range req.Shards {
		if !slices.Contains(shards, p) {
			return nil, events.Errorf(events.KindInvalid, "restore: there is no shard %d; %s has %d", p, t.region, len(t.archives))
		}
	}
	return shards, nil
}

// way finds the newest backup from which segments lead to a vector, or, if all of it is
// archived, none.
func (t *Timeline) way(ctx context.Context, req Request, p point, shards []int32, wanted func(events.Log) bool) (m *format.Manifest, spans []Span, err error) {
	if id := req.Base; id != "" || p.base != "" {
		if id == "" || p.base != "" && id == p.base {
			id = p.base
		}
		if m, err = t.manifest(ctx, id); err != nil {
			return nil, nil, err
		}
		if l, is := ahead(m, p.vector, shards, wanted); is {
			return nil, nil, events.Errorf(events.KindRefused, "backup %s is ahead of the target: it has %s up to offset %d, wanted is %d",
				m.ID, l, events.VectorOf(m.States())[l], p.vector[l])
		}
		spans, err = t.spans(ctx, m, p.vector, shards, wanted)
		return m, spans, err
	}
	i, err := t.newestBackup(ctx, func(m *format.Manifest) bool { _, is := ahead(m, p.vector, shards, wanted); return !is })
	if err != nil {
		return nil, nil, err
	}
	var first error // the newest backup's tells most
	for m, err := range t.backwards(ctx, i) {
		if err != nil {
			return nil, nil, err
		}
		if _, is := ahead(m, p.vector, shards, wanted); is {
			continue
		}
		spans, err := t.spans(ctx, m, p.vector, shards, wanted)
		if err == nil {
			return m, spans, nil
		}
		if first == nil {
			first = fmt.Errorf("from backup %s: %w", m.ID, err)
		}
		if kind := events.KindOf(err); kind == events.KindFailed {
			return nil, nil, err
		}
	}
	if spans, err = t.spans(ctx, nil, p.vector, shards, wanted); err == nil {
		return nil, spans, nil
	}
	if first == nil {
		first = fmt.Errorf("no backup is at or before the target, and from the beginning: %w", err)
	}
	return nil, nil, t.instead(ctx, first, time.Time{})
}

// wayToArchived is the way to all that is archived, where there is none to the newest point: the newest backup
// holds some of it alone, and of other logs too little for the archive to follow on it. Some of its shards had not
// caught up when it was made.
func (t *Timeline) wayToArchived(ctx context.Context, req Request, p *point, shards []int32, wanted func(events.Log) bool, because error) (m *format.Manifest, spans []Span, err error) {
	archived := point{vector: events.Vector{}, lacks: p.lacks}
	for _, shard := range shards {
		s, err := t.archives[shard].newest(ctx)
		if err != nil {
			return nil, nil, err
		}
		if s == nil {
			return nil, nil, because
		}
		for _, end := range s.Ends {
			if wanted(end.Log) {
				archived.add(events.Vector{end.Log: end.Next})
			}
		}
	}
	for _, at := range p.vector.Positions() {
		if next := archived.vector[at.Log]; next < at.Offset {
			archived.lack("%s: offsets %d to %d, which the newest backup holds alone; of other logs it holds too little for the archive to follow on it", at.Log, next, at.Offset-1)
		}
	}
	if m, spans, err = t.way(ctx, req, archived, shards, wanted); err != nil {
		return nil, nil, because
	}
	*p = archived
	return m, spans, nil
}

// ahead finds a log of which a backup has more than a vector.
func ahead(m *format.Manifest, vector events.Vector, shards []int32, wanted func(events.Log) bool) (l events.Log, is bool) {
	for _, shard := range shards {
		for _, st := range states(m, shard, wanted) {
			if st.Next > vector[st.Log] {
				return st.Log, true
			}
		}
	}
	return l, false
}

// spans finds the segments of all shards that lead from a backup to a vector.
func (t *Timeline) spans(ctx context.Context, m *format.Manifest, vector events.Vector, shards []int32, wanted func(events.Log) bool) (spans []Span, err error) {
	for _, shard := range shards {
		span, err := t.archives[shard].span(ctx, states(m, shard, wanted), vector)
		if err != nil {
			return nil, err
		}
		spans = append(spans, span)
	}
	return spans, nil
}

// Span finds the segments that lead a shard from where it is to a vector. It may be asked
// of several shards at once.
func (t *Timeline) Span(ctx context.Context, shard int32, states []events.LogState, vector events.Vector) (Span, error) {
	return t.archives[shard].span(ctx, states, vector)
}
