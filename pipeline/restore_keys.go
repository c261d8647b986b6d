package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/peers"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// parallelKeys is how many keys are brought back at a time.
const parallelKeys = 8

// RestoreKeys implements api.Node.
func (r *Region) RestoreKeys(ctx context.Context, p api.RestoreKeysParams) (*api.RestoredKeys, error) {
	b, err := r.inBucket()
	if err != nil {
		return nil, err
	}
	if err := r.cfg.CheckStream(p.Stream); err != nil {
		return nil, err
	}
	if len(p.Key) > events.MaxKeyBytes || len(p.Key) > 0 && len(p.Prefix)+len(p.After) > 0 {
		return nil, events.Errorf(events.KindInvalid, "restore keys: want a key of at most %d bytes, or a prefix", events.MaxKeyBytes)
	}
	if p.Limit, err = api.Limit("restore keys", p.Limit, api.MaxRestoredKeys, api.MaxRestoredKeys); err != nil {
		return nil, err
	}
	rule, err := projections.LookupRule(r.cfg.Streams[p.Stream].Merge)
	if err != nil {
		return nil, err
	}
	k := &keysBack{region: r, backups: b, p: p, rule: rule}
	return k.run(ctx)
}

// keysBack brings keys back to what they were.
type keysBack struct {
	region  *Region
	backups Backups
	p       api.RestoreKeysParams
	rule    merge.Rule

	point  *api.PastPoint // at which they were that
	moment *moment
}

// keyBack is a key that is compared.
type keyBack struct {
	key     string
	then    []merge.Slice
	now     []merge.Slice
	seen    events.Vector // of the key's partition, no more than now has
	changes []merge.Change
	told    api.RestoredKey

	compared bool // it is known what it is and was
	tried    bool // something may have been written
}

func (k *keysBack) run(ctx context.Context) (*api.RestoredKeys, error) {
	keys, last, more, err := k.keys(ctx)
	if err != nil {
		return nil, err
	}
	done := &api.RestoredKeys{Stream: k.p.Stream, PastPoint: *k.point, Vector: k.moment.vector, Keys: []api.RestoredKey{}}
	done.More, done.Last = more, api.Bytes(last)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelKeys)
	for _, key := range keys {
		g.Go(func() error { return k.key(gctx, key) })
	}
	if err := g.Wait(); err != nil {
		if !slices.ContainsFunc(keys, func(key *keyBack) bool { return key.tried }) {
			return nil, err
		}
		brokenOff(keys, err)
	}
	k.confirm(ctx, keys)
	for _, key := range keys {
		if len(key.told.Events) == 0 && key.told.Error == "" && len(k.p.Key) == 0 {
			done.Same++
			continue
		}
		done.Keys = append(done.Keys, key.told)
	}
	if one := done.Keys; len(k.p.Key) > 0 && one[0].Now == nil && one[0].Then == nil {
		return nil, events.Errorf(events.KindNotFound, "stream %s of %s has no key %q, and had none at %s, as %s say", k.p.Stream, k.region.cfg.Region, k.p.Key, k.moment.target, k.moment.describe())
	}
	return done, nil
}

// brokenOff tells of each key that was not come to why not. What was written of others is in
// all regions already, and is told as well.
func brokenOff(keys []*keyBack, reason error) {
	for _, key := range keys {
		if !key.compared && key.told.Error == "" {
			key.told.Error = fmt.Sprintf("it was not compared: %s", reason)
		}
	}
}

// keys are those that are asked for, with what they were: of many a page. last is up to
// where it has come, if there may be more.
func (k *keysBack) keys(ctx context.Context) (keys []*keyBack, last string, more bool, err error) {
	if len(k.p.Key) > 0 {
		then, err := k.pageThen(ctx)
		if err != nil {
			return nil, "", false, err
		}
		key := &keyBack{key: string(k.p.Key)}
		for _, e := range then.Entities {
			key.then = append(key.then, slicesOf(e)...)
		}
		return []*keyBack{key}, "", false, nil
	}
	var pages []*api.SlicesPage
	err = peers.WhileMoving(ctx, func() (err error) {
		pages, err = k.region.gather(ctx, api.SlicesParams{Stream: k.p.Stream, Shards: k.region.cfg.Shards(), Prefix: k.p.Prefix, After: k.p.After, Limit: k.p.Limit})
		return err
	})
	if err != nil {
		return nil, "", false, err
	}
	for _, page := range pages { // what keys have now is read once more, with its context
		for i := range page.Entities {
			page.Entities[i].Slices = nil
		}
	}
	then, err := k.pageThen(ctx)
	if err != nil {
		return nil, "", false, err
	}
	entities, last, more := joinPages(k.p.Stream, append(pages, then))
	if len(entities) > k.p.Limit {
		entities = entities[:k.p.Limit]
		last, more = entities[k.p.Limit-1].Key, true
	}
	for _, e := range entities {
		keys = append(keys, &keyBack{key: e.Key, then: e.Slices})
	}
	return keys, last, more, nil
}

