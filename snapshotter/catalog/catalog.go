// Package catalog finds backups in a bucket and publishes them. The bucket is
// the only catalogue: what has a manifest exists.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Publish creates the manifest of a backup whose tables are all in the bucket.
// From then on the backup exists.
func Publish(ctx context.Context, bucket objstore.Bucket, m *format.Manifest) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	if err := bucket.Create(ctx, format.ManifestName(m.Region, m.ID), text); err != nil {
		return fmt.Errorf("publish backup %s: %w", m.ID, err)
	}
	return nil
}

// IDs lists the backups of a region, oldest first. Objects that no backup has
// there are passed over.
func IDs(ctx context.Context, bucket objstore.Reader, r events.Region) ([]string, error) {
	var ids []string
	for info, err := range bucket.List(ctx, format.ManifestPrefix(r)) {
		if err != nil {
			return nil, fmt.Errorf("list backups of %s: %w", r, err)
		}
		if id, ok := format.ParseManifestName(r, info.Name); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Load reads one backup's manifest. A backup that there is not is KindNotFound,
// one whose manifest is damaged KindInconsistent.
func Load(ctx context.Context, bucket objstore.Reader, r events.Region, id string) (*format.Manifest, error) {
	if !format.ValidID(id) { // not even a name to ask for
		return nil, notFound(r, id)
	}
	name := format.ManifestName(r, id)
	text, err := objstore.ReadAll(ctx, bucket, name, format.MaxManifestBytes)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return nil, notFound(r, id)
	case errors.Is(err, objstore.ErrCorrupt):
		return nil, events.Errorf(events.KindInconsistent, "manifest of backup %s: %w", id, err)
	case err != nil:
		return nil, fmt.Errorf("manifest of backup %s: %w", id, err)
	}
	m, err := format.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", name, err)
	}
	if m.Region != r || m.ID != id {
		return nil, events.Errorf(events.KindInconsistent, "manifest %s is that of backup %s of %s", name, m.ID, m.Region)
	}
	return m, nil
}

func notFound(r events.Region, id string) error {
	return events.Errorf(events.KindNotFound, "there is no backup %q of %s; list those that exist with: evenkeel backup list", id, r)
}

// Newest reads the manifest of a region's newest backup.
func Newest(ctx context.Context, bucket objstore.Reader, r events.Region) (*format.Manifest, error) {
	ids, err := IDs(ctx, bucket, r)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, events.Errorf(events.KindNotFound, "the bucket holds no backup of %s; make one with: evenkeel backup create", r)
	}
	return Load(ctx, bucket, r, ids[len(ids)-1])
}
