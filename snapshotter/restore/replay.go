package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// State is a shard that is brought further. It is used by one goroutine.
type State interface {
	// Next is the next offset of a log to fold.
	Next(l events.Log) int64

	// Fold folds records that come next in their logs, all of them.
	Fold(runs []Records) error

	// At is what the records of a log below an offset come to, of which the last
	// was just folded.
	At(l events.Log, offset int64) (events.Mark, error)
}

// Records are records of a log, in order. Offsets that are left out have no record.
type Records struct {
	Log     events.Log
	Records []*kgo.Record
}

// Replay is a run of segments of a shard that is folded up to a vector.
type Replay struct {
	Region  events.Region
	Shard   int32
	Numbers iter.Seq[int64] // of the segments
	To      events.Vector   // of the logs that are folded; the others are passed over

	// Chain is the hash chain of a log after a record.
	Chain func(before events.Digest, r *kgo.Record) events.Digest

	// Done, if not nil, is told of every segment that was folded and proved. It may be
	// called while that of another shard is.
	Done func(bytes, records int64)
}

// Replayed says what a replay did and proved.
type Replayed struct {
	Segments int64 `json:"segments"`
	Records  int64 `json:"records"`
	Chains   int64 `json:"chains_compared"` // with those in segments
	Marks    int64 `json:"marks_compared"`  // with what the region itself had made of the logs
}

// Add sums up two replays.
func (r Replayed) Add(o Replayed) Replayed {
	return Replayed{Segments: r.Segments + o.Segments, Records: r.Records + o.Records, Chains: r.Chains + o.Chains, Marks: r.Marks + o.Marks}
}

const (
	// segmentsAhead is how many segments are fetched ahead of the fold, and so in
	// memory at once.
	segmentsAhead = 4

	// foldRecords is how many records are folded in one step.
	foldRecords = 10_000
)

// MarkError says that what was restored is not what a segment says.
type MarkError struct {
	Log         events.Log
	Object      string
	Want, Found events.Mark
	ChainOnly   bool // of Want nothing but the chain is known
}

func (e *MarkError) Error() string {
	if e.ChainOnly {
		return fmt.Sprintf("%s at offset %d: object %s says that the chain of the records is %s, found %s", e.Log, e.Want.Next, e.Object, e.Want.Chain, e.Found.Chain)
	}
	return fmt.Sprintf("%s at offset %d: object %s says that the region had %s, found %s", e.Log, e.Want.Next, e.Object, describeMark(e.Want), describeMark(e.Found))
}

func describeMark(m events.Mark) string {
	return fmt.Sprintf("chain %s and digest %s (%d keys, %d bytes)", m.Chain, m.Digest, m.Keys, m.Bytes)
}

// Run folds the segments. Wherever a segment ends, the chain of the records and, if the
// segment has it, what the region had made of them, is compared with the state. Any
// difference is of kind events.KindInconsistent, and names log, offset and object.
func (r Replay) Run(ctx context.Context, src Source, state State) (Replayed, error) {
	f := &folding{Replay: r, state: state, reached: events.Vector{}}
	for s, err := range src.Segments(ctx, r.Region, r.Shard, r.Numbers) {
		if err != nil {
			return f.done, err
		}
		folded := f.done.Records
		if err := f.segment(s); err != nil {
			return f.done, fmt.Errorf("shard %d: %w", r.Shard, err)
		}
		f.done.Segments++
		if r.Done != nil {
			r.Done(s.StoredSize, f.done.Records-folded)
		}
	}
	for _, p := range r.To.Positions() {
		if reached := max(f.reached[p.Log], state.Next(p.Log)); reached < p.Offset {
			return f.done, events.Errorf(events.KindInconsistent, "shard %d: %s: the segments end at offset %d, before %d", r.Shard, p.Log, reached, p.Offset)
		}
	}
	return f.done, nil
}

// Segments opens segments of a shard by their numbers, some of them ahead, and yields them
// in order.
func (src Source) Segments(ctx context.Context, region events.Region, shard int32, numbers iter.Seq[int64]) iter.Seq2[*segment.Segment, error] {
	return ahead(ctx, numbers, func(ctx context.Context, number int64) (*segment.Segment, error) {
		return src.Segment(ctx, region, shard, number)
	})
}

// ahead fetches what is named, some of it ahead, and yields it in order. An error ends it.
func ahead[N, T any](ctx context.Context, names iter.Seq[N], fetch func(ctx context.Context, name N) (T, error)) iter.Seq2[T, error] {
	type fetched struct {
		one T
		err error
	}
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var fetches sync.WaitGroup
		defer fetches.Wait()
		defer cancel()
		var coming []chan fetched
		hand := func() bool {
			f := <-coming[0]
			coming = coming[1:]
			return yield(f.one, f.err) && f.err == nil
		}
		for name := range names {
			place := make(chan fetched, 1)
			coming = append(coming, place)
			fetches.Go(func() {
				one, err := fetch(ctx, name)
				place <- fetched{one, err}
			})
			if len(coming) == segmentsAhead && !hand() {
				return
			}
		}
		for len(coming) > 0 {
			if !hand() {
				return
			}
		}
	}
}

