package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// Known is what somebody who looks again and again knows was there: that an object is missing which nothing refers to, as
// the newest manifest or the oldest segments of an archive, only memory tells.
type Known struct {
	Backups  map[string]string `json:"backups"` // id → id of the parent, empty if it has none
	Archives map[int32]Row     `json:"archives"`
}

// Row is an archive of a shard.
type Row struct {
	First int64 `json:"first"` // numbers of segments
	Last  int64 `json:"last"`
}

const (
	// missingMost bounds what is found missing by one listing, and what is asked for by name.
	missingMost = 100

	// keepSlack is by how much less than configured the points in time are that have to be there: clocks differ.
	keepSlack = time.Hour
)

// Missing finds out what should be in the bucket and is not, or in another size: the tables of the backups that exist,
// the manifests that these build on, that the newest plan keeps, or that were known, unless a plan has given them up; and segments
// without which points in time within keep could not be restored. It is to be confirmed by another listing.
// next is what is known from then on. Besides the listing it costs a request for each shard, and one for each manifest that is
// missing.
func (l *Listing) Missing(ctx context.Context, bucket objstore.Reader, keep time.Duration, before Known) (missing []inventory.Problem, next Known, err error) {
	f := &finding{Listing: l, bucket: bucket, before: before, next: Known{Backups: map[string]string{}, Archives: map[int32]Row{}}}
	f.tables()
	if err := f.manifests(ctx); err != nil {
		return nil, before, err
	}
	if err := f.segments(ctx, keep); err != nil {
		return nil, before, err
	}
	return f.missing, f.next, nil
}

// finding is one search for what is missing.
type finding struct {
	*Listing
	bucket       objstore.Reader
	before, next Known
	missing      []inventory.Problem
}

func (f *finding) found(object, format string, args ...any) {
	isIt := func(p inventory.Problem) bool { return p.Object == object }
	if len(f.missing) < missingMost && !slices.ContainsFunc(f.missing, isIt) {
		f.missing = append(f.missing, inventory.Problem{Object: object, Error: fmt.Sprintf(format, args...)})
	}
}

func (f *finding) tables() {
	for _, b := range f.inv.Backups {
		for _, p := range b.Problems {
			if format.IsTable(p.Object) {
				f.found(p.Object, "%s", p.Error)
			}
		}
	}
}

