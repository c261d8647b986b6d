package projections

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// History is from where a shard's logs can be read again.
type History interface {
	// First is the offset from which on the records of a log can be had, up to an offset
	// that the shard has folded; that offset, if none can be had.
	First(ctx context.Context, log events.Log, to int64) (int64, error)

	// Records gives the records of a log from an offset on, piece by piece, at least up
	// to another one that the shard has folded. A *GapError says that some are gone by now;
	// after it, as after any error, nothing is given.
	Records(ctx context.Context, log events.Log, from, to int64) iter.Seq2[Piece, error]
}

// Piece is some records of a log, in order: all that there are with offsets below Next.
type Piece struct {
	Records []*kgo.Record
	Next    int64
}

const (
	// A step of folding a log again holds up the shard's batches, so it is small. Only the
	// last one, if what is left is less than two of the shard's larger batches, is not:
	// with small ones it might never catch up with a fold that is as fast.
	againRecords     = 2_048
	againRecordsLast = 20_000
)

// firsts finds out, of a model of events, where the logs begin that it reads; nil if they
// cannot be read again.
func (s *Shard) firsts(ctx context.Context, name string, how derived.Rebuild) (map[events.Log]int64, error) {
	i := slices.IndexFunc(s.cfg.Models, func(m derived.Model) bool { return m.Name == name })
	if i < 0 || !s.cfg.Models[i].OfEvents() || how.FromNow || s.cfg.History == nil {
		return nil, nil
	}
	first := map[events.Log]int64{}
	for _, l := range s.Logs() {
		first[l.Log] = l.Next
		if _, ok := s.cfg.Rules[l.Log.Stream]; !ok {
			continue // it is not folded any more
		}
		var err error
		if first[l.Log], err = s.cfg.History.First(ctx, l.Log, l.Next); err != nil {
			return nil, err
		}
	}
	return first, nil
}

// foldAgain folds a log again for a model that is made of events.
func (s *Shard) foldAgain(ctx context.Context) (more bool, err error) {
	job, ok := s.models.NextJob()
	if !ok || s.cfg.History == nil || s.InPlace() != nil {
		return false, nil
	}
	if err = s.foldLogAgain(ctx, job); err != nil && ctx.Err() == nil {
		s.models.Wait(job, err)
	}
	return true, err
}

func (s *Shard) foldLogAgain(ctx context.Context, job derived.Job) error {
	gone := job.Next
	for piece, err := range s.cfg.History.Records(ctx, job.Log, job.Next, s.Next(job.Log)) {
		var gap *GapError
		if errors.As(err, &gap) {
			return s.models.Restart(job, gap.Got, s.vector)
		}
		if err != nil {
			return err
		}
		for more := true; more; {
			if err := errors.Join(ctx.Err(), s.fenced(), s.checkWritable()); err != nil {
				return err
			}
			begun, was := time.Now(), gone
			if more, err = s.models.Fold(job, s.vector, func(from, below int64) (t derived.Taken, err error) {
				t, err = s.takeAgain(job.Log, &piece, from, below)
				gone = t.Next
				return t, err
			}); err != nil {
				return err
			}
			switch {
			case !more:
				return nil
			case gone == was: // what is left of the piece is not folded yet, or there is nothing left
				more = false
			default:
				restAfter(ctx, begun)
			}
		}
	}
	if gone == job.Next && ctx.Err() == nil {
		return events.Errorf(events.KindNotReady, "%s: nothing from offset %d on can be read at present", job.Log, gone)
	}
	return ctx.Err()
}

// takeAgain makes events of the next records of a piece: what the shard has made of them
// before.
func (s *Shard) takeAgain(log events.Log, piece *Piece, from, below int64) (t derived.Taken, err error) {
	t.Next = max(from, min(piece.Next, below))
	begin, _ := slices.BinarySearchFunc(piece.Records, from, atOffset)
	end, _ := slices.BinarySearchFunc(piece.Records, below, atOffset)
	records := piece.Records[begin:end]
	if len(records) > againRecords && below-from > againRecordsLast {
		t.Next = records[againRecords].Offset
		records = records[:againRecords]
	}
	parked, err := s.parkedOffsets(log, from, t.Next)
	if err != nil {
		return t, err
	}
	for _, r := range records {
		if parked[r.Offset] {
			continue
		}
		e, err := events.Decode(r)
		if err == nil {
			err = events.CheckClock(&e, r)
		}
		if err != nil {
			return t, events.Errorf(events.KindInconsistent, "%s was folded, and what is read again there is no event: %w", log.At(r.Offset), err)
		}
		if !e.IsUpkeep() {
			t.Events = append(t.Events, derived.Event{Event: &e, Position: log.At(r.Offset)})
		}
	}
	return t, nil
}

func atOffset(r *kgo.Record, offset int64) int { return int(min(max(r.Offset-offset, -1), 1)) }

// parkedOffsets are those of the records of a stretch of a log that were set aside.
func (s *Shard) parkedOffsets(log events.Log, from, to int64) (parked map[int64]bool, err error) {
	parked = map[int64]bool{}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: parkedKey(log.At(from)), UpperBound: parkedKey(log.At(to))})
	if err != nil {
		return nil, err
	}
	defer closeIter(it, &err)
	for it.First(); it.Valid(); it.Next() {
		_, offset, err := splitNumberedKey(prefixParked, it.Key())
		if err != nil {
			return nil, err
		}
		parked[int64(offset)] = true
	}
	return parked, it.Error()
}
