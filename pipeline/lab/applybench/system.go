package applybench

import (
	"errors"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// The systems that are measured.
const (
	systemShard = "shard"
	systemBare  = "bare"
)

// cacheBytes is what a node has for blocks, and for memtables.
const cacheBytes = 128<<20 + 2*projections.DefaultMemTableBytes

// system is what takes batches.
type system interface {
	apply(b *batch) error
	// totals are how many slices there are, and the bytes of their keys and values.
	totals() (totals, error)
	close() error
}

type totals struct {
	Keys  int64 `json:"keys"`
	Bytes int64 `json:"bytes"`
}

// isLike reports whether they are of the same slices, but for the sizes of a few
// numbers in them.
func (t totals) isLike(other totals) bool {
	const tolerance = 0.05
	return t.Keys == other.Keys && math.Abs(float64(t.Bytes-other.Bytes)) <= tolerance*float64(t.Bytes)
}

func openSystem(name, dir string, rule merge.Rule) (system, error) {
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref() // the database has its own reference
	cfg := projections.Config{
		Partition: partition, Dir: dir, Cache: cache, Rules: map[events.Stream]merge.Rule{stream: rule},
		Lineage: projections.Lineage{ID: "bench"},
	}
	if name == systemShard {
		s, err := projections.Open(cfg)
		return (*shard)(s), err
	}
	db, err := pebble.Open(dir, cfg.PebbleOptions())
	return &bare{db}, err
}

// shard is what is measured.
type shard projections.Shard

func (s *shard) apply(b *batch) error {
	done, err := (*projections.Shard)(s).Apply(b.runs)
	if err == nil && done.Parked+done.Skipped > 0 {
		err = errors.New("a record was not folded")
	}
	return err
}

func (s *shard) totals() (t totals, err error) {
	for _, l := range (*projections.Shard)(s).Logs() {
		t.Keys, t.Bytes = t.Keys+l.Keys, t.Bytes+l.Bytes
	}
	return t, nil
}

func (s *shard) close() error { return (*projections.Shard)(s).Close() }

// bare is what it is measured against.
type bare struct{ db *pebble.DB }

func (s *bare) apply(b *batch) error {
	for i := range b.touched {
		_, closer, err := s.db.Get(b.touched[i].key)
		switch {
		case errors.Is(err, pebble.ErrNotFound):
		case err != nil:
			return err
		default:
			if err := closer.Close(); err != nil {
				return err
			}
		}
	}
	out := s.db.NewBatch()
	defer out.Close()
	for i := range b.touched {
		if err := out.Set(b.touched[i].key, b.touched[i].value, nil); err != nil {
			return err
		}
	}
	return out.Commit(pebble.NoSync)
}

func (s *bare) totals() (t totals, err error) {
	const slicePrefix = 'S' // all that it writes; a filled one has a shard's other entries too
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{slicePrefix}, UpperBound: []byte{slicePrefix + 1}})
	if err != nil {
		return totals{}, err
	}
	for it.First(); it.Valid(); it.Next() {
		t.Keys, t.Bytes = t.Keys+1, t.Bytes+int64(keyBytes+len(it.Value()))
	}
	return t, it.Close()
}

func (s *bare) close() error { return s.db.Close() }