// pageThen is what the key was, or a page of the keys that there were.
func (k *keysBack) pageThen(ctx context.Context) (page *api.SlicesPage, err error) {
	page = &api.SlicesPage{}
	wanted := func(key string) bool {
		if len(k.p.Key) > 0 {
			return key == string(k.p.Key)
		}
		return strings.HasPrefix(key, string(k.p.Prefix)) && (len(k.p.After) == 0 || key > string(k.p.After))
	}
	find := func(ctx context.Context, b Backups) (*moment, error) {
		m, err := b.moment(ctx, k.p.Stream, k.p.PastTarget)
		if err == nil && len(k.p.Key) == 0 && m.segmentBytes() > maxScanAtBytes {
			err = events.Errorf(events.KindRefused, "restore keys: %d MiB of segments lie between %s and %s, which is too much to be folded in memory; name single keys, or a backup",
				m.segmentBytes()>>20, m.describe(), m.target)
		}
		return m, err
	}
	k.moment, k.point, err = k.backups.inPast(ctx, k.p.Stream, find, wanted, func(shards []*projections.Shard) error {
		if len(k.p.Key) > 0 {
			e, err := projections.EntityOf(shards, k.p.Stream, string(k.p.Key))
			page.Entities = append(page.Entities, toEntity(e))
			return err
		}
		return k.fill(ctx, page, shards)
	})
	return page, err
}

// fill fills a page with keys of shards.
func (k *keysBack) fill(ctx context.Context, page *api.SlicesPage, shards []*projections.Shard) error {
	size := 0
	for e, err := range projections.Entities(shards, k.p.Stream, string(k.p.Prefix), string(k.p.After)) {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if len(page.Entities) == k.p.Limit || size > api.MaxScanBytes {
			page.More = true
			return nil
		}
		entity := toEntity(e)
		page.Entities = append(page.Entities, entity)
		for _, s := range entity.Slices {
			size += len(s.Data)
		}
	}
	return nil
}

// key compares a key with what it was, and writes what is to be written. What is wrong
// with one key is told with it.
func (k *keysBack) key(ctx context.Context, key *keyBack) error {
	key.told.Key = api.Bytes(key.key)
	if err := k.compare(ctx, key); err != nil {
		return err
	}
	is, was, err := merge.JoinBoth(k.rule, key.now, key.then)
	if err != nil {
		return fmt.Errorf("stream %s, key %q: %w", k.p.Stream, key.key, err)
	}
	key.told.Now, key.told.Then, key.compared = k.valueOf(is), k.valueOf(was), true
	for _, c := range key.changes {
		key.told.Events = append(key.told.Events, c.Type)
	}
	if !k.p.Write || len(key.changes) == 0 {
		return nil
	}
	key.tried = true
	k.region.clock.Observe(is.Clock) // so that what is written comes after it
	if err := k.write(ctx, key); err != nil {
		key.told.Error = err.Error()
	}
	return ctx.Err()
}

// compare finds out what is to be written to bring a key back.
func (k *keysBack) compare(ctx context.Context, key *keyBack) (err error) {
	// The context is taken first: it may claim less than what is read, never more.
	if key.seen, err = k.region.applied(ctx, k.p.Stream, k.region.cfg.PartitionOf([]byte(key.key))); err != nil {
		return err
	}
	e, err := k.region.entity(ctx, k.p.Stream, key.key, key.seen.Join(atLeastOf(key)))
	if err != nil {
		return err
	}
	key.now = e.Slices
	key.changes, err = k.rule.Back(key.now, key.then)
	if events.KindOf(err) == events.KindRefused {
		key.told.Error, key.told.Refused, err = err.Error(), true, nil
	}
	if err != nil {
		err = fmt.Errorf("stream %s, key %q: %w", k.p.Stream, key.key, err)
	}
	return err
}

