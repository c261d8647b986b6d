package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// Object is one object of backups that exist, or of the archive, which can be looked at by itself.
type Object struct {
	Name    string
	Bytes   int64 // in the bucket, as what refers to it says
	Segment bool  // of the archive

	look   func(context.Context) error
	needed func(context.Context) (bool, error) // whether what refers to it is still there
}

// Listing is what a bucket holds of a region, by its listings and manifests.
type Listing struct {
	region   events.Region
	inv      *inventory.Inventory
	archives []segment.Archive
}

// List lists what a bucket holds of a region. The cache, which may be nil, saves reading manifests. Segments come before
// backups: whatever a prune had deleted of them by then, the backups tell that it might.
func List(ctx context.Context, bucket objstore.Reader, r events.Region, cache *catalog.Cache) (l *Listing, err error) {
	l = &Listing{region: r}
	if l.archives, err = segment.ListAll(ctx, bucket, r); err != nil {
		return nil, err
	}
	l.inv, err = inventory.ReadCached(ctx, bucket, r, cache)
	return l, err
}

// Objects are those of the backups that exist, their manifests too, and the segments of the archive.
func (l *Listing) Objects(src restore.Source, checks Checks) (all []Object) {
	for _, b := range l.inv.Backups {
		all = append(all, backupObjects(src, l.region, b, checks)...)
	}
	for _, a := range l.archives {
		for _, at := range segment.Run(a.All, a.Newest) { // what comes before a hole is nobody's
			all = append(all, segmentObject(src, l.region, a.Shard, at, checks))
		}
	}
	return all
}

func backupObjects(src restore.Source, r events.Region, b inventory.Backup, checks Checks) []Object {
	exists := func(ctx context.Context) (bool, error) {
		_, err := catalog.Load(ctx, src.Bucket, r, b.ID)
		switch events.KindOf(err) {
		case events.KindNotFound:
			return false, nil
		case events.KindInconsistent: // it is there, and damaged itself
			return true, nil
		}
		return true, err
	}
	manifest := Object{Name: format.ManifestName(r, b.ID), needed: exists, look: func(ctx context.Context) error {
		_, err := catalog.Load(ctx, src.Bucket, r, b.ID)
		return err
	}}
	objects := []Object{manifest}
	if b.Manifest == nil {
		return objects
	}
	for t := range b.Manifest.Tables() {
		depth := levelDecode
		if src.Opener.Fits(t.Keys) != nil {
			depth = levelHashes
		}
		size, _ := t.Stored()
		objects = append(objects, Object{Name: t.Name, Bytes: size, needed: exists, look: func(ctx context.Context) error {
			return table(ctx, src, t, depth, checks)
		}})
	}
	return objects
}

func segmentObject(src restore.Source, r events.Region, shard int32, at segment.Listed, checks Checks) Object {
	name := format.SegmentName(r, shard, at.Number)
	return Object{
		Name: name, Bytes: at.Size, Segment: true,
		look: func(ctx context.Context) error {
			_, err := look(ctx, src, r, shard, at.Number, levelDecode, checks)
			if errors.Is(err, seal.ErrNoKey) {
				_, err = look(ctx, src, r, shard, at.Number, levelHashes, checks)
			}
			return err
		},
		needed: func(ctx context.Context) (bool, error) { // it was listed: if it is not there it was pruned
			_, err := src.Bucket.Stat(ctx, name)
			if errors.Is(err, objstore.ErrNotFound) {
				return false, nil
			}
			return true, err
		},
	}
}

// Look looks at an object: at its hash, and, if an identity fits, at all that it holds. Damage is of kind
// events.KindInconsistent, and so is an object that is missing; one reading proves neither. gone is true if nothing needs
// the object any more.
func (o Object) Look(ctx context.Context) (gone bool, err error) {
	for range 2 {
		if err = o.look(ctx); err == nil {
			return false, nil
		}
		if kind := events.KindOf(err); kind != events.KindInconsistent && kind != events.KindNotFound {
			return false, fmt.Errorf("object %s: %w", o.Name, err)
		}
		needed, failed := o.needed(ctx)
		if failed != nil {
			return false, fmt.Errorf("object %s: %w", o.Name, failed)
		}
		if !needed {
			return true, nil
		}
	}
	return false, events.Errorf(events.KindInconsistent, "object %s: %w", o.Name, err)
}
