package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// errNoLimit refuses a call of another node that would have no end.
var errNoLimit = events.Errorf(events.KindInvalid, "want a key, or a limit of 1 or more")

// Slices implements api.PeerNode: what the shards of this node have.
func (r *Region) Slices(ctx context.Context, p api.SlicesParams) (*api.SlicesPage, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil {
		return nil, err
	}
	if p.Key == nil && p.Limit < 1 {
		return nil, errNoLimit
	}
	open, release, err := r.useOwn(p.Shards)
	if err != nil {
		return nil, err
	}
	defer release()
	shards := make([]*projections.Shard, len(open))
	for i, s := range open {
		if p.Keys != nil && s.IsInPlace() {
			return nil, events.Errorf(events.KindNotReady, "shard %d of %s lies in the bucket yet: what is asked in the background has time", p.Shards[i], r.cfg.Region)
		}
		if err := s.Reached(p.AtLeast); err != nil {
			return nil, events.Errorf(events.KindNotReady, "shard %d of %s has moved, and has less than was told of it before: %w", p.Shards[i], r.cfg.Region, err)
		}
		shards[i] = s.Shard
	}
	page := &api.SlicesPage{Entities: []api.Entity{}}
	if p.Key != nil {
		e, err := entityHere(ctx, open, p.Stream, string(p.Key))
		if err == nil && len(e.Slices) > 0 {
			page.Entities = append(page.Entities, toEntity(e))
		}
		return page, err
	}
	size, entities := 0, projections.Entities(shards, p.Stream, string(p.Prefix), string(p.After))
	if p.Keys != nil {
		entities = projections.EntitiesOf(shards, p.Stream, textsOf(p.Keys))
	}
	for e, err := range entities {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, fmt.Errorf("scan stream %s of %s: %w", p.Stream, r.cfg.Region, err)
		}
		if len(page.Entities) == p.Limit || size > api.MaxScanBytes {
			page.More = true
			break
		}
		page.Entities = append(page.Entities, toEntity(e))
		size += len(e.Key)
		for _, s := range e.Slices {
			size += len(s.Data)
		}
	}
	return page, nil
}

func textsOf(keys []api.Bytes) []string {
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = string(key)
	}
	return texts
}

func toEntity(e projections.Entity) api.Entity {
	entity := api.Entity{Key: api.Bytes(e.Key)}
	for _, s := range e.Slices {
		entity.Slices = append(entity.Slices, api.Slice{Log: s.Log, Data: s.Data})
	}
	return entity
}

