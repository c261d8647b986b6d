package timeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

// Timeline is what a region's bucket holds: backups, and the archives of its shards. It
// belongs to one goroutine.
type Timeline struct {
	bucket    objstore.Reader
	opener    *seal.Opener
	region    events.Region
	archives  []*archive
	ids       []string // of backups, oldest first
	manifests map[string]*format.Manifest
	now       time.Time
	leave     func(events.Stream) bool // nil: no stream is left
}

// parallelListings is how many archives are listed at a time: an archive of some days has
// a hundred thousand segments, and a listing a thousand of them.
const parallelListings = 8

// Read lists what there is. A nil opener opens what is not sealed; it is needed only for
// times that fall into the midst of a segment.
func Read(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shards int32) (*Timeline, error) {
	return read(ctx, bucket, opener, r, shards, nil)
}

// read lists the archives of some shards; none: of all.
func read(ctx context.Context, bucket objstore.Reader, opener *seal.Opener, r events.Region, shards int32, only []int32) (*Timeline, error) {
	t := &Timeline{bucket: bucket, opener: opener, region: r, manifests: map[string]*format.Manifest{}, now: time.Now()}
	t.archives = make([]*archive, shards)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelListings)
	for p := range shards {
		if t.archives[p] = newArchive(bucket, r, p); len(only) > 0 && !slices.Contains(only, p) {
			continue
		}
		g.Go(func() error { return t.archives[p].list(gctx) })
	}
	err := g.Wait()
	if err == nil {
		// Only now: a backup that is made meanwhile is no further than what was listed.
		t.ids, err = catalog.IDs(ctx, bucket, r)
	}
	return t, err
}

// Epoch is under which a shard was archived last; 0: it is not known.
func (t *Timeline) Epoch(ctx context.Context, shard int32) (events.Epoch, error) {
	newest, err := t.archives[shard].newest(ctx)
	if err != nil || newest == nil {
		return 0, err
	}
	return newest.Epoch, nil
}

// manifest reads the manifest of a backup, once.
func (t *Timeline) manifest(ctx context.Context, id string) (*format.Manifest, error) {
	if m := t.manifests[id]; m != nil {
		return m, nil
	}
	m, err := catalog.Load(ctx, t.bucket, t.region, id)
	if err == nil {
		t.manifests[id] = m
	}
	return m, err
}

// newestBackup finds the newest backup for which holds is true, as it has to be of all
// before it; -1 if there is none.
func (t *Timeline) newestBackup(ctx context.Context, holds func(*format.Manifest) bool) (int, error) {
	for {
		listed := len(t.ids)
		i, err := t.searchBackup(ctx, holds)
		if len(t.ids) == listed {
			return i, err
		}
	}
}

// listed reads the manifest of a backup that was listed. Nil: there is no such backup, and it is
// left out from now on. It was pruned since, and perhaps others with it; or it builds on one that
// was given up, which no listing tells.
func (t *Timeline) listed(ctx context.Context, id string) (*format.Manifest, error) {
	m, err := t.manifest(ctx, id)
	if events.KindOf(err) != events.KindNotFound {
		return m, err
	}
	exist, err := catalog.IDs(ctx, t.bucket, t.region)
	if err != nil {
		return nil, err
	}
	t.ids = slices.DeleteFunc(slices.Clone(t.ids), func(other string) bool {
		_, exists := slices.BinarySearch(exist, other)
		return other == id || !exists
	})
	return nil, nil
}

// backwards yields the backups that exist, from one of those that were listed towards the oldest,
// basesTried at most.
func (t *Timeline) backwards(ctx context.Context, from int) iter.Seq2[*format.Manifest, error] {
	return func(yield func(*format.Manifest, error) bool) {
		tried := 0
		for _, id := range slices.Backward(t.ids[:from+1]) {
			if tried == basesTried {
				return
			}
			m, err := t.listed(ctx, id)
			if m == nil && err == nil {
				continue
			}
			if tried++; !yield(m, err) {
				return
			}
		}
	}
}