// Segment opens a segment, verified. A reading that failed in a way that may pass is
// tried again; one reading proves no damage.
func (src Source) Segment(ctx context.Context, r events.Region, shard int32, number int64) (s *segment.Segment, err error) {
	err = Retry(ctx, func() error {
		s, err = segment.Open(ctx, src.Bucket, src.Opener, r, shard, number)
		switch events.KindOf(err) {
		case events.KindInconsistent:
			return fmt.Errorf("%w: %w", objstore.ErrCorrupt, err)
		case events.KindNotFound:
			if errors.Is(err, objstore.ErrNotFound) {
				return events.Errorf(events.KindInconsistent, "missing from the bucket: %w", err)
			}
		}
		return err
	})
	return s, err
}

// folding is a Replay under way.
type folding struct {
	Replay
	state    State
	done     Replayed
	reached  events.Vector // up to where all records of a log are folded
	runs     []Records     // gathered for the next step
	gathered int           // their records
}

// segment folds what is wanted of a segment, and proves it.
func (f *folding) segment(s *segment.Segment) error {
	object := format.SegmentName(s.Region, s.Shard, s.Number)
	var parts []*format.SegmentPart // that are to be proved
	for i := range s.Parts {
		p := &s.Parts[i]
		next, to := f.state.Next(p.Log), f.To[p.Log]
		if next > min(to, p.To) || max(next, f.reached[p.Log]) >= to && p.From > next {
			continue // it is further already, or where it is to be
		}
		if err := f.begins(object, p, next); err != nil {
			return err
		}
		parts = append(parts, p)
		if err := f.gather(s, p.Log, next, to); err != nil {
			return err
		}
		f.reached[p.Log] = min(to, p.To)
	}
	if err := f.fold(); err != nil {
		return err
	}
	for _, p := range parts {
		if err := f.prove(s, object, p); err != nil {
			return err
		}
	}
	return nil
}

// gather adds the records of a log to the next step.
func (f *folding) gather(s *segment.Segment, l events.Log, from, to int64) error {
	f.runs = append(f.runs, Records{Log: l})
	for record, err := range s.Records(l, from) {
		if err != nil || record.Offset >= to {
			return err
		}
		if f.gathered == foldRecords {
			if err := f.fold(); err != nil {
				return err
			}
			f.runs = append(f.runs, Records{Log: l})
		}
		run := &f.runs[len(f.runs)-1]
		run.Records = append(run.Records, record)
		f.gathered++
	}
	return nil
}

// fold folds what was gathered.
func (f *folding) fold() error {
	runs, records := f.runs, f.gathered
	if f.runs, f.gathered = nil, 0; records == 0 {
		return nil
	}
	f.done.Records += int64(records)
	return f.state.Fold(runs)
}

// begins makes sure that a part goes on where the state is.
func (f *folding) begins(object string, p *format.SegmentPart, next int64) error {
	if p.From > next {
		return events.Errorf(events.KindInconsistent, "%s: offsets %d to %d are missing before object %s", p.Log, next, p.From-1, object)
	}
	if p.From < next || next == 0 {
		return nil
	}
	found, err := f.state.At(p.Log, next)
	if err == nil && found.Chain != p.Before {
		return f.differs(object, p.Log, events.Mark{Next: next, Chain: p.Before}, found, true)
	}
	return err
}

func (f *folding) differs(object string, l events.Log, want, found events.Mark, chainOnly bool) error {
	return events.Errorf(events.KindInconsistent, "%w", &MarkError{Log: l, Object: object, Want: want, Found: found, ChainOnly: chainOnly})
}

// prove compares the state with what a segment says of a part. Of one of which not all
// was wanted, it is the chain up to its end, over the records that were left out.
func (f *folding) prove(s *segment.Segment, object string, p *format.SegmentPart) error {
	end, _ := s.End(p.Log)
	next := f.state.Next(p.Log)
	found, err := f.state.At(p.Log, next)
	if err != nil {
		return fmt.Errorf("%s at offset %d: %w", p.Log, next, err)
	}
	whole := true
	chain := found.Chain
	for record, err := range s.Records(p.Log, next) {
		if err != nil {
			return err
		}
		if whole = false; record.Offset < f.To[p.Log] {
			return events.Errorf(events.KindInconsistent, "%s: offset %d of object %s was not folded", p.Log, record.Offset, object)
		}
		chain = f.Chain(chain, record)
	}
	f.done.Chains++
	if chain != end.Chain {
		found.Chain = chain
		return f.differs(object, p.Log, events.Mark{Next: p.To, Chain: end.Chain}, found, true)
	}
	if p.Mark == nil || !whole {
		return nil
	}
	f.done.Marks++
	if found != *p.Mark {
		return f.differs(object, p.Log, *p.Mark, found, false)
	}
	return nil
}
