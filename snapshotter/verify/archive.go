package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// Archive says what was found of the archive of a shard. The level manifests reads the
// headers and looks whether they follow each other, hashes the objects, and decode opens them, decodes
// every record, and computes the chains anew.
type Archive struct {
	Shard    int32               `json:"shard"`
	From     int64               `json:"from"` // numbers of segments
	To       int64               `json:"to"`
	Oldest   time.Time           `json:"oldest"` // when the first was closed, and the last
	Newest   time.Time           `json:"newest"`
	Segments int                 `json:"segments"`
	Bytes    int64               `json:"bytes"` // in the bucket
	Gaps     []Gap               `json:"gaps"`  // what logs had lost before they were archived
	Damaged  []inventory.Problem `json:"damaged"`
	Void     []string            `json:"void"` // objects that are damaged, and not needed: a segment behind them has again what they had
}

// Gap is what the archive of a log lacks for good.
type Gap struct {
	Log    events.Log `json:"log"`
	From   int64      `json:"from"` // offset
	To     int64      `json:"to"`   // behind the last that is lacking
	Reason string     `json:"reason"`
	Object string     `json:"object"` // the segment that says so
}

// archives verifies the archives of all shards.
func archives(ctx context.Context, src restore.Source, r events.Region, depth int, checks Checks) ([]Archive, error) {
	shards, err := segment.Shards(ctx, src.Bucket, r)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	list := []Archive{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelTables)
	for _, shard := range shards {
		g.Go(func() error {
			a := &Archive{Shard: shard, Gaps: []Gap{}, Damaged: []inventory.Problem{}, Void: []string{}}
			if err := a.verify(ctx, src, r, depth, checks); err != nil || a.Segments == 0 {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			list = append(list, *a)
			return nil
		})
	}
	err = g.Wait()
	slices.SortFunc(list, func(a, b Archive) int { return int(a.Shard - b.Shard) })
	return list, err
}

func (a *Archive) verify(ctx context.Context, src restore.Source, r events.Region, depth int, checks Checks) error {
	all, newest, err := segment.List(ctx, src.Bucket, r, a.Shard)
	if err != nil {
		return err
	}
	var before *format.Segment // nil: it is not known
	for _, at := range all {
		if newest != nil && newest.IsVoid(at.Number) {
			a.Void = append(a.Void, format.SegmentName(r, a.Shard, at.Number))
			continue
		}
		if a.To > 0 && !segment.Adjoin(a.To, at.Number, newest) {
			if err := a.hole(ctx, src, r, at.Number); err != nil {
				return err
			}
			before = nil
		}
		s, err := look(ctx, src, r, a.Shard, at.Number, depth, checks)
		switch events.KindOf(err) {
		case events.KindNotFound: // pruned meanwhile, as all before it
			*a = Archive{Shard: a.Shard, Gaps: []Gap{}, Damaged: a.Damaged, Void: a.Void}
			before = nil
			continue
		case events.KindInconsistent:
			a.damaged(format.SegmentName(r, a.Shard, at.Number), err.Error())
		case 0:
		default:
			return err
		}
		if err == nil && before != nil {
			if err := s.Follows(before); err != nil {
				a.damaged(format.SegmentName(r, a.Shard, at.Number), err.Error())
			}
		}
		a.add(at, s)
		before = s
	}
	return nil
}

// hole tells of segments that are missing before one, unless all that come before it have
// been pruned meanwhile.
func (a *Archive) hole(ctx context.Context, src restore.Source, r events.Region, number int64) error {
	_, err := src.Bucket.Stat(ctx, format.SegmentName(r, a.Shard, a.To))
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		*a = Archive{Shard: a.Shard, Gaps: []Gap{}, Damaged: a.Damaged, Void: a.Void}
		return nil
	case err == nil:
		a.damaged(format.SegmentName(r, a.Shard, a.To+1), fmt.Sprintf("segments %d to %d are missing, or those before are left over", a.To+1, number-1))
	}
	return err
}

// look looks at a segment. s is nil if it is damaged.
func look(ctx context.Context, src restore.Source, r events.Region, shard int32, number int64, depth int, checks Checks) (s *format.Segment, err error) {
	switch {
	case depth < levelHashes:
		return segment.Header(ctx, src.Bucket, r, shard, number)
	case depth < levelDecode:
		return hash(ctx, src, r, shard, number)
	}
	whole, err := segment.Open(ctx, src.Bucket, src.Opener, r, shard, number)
	if err == nil {
		err = whole.Check(checks.NewChain())
	}
	if err != nil {
		return nil, err
	}
	return whole.Segment, nil
}

// hash looks at a segment as it is stored; that needs no key.
func hash(ctx context.Context, src restore.Source, r events.Region, shard int32, number int64) (*format.Segment, error) {
	object, err := objstore.ReadAll(ctx, src.Bucket, format.SegmentName(r, shard, number), format.MaxSegmentHeaderBytes+2*format.MaxSegmentBytes)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return nil, events.Errorf(events.KindNotFound, "%w", err)
	case errors.Is(err, objstore.ErrCorrupt):
		return nil, events.Errorf(events.KindInconsistent, "%w", err)
	case err != nil:
		return nil, err
	}
	return segment.Verify(object, r, shard, number)
}

func (a *Archive) damaged(object, text string) {
	a.Damaged = append(a.Damaged, inventory.Problem{Object: object, Error: strings.TrimPrefix(text, "object "+object+": ")})
}

// add takes in a segment; nil: it is damaged.
func (a *Archive) add(at segment.Listed, s *format.Segment) {
	if a.Segments == 0 {
		a.From = at.Number
	}
	a.To, a.Segments, a.Bytes = at.Number, a.Segments+1, a.Bytes+at.Size
	if s == nil {
		return
	}
	if a.Oldest.IsZero() {
		a.Oldest = s.Created
	}
	a.Newest = s.Created
	for _, p := range s.Parts {
		if p.Gap != nil {
			a.Gaps = append(a.Gaps, Gap{Log: p.Log, From: p.Gap.From, To: p.From, Reason: p.Gap.Reason, Object: format.SegmentName(s.Region, s.Shard, s.Number)})
		}
	}
}