// searchBackup is newestBackup as long as no backup is left out.
func (t *Timeline) searchBackup(ctx context.Context, holds func(*format.Manifest) bool) (int, error) {
	low, high := -1, len(t.ids) // it is at or behind low and before high
	for step := 1; high-low > 1; step *= 2 {
		i := max(low+1, high-step)
		m, err := t.listed(ctx, t.ids[i])
		if m == nil {
			return 0, err
		}
		if holds(m) {
			low = i
			break
		}
		high = i
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		m, err := t.listed(ctx, t.ids[middle])
		if m == nil {
			return 0, err
		}
		if holds(m) {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// states are those of a shard in a backup, of the logs that are wanted; nil: none.
func states(m *format.Manifest, shard int32, wanted func(events.Log) bool) (states []events.LogState) {
	if m == nil || int(shard) >= len(m.Shards) {
		return nil
	}
	for _, st := range m.Shards[shard].States {
		if wanted(st.Log) {
			states = append(states, st)
		}
	}
	return states
}

// point is a target as a vector.
type point struct {
	vector events.Vector
	base   string // the backup that it is; empty: any will do
	lacks  []string
}

// resolve turns a target into a vector, of the logs that are wanted.
func (t *Timeline) resolve(ctx context.Context, req Request, shards []int32, wanted func(events.Log) bool) (point, error) {
	if at, is := req.at(t.now); is {
		return t.atTime(ctx, at, shards, wanted)
	}
	if req.Backup != "" {
		m, err := t.manifest(ctx, req.Backup)
		if err != nil {
			return point{}, err
		}
		p := point{vector: events.Vector{}, base: m.ID}
		for _, shard := range shards {
			p.add(events.VectorOf(states(m, shard, wanted)))
		}
		return p, nil
	}
	p, err := t.newest(ctx, shards, wanted)
	if err != nil {
		return point{}, err
	}
	named := cmp.Or(len(req.Vector), len(req.Offsets)) > 0
	for _, v := range []events.Vector{req.Vector, req.Offsets} {
		for l := range v {
			switch _, known := p.vector[l]; {
			case !known && wanted(l) && slices.Contains(shards, l.Partition):
				return point{}, events.Errorf(events.KindNotFound, "%s: neither a backup nor a segment has anything of it", l)
			case !known:
				return point{}, events.Errorf(events.KindInvalid, "%s is not in the shards and streams to be restored", l)
			}
		}
	}
	if len(req.Vector) > 0 {
		p.vector = events.Vector{}
	}
	p.add(req.Vector)
	p.add(req.Offsets)
	if named {
		p.lacks = nil
	}
	return p, nil
}

func (p *point) add(v events.Vector) {
	for l, next := range v {
		if p.vector[l] = next; next == 0 {
			delete(p.vector, l)
		}
	}
}

func (p *point) lack(text string, args ...any) { p.lacks = append(p.lacks, fmt.Sprintf(text, args...)) }

// newest is all there is: what is archived, and what the newest backup holds besides.
func (t *Timeline) newest(ctx context.Context, shards []int32, wanted func(events.Log) bool) (point, error) {
	p := point{vector: events.Vector{}}
	var last *format.Manifest
	for last == nil && len(t.ids) > 0 {
		var err error
		if last, err = t.listed(ctx, t.ids[len(t.ids)-1]); err != nil {
			return p, err
		}
	}
	for _, shard := range shards {
		held := events.VectorOf(states(last, shard, wanted))
		p.vector = p.vector.Join(held)
		s, err := t.archives[shard].newest(ctx)
		if err != nil {
			return p, err
		}
		if s == nil {
			p.lack("shard %d has no segments: what came after the newest backup is not there", shard)
			continue
		}
		for _, end := range s.Ends {
			if wanted(end.Log) && end.Next > 0 {
				p.vector[end.Log] = max(p.vector[end.Log], end.Next)
			}
		}
		p.lack("shard %d: what came after %s is not archived", shard, s.Created.Format(time.RFC3339))
	}
	if len(p.vector) == 0 && last == nil {
		return p, events.Errorf(events.KindNotFound, "the bucket holds no backup and no segment of %s with anything in it; make a backup with: evenkeel backup create", t.region)
	}
	return p, nil
}

// atTime is what there was at a time.
func (t *Timeline) atTime(ctx context.Context, at time.Time, shards []int32, wanted func(events.Log) bool) (point, error) {
	p := point{vector: events.Vector{}}
	if at.After(t.now) {
		return p, events.Errorf(events.KindInvalid, "restore: %s is not over yet", at.Format(time.RFC3339))
	}
	n, err := t.newestBackup(ctx, func(m *format.Manifest) bool { return !m.Created.After(at) })
	if err != nil {
		return p, err
	}
	var before *format.Manifest
	if n >= 0 {
		before = t.manifests[t.ids[n]]
	}
	var end time.Time // of the archive
	for _, shard := range shards {
		closed, err := t.shardAt(ctx, shard, at, before, wanted, &p)
		if err != nil {
			return p, t.instead(ctx, err, end)
		}
		if closed.After(end) {
			end = closed
		}
	}
	quiet := false
	if end.Before(at) {
		if quiet, err = t.quietUntil(ctx, n+1, shards, wanted, &p); err != nil {
			return p, err
		}
	}
	switch {
	case end.Before(at) && !quiet:
		err := events.Errorf(events.KindNotFound, "nothing is archived at or after %s", at.Format(time.RFC3339))
		return p, t.instead(ctx, err, end)
	case len(p.vector) == 0 && before == nil:
		return p, t.instead(ctx, events.Errorf(events.KindNotFound, "nothing came at or before %s", at.Format(time.RFC3339)), end)
	}
	return p, nil
}

// quietUntil says whether a backup that was made after a point shows that nothing came
// between the end of the archive and the point: it has no more. A region at rest archives
// nothing, and is backed up nevertheless.
func (t *Timeline) quietUntil(ctx context.Context, next int, shards []int32, wanted func(events.Log) bool, p *point) (bool, error) {
	for _, id := range t.ids[next:] {
		m, err := t.listed(ctx, id)
		if err != nil {
			return false, err
		}
		if m == nil {
			continue
		}
		if _, more := ahead(m, p.vector, shards, wanted); more {
			return false, nil
		}
		p.lacks = nil
		p.lack("nothing is archived of the time before; backup %s, begun at %s, has nothing that was not there", m.ID, m.Created.Format(time.RFC3339))
		return true, nil
	}
	return false, nil
}

// shardAt adds to a point what there was of a shard at a time, before which a backup was
// made; nil: none. It returns when the shard's newest segment was closed.
func (t *Timeline) shardAt(ctx context.Context, shard int32, at time.Time, before *format.Manifest, wanted func(events.Log) bool, p *point) (closed time.Time, err error) {
	held := events.VectorOf(states(before, shard, wanted))
	p.add(held)
	a := t.archives[shard]
	newest, err := a.newest(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if newest == nil {
		p.lack("shard %d has no segments: what came between the backup before and %s is not there", shard, at.Format(time.RFC3339))
		return time.Time{}, nil
	}
	for _, end := range newest.Ends {
		if !wanted(end.Log) {
			continue
		}
		next, err := a.offsetAt(ctx, t.opener, end.Log, at, held[end.Log])
		if err != nil {
			return newest.Created, err
		}
		p.add(events.Vector{end.Log: next})
	}
	if newest.Created.Before(at) {
		p.lack("shard %d: the archive ends at %s; if something came between that and %s it is not there", shard, newest.Created.Format(time.RFC3339), at.Format(time.RFC3339))
	}
	return newest.Created, nil
}

// instead adds to an error what is possible.
func (t *Timeline) instead(ctx context.Context, err error, end time.Time) error {
	if kind := events.KindOf(err); kind != events.KindNotFound && kind != events.KindRefused {
		return err
	}
	text := "what is archived last is had with --to-newest"
	if !end.IsZero() {
		text += fmt.Sprintf(" (closed at %s)", end.Format(time.RFC3339))
	}
	if n := len(t.ids); n > 0 {
		text += fmt.Sprintf("; of the %d backups that exist the first is %s and the last %s (--backup ID)", n, t.ids[0], t.ids[n-1])
	}
	for _, a := range t.archives {
		if len(a.objects) == 0 {
			continue
		}
		s, headerErr := a.header(ctx, a.lastRun())
		if headerErr != nil {
			return errors.Join(err, headerErr)
		}
		text += fmt.Sprintf("; the archive of shard %d begins at %s", a.shard, s.Created.Format(time.RFC3339))
		break
	}
	return events.Errorf(events.KindOf(err), "%w; possible instead: %s", err, text)
}