// fromOwners has the nodes that own some shards answer for them, each for its own. The
// answers come in no order; if one is missing there are none.
func fromOwners[T any](
	ctx context.Context, r *Region, shards []int32, mine func(own []int32) (T, error), theirs func(ctx context.Context, c *api.Client, shards []int32) (T, error),
) ([]T, error) {
	own, others, err := r.shares(shards)
	if err != nil {
		return nil, err
	}
	answers := make([]T, len(others))
	err = r.askOthers(ctx, others, func(ctx context.Context, i int, c *api.Client) (err error) {
		answers[i], err = theirs(ctx, c, others[i].shards)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(own) == 0 {
		return answers, nil
	}
	answer, err := mine(own)
	if err != nil {
		return nil, err
	}
	return append(answers, answer), nil
}

// gather asks the owners of some shards for slices. The pages come in no order. A shard
// that has less than is asked for at least is not ready: it has moved, and its new owner
// is replaying. A node of an earlier version does not know that question, and answers as it
// always has: from what it has.
func (r *Region) gather(ctx context.Context, p api.SlicesParams) ([]*api.SlicesPage, error) {
	return fromOwners(ctx, r, p.Shards,
		func(own []int32) (*api.SlicesPage, error) {
			mine := p
			mine.Shards = own
			return r.Slices(ctx, mine)
		},
		func(ctx context.Context, c *api.Client, shards []int32) (*api.SlicesPage, error) {
			theirs := p
			theirs.Shards = shards
			page, err := c.Slices(ctx, theirs)
			if events.KindOf(err) == events.KindInvalid && len(p.AtLeast) > 0 {
				theirs.AtLeast = nil
				page, err = c.Slices(ctx, theirs)
			}
			return page, err
		})
}

// view reads the view of one key, of shards that have folded a cut.
func (r *Region) view(ctx context.Context, stream events.Stream, key string, atLeast events.Vector) (projections.Entry, error) {
	e, err := r.entity(ctx, stream, key, atLeast)
	if err != nil || len(e.Slices) == 0 {
		return projections.Entry{Stream: stream, Key: key}, err
	}
	return r.join(e)
}

// entity reads all slices of one key, of shards that have folded a cut.
func (r *Region) entity(ctx context.Context, stream events.Stream, key string, atLeast events.Vector) (projections.Entity, error) {
	var pages []*api.SlicesPage
	err := peers.WhileMoving(ctx, func() (err error) {
		// All of them: producers with other partitioners put one key into other partitions.
		pages, err = r.gather(ctx, api.SlicesParams{Stream: stream, Shards: r.cfg.Shards(), Key: api.Bytes(key), AtLeast: atLeast})
		return err
	})
	if err != nil {
		return projections.Entity{}, err
	}
	if entities, _, _ := joinPages(stream, pages); len(entities) > 0 {
		return entities[0], nil
	}
	return projections.Entity{Stream: stream, Key: key}, nil
}

// views reads, in the order of keys, views of keys that begin with prefix and come
// after the key after, at most limit of them. If there may be more, last is up to where
// it has come. The shards have folded a cut.
func (r *Region) views(ctx context.Context, stream events.Stream, prefix, after string, limit int, atLeast events.Vector) (entries []projections.Entry, last string, more bool, err error) {
	var pages []*api.SlicesPage
	err = peers.WhileMoving(ctx, func() (err error) {
		p := api.SlicesParams{Stream: stream, Shards: r.cfg.Shards(), Prefix: api.Bytes(prefix), After: api.Bytes(after), Limit: limit, AtLeast: atLeast}
		pages, err = r.gather(ctx, p)
		return err
	})
	if err != nil {
		return nil, "", false, err
	}
	entities, last, more := joinPages(stream, pages)
	if len(entities) > limit {
		entities = entities[:limit]
		last, more = entities[limit-1].Key, true
	}
	for _, e := range entities {
		entry, err := r.join(e)
		if err != nil {
			return nil, "", false, err
		}
		if entry.Exists {
			entries = append(entries, entry)
		}
	}
	return entries, last, more, nil
}

func (r *Region) join(e projections.Entity) (projections.Entry, error) {
	rule, err := projections.LookupRule(r.cfg.Streams[e.Stream].Merge)
	if err != nil {
		return projections.Entry{}, err
	}
	return e.Join(rule)
}

// joinPages puts pages of several nodes together, in the order of keys. Beyond the
// end of the shortest page that has more behind it nothing is known of that node's
// keys: what the others have there is left out, and last says where that is.
func joinPages(stream events.Stream, pages []*api.SlicesPage) (entities []projections.Entity, last string, more bool) {
	for _, page := range pages {
		if n := len(page.Entities); page.More && n > 0 {
			if end := string(page.Entities[n-1].Key); !more || end < last {
				more, last = true, end
			}
		}
	}
	for _, page := range pages {
		for _, e := range page.Entities {
			if key := string(e.Key); !more || key <= last {
				entities = append(entities, projections.Entity{Stream: stream, Key: key, Slices: slicesOf(e)})
			}
		}
	}
	slices.SortStableFunc(entities, func(a, b projections.Entity) int { return strings.Compare(a.Key, b.Key) })
	joined := entities[:0]
	for _, e := range entities {
		if n := len(joined); n > 0 && joined[n-1].Key == e.Key {
			joined[n-1].Slices = append(joined[n-1].Slices, e.Slices...)
			continue
		}
		joined = append(joined, e)
	}
	return joined, last, more
}

func slicesOf(e api.Entity) (list []merge.Slice) {
	for _, s := range e.Slices {
		list = append(list, merge.Slice{Log: s.Log, Data: s.Data})
	}
	return list
}