// manifests goes by the plan that was read after the listing: what a prune had deleted by then it had given up.
func (f *finding) manifests(ctx context.Context) error {
	wanted := map[string]string{} // id → why
	for id := range f.before.Backups {
		wanted[id] = "it was there before, and no prune has deleted it"
	}
	if f.inv.Plan != nil {
		for _, id := range f.inv.Plan.Keep {
			wanted[id] = fmt.Sprintf("plan %d keeps it", f.inv.Plan.Number)
		}
	}
	for _, b := range f.inv.Backups {
		if f.next.Backups[b.ID] = f.before.Backups[b.ID]; b.Kind() == format.Delta {
			f.next.Backups[b.ID] = b.Manifest.Parent()
		}
		for _, id := range f.inv.Path(b.ID) {
			wanted[id] = "backup " + b.ID + " builds on it"
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if _, is := f.next.Backups[id]; is || slices.Contains(f.inv.Late, id) || f.givenUp(id) {
			continue
		}
		if len(f.missing) == missingMost {
			f.next.Backups[id] = f.before.Backups[id]
			continue
		}
		name := format.ManifestName(f.region, id)
		_, err := f.bucket.Stat(ctx, name)
		switch {
		case errors.Is(err, objstore.ErrNotFound):
			f.found(name, "missing from the bucket, and %s", wanted[id])
		case err != nil:
			return fmt.Errorf("object %s: %w", name, err)
		}
		f.next.Backups[id] = f.before.Backups[id]
	}
	return nil
}

// givenUp says whether the plan has given up a backup, or what it builds on: then a prune deletes it.
func (f *finding) givenUp(id string) bool {
	for ; id != ""; id = f.before.Backups[id] {
		if !f.inv.Plan.Exists(id) {
			return true
		}
	}
	return false
}

func (f *finding) segments(ctx context.Context, keep time.Duration) error {
	now := time.Now()
	if newest := f.inv.NewestPast(now); newest != nil && newest.Manifest.Created.Before(now) {
		now = newest.Manifest.Created // from which prunes count back
	}
	// A backup that was not there before may have been made behind what prunes have deleted since, and hold less than where the archive
	// begins: one of a shard that has begun anew.
	needed := prune.Needed(f.inv, now, keep-keepSlack, func(id string) bool {
		_, known := f.before.Backups[id]
		return known || len(f.before.Backups) == 0
	})
	there := map[int32]segment.Archive{}
	for _, a := range f.archives {
		there[a.Shard] = a
		if int(a.Shard) >= len(needed) { // no backup has the shard: nothing is promised
			f.next.Archives[a.Shard] = Row{a.All[0].Number, a.All[len(a.All)-1].Number}
			continue
		}
		if err := f.archive(ctx, a, needed[a.Shard]); err != nil {
			return err
		}
	}
	for shard, row := range f.before.Archives { // the newest is never deleted
		if all := there[shard].All; len(all) == 0 || all[len(all)-1].Number < row.Last {
			f.found(format.SegmentName(f.region, shard, row.Last), "missing from the bucket, and it was the newest of the shard's archive")
			f.next.Archives[shard] = row
		}
	}
	return nil
}

// archive looks whether the segments of a shard follow each other from where they are needed. Where none are known to have
// been before the first, more was never promised: keep may have been raised, or the archive begun later.
func (f *finding) archive(ctx context.Context, a segment.Archive, needed events.Vector) error {
	row, known := f.before.Archives[a.Shard]
	if a.Newest == nil { // which may say that what seems to be missing is void
		if known {
			f.next.Archives[a.Shard] = row
		}
		return nil
	}
	all := slices.DeleteFunc(slices.Clone(a.All), func(at segment.Listed) bool { return a.Newest.IsVoid(at.Number) })
	first := segment.Run(all, a.Newest)[0]
	f.next.Archives[a.Shard] = Row{first.Number, a.Newest.Number}
	to := first.Number - 1
	for a.Newest.IsVoid(to) {
		to--
	}
	from := to + 1
	if known {
		from = row.First
	}
	if i := slices.Index(all, first); i > 0 && (!known || all[i-1].Number >= from) {
		from = all[i-1].Number + 1
	}
	if from > to {
		return nil
	}
	begins, err := segment.HeaderOf(ctx, f.bucket, f.region, a.Shard, first)
	switch kind := events.KindOf(err); {
	case kind == events.KindNotFound || kind == events.KindInconsistent || kind == events.KindRefused: // pruned meanwhile, or damaged, which who looks at it tells
		return nil
	case err != nil:
		return err
	}
	if logs := startsBehind(begins, needed); len(logs) > 0 {
		f.found(format.SegmentName(f.region, a.Shard, to), "missing from the bucket, as all from segment %d on: points in time before segment %d cannot be restored, of %s", from, first.Number, strings.Join(logs, ", "))
		f.next.Archives[a.Shard] = Row{from, a.Newest.Number}
	}
	return nil
}

// startsBehind says of which logs a segment has nothing right behind a vector, nor tells of a gap from there. Logs that the vector lacks
// may have begun later.
func startsBehind(s *format.Segment, needed events.Vector) (logs []string) {
	starts := events.Vector{}
	for _, e := range s.Ends {
		starts[e.Log] = e.Next
	}
	for _, p := range s.Parts {
		if starts[p.Log] = p.From; p.Gap != nil {
			starts[p.Log] = p.Gap.From
		}
	}
	for _, e := range s.Ends {
		if next, is := needed[e.Log]; is && starts[e.Log] > next {
			logs = append(logs, e.Log.String())
		}
	}
	return logs
}
