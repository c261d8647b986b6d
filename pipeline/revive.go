package pipeline

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// reviver is a merge rule some of whose events would bring back what resets of other
// origins have taken away; see fieldmap.
type reviver interface {
	Revives(e *events.Event, log events.Log, read func() ([]merge.Slice, error)) (below int64, err error)
}

// resetFirst is a delete that has to stand before an event so that the event brings back
// nothing that this region knows to be reset; nil if there is no need. held gives the slices
// of the key.
func (s *stamper) resetFirst(e *events.Event, held func() ([]merge.Slice, error)) (*kgo.Record, error) {
	rule, ok := s.rule.(reviver)
	if !ok {
		return nil, nil
	}
	log := s.log(e.Key)
	below, err := rule.Revives(e, log, held)
	if err != nil || below == 0 {
		return nil, err
	}
	reset := s.region.newEvent([]byte(e.Key), nil, "", "")
	reset.ID, reset.Source = uuid.NewString(), e.Source
	reset.Deps = events.Context{{Origin: log.Origin, Next: below}}
	record, err := s.encode(&reset, log.Partition, nil)
	if err != nil {
		return nil, fmt.Errorf("reset of %s below offset %d: %w", log, below, err)
	}
	return record, nil
}

// slicesIn reads the slices that a key has in the shard of a log, once that has folded a cut.
func (r *Region) slicesIn(ctx context.Context, log events.Log, key string, atLeast events.Vector) (list []merge.Slice, err error) {
	err = peers.WhileMoving(ctx, func() error {
		pages, err := r.gather(ctx, api.SlicesParams{Stream: log.Stream, Shards: []int32{log.Partition}, Key: api.Bytes(key), AtLeast: atLeast})
		list = nil
		for _, page := range pages {
			for _, e := range page.Entities {
				list = append(list, slicesOf(e)...)
			}
		}
		return err
	})
	return list, err
}