func (k *keysBack) valueOf(v merge.View) *api.KeyValue {
	if !v.Exists {
		return nil
	}
	values := []api.Bytes{v.Value}
	if len(v.Siblings) > 0 {
		values = nil
		for _, s := range v.Siblings {
			values = append(values, s.Value)
		}
	}
	told := &api.KeyValue{Count: len(values), Clock: v.Clock, Position: v.Position}
	for _, value := range values {
		told.Bytes += len(value)
	}
	if !k.region.cfg.Streams[k.p.Stream].Secret {
		told.Values = values
	}
	return told
}

// write writes the events that bring a key back, as a writer who has seen what it has
// now.
func (k *keysBack) write(ctx context.Context, key *keyBack) error {
	own := events.Log{Origin: k.region.origin, Stream: k.p.Stream, Partition: k.region.cfg.PartitionOf([]byte(key.key))}
	if len(key.changes) > 1 && key.seen[own] == 0 {
		// Nothing of the own log was seen, and that cannot be said: without an entry of its
		// own log a writer is taken to have seen all of it, and each value would
		// replace the one before.
		if err := k.writeOne(ctx, key, merge.Deletion()); err != nil {
			return err
		}
		if err := k.region.await(ctx, api.Freshness{AtLeast: atLeastOf(key)}); err != nil {
			return err
		}
		if err := k.compare(ctx, key); err != nil {
			return err
		}
	}
	for _, c := range key.changes {
		if err := k.writeOne(ctx, key, c); err != nil {
			return err
		}
	}
	return nil
}

func (k *keysBack) writeOne(ctx context.Context, key *keyBack, c merge.Change) error {
	seen := key.seen
	written, err := k.region.Put(ctx, api.PutParams{
		Stream: k.p.Stream, Key: api.Bytes(key.key), Value: c.Value, Type: c.Type, ContentType: c.ContentType, Context: &seen,
	})
	if err == nil {
		key.told.Written = append(key.told.Written, written.Position)
	}
	return err
}

// atLeastOf is a cut that has what was written.
func atLeastOf(keys ...*keyBack) events.Vector {
	cut := events.Vector{}
	for _, key := range keys {
		for _, p := range key.told.Written {
			cut[p.Log] = max(cut[p.Log], p.Offset+1)
		}
	}
	return cut
}

// confirm looks whether the keys that were written have become what they were.
func (k *keysBack) confirm(ctx context.Context, keys []*keyBack) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(key *keyBack) bool { return len(key.told.Written) == 0 || key.told.Error != "" })
	if len(keys) == 0 {
		return
	}
	notSeen := k.region.await(ctx, api.Freshness{AtLeast: atLeastOf(keys...)})
	for _, key := range keys {
		err, parked := notSeen, ""
		if err == nil {
			err = k.compare(ctx, key)
		}
		if err == nil && len(key.changes) > 0 {
			parked, err = k.parked(ctx, key)
		}
		switch {
		case err != nil:
			key.told.Error = fmt.Sprintf("written, but not seen yet: %s", err)
		case parked != "":
			key.told.Error = parked
		case len(key.changes) > 0:
			key.told.Error = k.whyNot(key)
		}
	}
}

// parked says which of a key's events have no effect, if any.
func (k *keysBack) parked(ctx context.Context, key *keyBack) (string, error) {
	reasons, err := k.region.parkedAt(ctx, key.told.Written, atLeastOf(key))
	for i, reason := range reasons {
		if reason != "" {
			return fmt.Sprintf("written, but parked at %s, and without effect: %s", key.told.Written[i], reason), nil
		}
	}
	return "", err
}

// whyNot says why a key is not what it was, though all was written.
func (k *keysBack) whyNot(key *keyBack) string {
	own := k.region.cfg.PartitionOf([]byte(key.key))
	var elsewhere []string
	for _, s := range key.now {
		if s.Log.Partition != own && k.rule.Live(s.Data) {
			elsewhere = append(elsewhere, s.Log.String())
		}
	}
	if len(elsewhere) > 0 {
		return fmt.Sprintf("written, but it is not what it was: producers with another partitioner have written it to %s; write or delete it from there", strings.Join(elsewhere, ", "))
	}
	return "written, but it is not what it was: somebody else has written it meanwhile, or with a clock that is ahead of all clocks; try again"
}
