package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// PlanRunsMax is how many runs a plan may have: they have to fit into one message,
// because they count together or not at all.
const PlanRunsMax = chunkRuns * blockChunks

// Plan is a batch that is not as the partition's runs say. It is written down
// before the batch is appended, and its runs count once the batch has landed. There
// may be several plans for one place in the mirror, by several instances or by one
// that has tried again: one of them lands at most. Which, the mirror tells.
type Plan struct {
	Dest  int64  // where in the mirror it is to land
	Count int32  // records
	CRC   uint32 // of the batch as it is produced
	Last  uint32 // Sum of its last record
	Keep  int    // how many of the runs before stay
	Runs  []mapping.Run

	key string // of its record; empty before it is written
}

// same tells whether two plans are of the same batch.
func (v Plan) same(w Plan) bool {
	return v.Dest == w.Dest && v.Count == w.Count && v.CRC == w.CRC && v.Keep == w.Keep && slices.Equal(v.Runs, w.Runs)
}

// value is what to write: the runs that count if it has landed.
func (v Plan) value() runsValue { return runsValue{Keep: &v.Keep, Runs: v.Runs} }

// Version tells states of a partition's runs apart.
type Version struct {
	generation, next int64
}

// Runs is the partition's Map, and which version of it this is.
func (l *Ledger) Runs(p Partition) (*mapping.Map, Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.mapOf(p), l.state.partition(p).version()
}

func (l *Ledger) version(p Partition) Version {
	_, at := l.Runs(p)
	return at
}

// Plans are those of the present version of the runs, in the order in which they were written.
// None of them is known to have landed.
func (l *Ledger) Plans(p Partition) (open []Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	part := l.state.partition(p)
	for _, v := range part.plans[part.next] {
		open = append(open, v.plan())
	}
	return open
}

// Step notes that a plan has landed, if one is given, and then writes another one
// down, if one is given. The version is the one for which the plan was made that
// has landed, or that is to be written if none has; Step returns the next one. If
// the runs have another version by now it returns ErrSuperseded.
//
// Whoever appends a planned batch does so between one Step and the next.
func (l *Ledger) Step(ctx context.Context, p Partition, at Version, landed, planned *Plan) (Version, error) {
	unlock, err := l.lock(ctx, p)
	if err != nil {
		return at, fmt.Errorf("plan for %s: %w", p, err)
	}
	defer unlock()
	if is := l.version(p); is != at {
		return is, fmt.Errorf("plan for %s: chunk %d comes next, not %d: %w", p, is.next, at.next, ErrSuperseded)
	}
	next := at
	if landed != nil {
		next.next++
	}
	var records []*kgo.Record
	if planned != nil && !(landed == nil && slices.ContainsFunc(l.Plans(p), planned.same)) {
		r, err := l.planRecord(p, next, *planned)
		if err != nil {
			return at, err
		}
		records = append(records, r)
	}
	switch {
	case landed != nil:
		err = l.appendAt(ctx, p, at, landed.value(), records...)
	case len(records) > 0:
		err = l.write(ctx, records...)
	}
	if err == nil && l.version(p) != next {
		err = ErrSuperseded
	}
	if err != nil {
		return at, fmt.Errorf("plan for %s: %w", p, err)
	}
	l.tidy(ctx, p)
	return next, nil
}

func (l *Ledger) planRecord(p Partition, at Version, v Plan) (*kgo.Record, error) {
	if len(v.Runs) > PlanRunsMax || v.Dest < 0 || v.Count <= 0 {
		return nil, fmt.Errorf("plan for %s: %d runs of %d records at offset %d cannot be planned", p, len(v.Runs), v.Count, v.Dest)
	}
	return l.record(key{
		Kind: kindPlan, Topic: p.Topic, Partition: &p.Partition,
		Generation: at.generation, Number: &at.next, Writer: l.writerOfThis(),
	}, planValue{Dest: v.Dest, Count: v.Count, CRC: v.CRC, Last: v.Last, runsValue: v.value()}), nil
}

// Drop removes plans that can land no more, because something else is in their
// place.
func (l *Ledger) Drop(ctx context.Context, plans []Plan) error {
	var records []*kgo.Record
	for _, v := range plans {
		records = append(records, &kgo.Record{Topic: l.cfg.Topic, Key: []byte(v.key)})
	}
	if len(records) == 0 {
		return nil
	}
	return l.write(ctx, records...)
}

// plan is a plan's record.
type plan struct {
	key string
	planValue
}

func (v plan) plan() Plan {
	known := Plan{Dest: v.Dest, Count: v.Count, CRC: v.CRC, Last: v.Last, Runs: v.Runs, key: v.key}
	if v.Keep != nil {
		known.Keep = *v.Keep
	}
	return known
}

func (p *partition) version() Version { return Version{generation: p.generation, next: p.next} }

// takePlan returns keys of records that do not count any more.
func (p *partition) takePlan(number int64, v plan) (voided []string) {
	if number < p.next {
		return []string{v.key}
	}
	if _, decided := p.chunk(number); decided {
		return []string{v.key}
	}
	if !slices.ContainsFunc(p.plans[number], func(is plan) bool { return is.key == v.key }) {
		p.plans[number] = append(p.plans[number], v)
	}
	return nil
}

// decide gives up the plans for a chunk that is known, and returns their keys.
func (p *partition) decide(number int64) (voided []string) {
	voided = p.planKeys(number)
	delete(p.plans, number)
	return voided
}

func (p *partition) planKeys(number int64) (keys []string) {
	for _, v := range p.plans[number] {
		keys = append(keys, v.key)
	}
	return keys
}

func (p *partition) dropPlan(number int64, rawKey string) {
	p.plans[number] = slices.DeleteFunc(p.plans[number], func(v plan) bool { return v.key == rawKey })
	if len(p.plans[number]) == 0 {
		delete(p.plans, number)
	}
}
