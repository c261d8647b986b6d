package timeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// ClassPlan is what a restore needs of objects in a class of storage.
type ClassPlan struct {
	Class    string `json:"class"` // empty: the usual one
	Objects  int64  `json:"objects"`
	Bytes    int64  `json:"bytes"`
	Archived int64  `json:"archived_bytes"` // that are to be thawed before they can be read
}

// parallelStats is how many objects are asked about at a time.
const parallelStats = 16

// NotArchived refuses a plan whose objects cannot be read before they were thawed.
func (p *Plan) NotArchived() error {
	for _, c := range p.Classes {
		if c.Archived > 0 {
			return events.Errorf(events.KindNotReady, "%d bytes that the restore needs are archived (storage class %s): have them thawed first, which takes hours: evenkeel backup thaw %s", c.Archived, c.Class, p.Base)
		}
	}
	return nil
}

// classes finds out in which classes the objects of a plan are, and which cannot be read.
func (t *Timeline) classes(ctx context.Context, p *Plan) ([]ClassPlan, error) {
	byClass := map[string]ClassPlan{}
	var doubtful []string
	add := func(info objstore.Info) {
		c := byClass[info.Class]
		c.Class, c.Objects, c.Bytes = info.Class, c.Objects+1, c.Bytes+info.Size
		byClass[info.Class] = c
		if objstore.MayArchive(info.Class) {
			doubtful = append(doubtful, info.Name)
		}
	}
	for _, m := range p.Chain {
		if err := t.tables(ctx, m, p.Shards, add); err != nil {
			return nil, err
		}
	}
	for _, s := range p.Shards {
		for _, o := range t.archives[s.Shard].objects {
			if s.Has(o.Number) {
				add(objstore.Info{Name: format.SegmentName(t.region, s.Shard, o.Number), Size: o.Size, Class: o.Class})
			}
		}
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelStats)
	for _, name := range doubtful {
		g.Go(func() error {
			info, err := t.bucket.Stat(ctx, name)
			if err != nil || !info.Archived {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			c := byClass[info.Class]
			c.Archived += info.Size
			byClass[info.Class] = c
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	classes := []ClassPlan{}
	for _, class := range slices.Sorted(maps.Keys(byClass)) {
		classes = append(classes, byClass[class])
	}
	return classes, nil
}

// tables tells of the objects of the tables of a backup that some shards need. One that
// is missing is told by whoever fetches it.
func (t *Timeline) tables(ctx context.Context, m *format.Manifest, shards []ShardPlan, add func(objstore.Info)) error {
	wanted := map[string]bool{}
	for _, s := range shards {
		if int(s.Shard) < len(m.Shards) {
			for _, table := range m.Shards[s.Shard].Tables {
				wanted[table.Name] = true
			}
		}
	}
	for info, err := range t.bucket.List(ctx, format.TablePrefix(t.region)+m.ID+"/") {
		if err != nil {
			return fmt.Errorf("list tables of backup %s: %w", m.ID, err)
		}
		if wanted[info.Name] {
			add(info)
		}
	}
	return nil
}

// measuredBytes is how much a drill must have fetched for its rate to say anything.
const measuredBytes = 8 << 20

// rates are those that the newest restore drill has measured, or careful guesses.
func (t *Timeline) rates(ctx context.Context) (Rates, error) {
	ids, err := catalog.Drills(ctx, t.bucket, t.region)
	if err != nil || len(ids) == 0 {
		return DefaultRates(), err
	}
	id := ids[len(ids)-1]
	d, err := catalog.Drill(ctx, t.bucket, t.region, id)
	switch events.KindOf(err) {
	case 0:
	case events.KindInconsistent, events.KindRefused, events.KindNotFound: // which is no reason not to restore
		return DefaultRates(), nil
	default:
		return Rates{}, err
	}
	bytes, seconds := int64(0), 0.0
	for _, trial := range d.Trials {
		if trial.Error == "" {
			bytes, seconds = bytes+trial.Bytes, seconds+trial.TookSeconds
		}
	}
	if bytes < measuredBytes || seconds <= 0 {
		return DefaultRates(), nil
	}
	return Rates{BytesPerS: float64(bytes) / seconds, Drill: id}, nil
}
