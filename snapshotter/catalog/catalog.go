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
// From then on the backup exists, unless its id has come to lie at or below the
// floor meanwhile: then the error is of kind events.KindRefused, and a new backup
// is to be made. Publish deletes nothing: what came too late makes no backup exist,
// and the next prune tidies it up.
func Publish(ctx context.Context, bucket objstore.Bucket, m *format.Manifest) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	if err := checkFloor(ctx, bucket, m); err != nil {
		return fmt.Errorf("publish backup %s: %w", m.ID, err)
	}
	if err := bucket.Create(ctx, format.ManifestName(m.Region, m.ID), text); err != nil {
		return fmt.Errorf("publish backup %s: %w", m.ID, err)
	}
	// A floor that was raised before the manifest was created is seen now. One
	// that is raised later finds the manifest.
	err = checkFloor(ctx, bucket, m)
	if events.KindOf(err) == events.KindRefused {
		plan, planErr := NewestPlan(ctx, bucket, m.Region)
		if planErr == nil && plan != nil && m.ID <= plan.Below && plan.Exists(m.ID) {
			return nil // it was in time all the same
		}
	}
	if err != nil {
		return fmt.Errorf("backup %s has a manifest and may not count: %w", m.ID, err)
	}
	return nil
}

// checkFloor refuses what lies at or below the floor.
func checkFloor(ctx context.Context, bucket objstore.Reader, m *format.Manifest) error {
	floor, err := NewestFloor(ctx, bucket, m.Region)
	if err != nil {
		return err
	}
	if floor != nil && m.ID <= floor.Below {
		return events.Errorf(events.KindRefused, "it took so long that old backups were pruned past it (up to %s); make a new one, and check this machine's clock", floor.Below)
	}
	return nil
}

// IDs lists the backups of a region, oldest first. Objects that no backup has
// there are passed over, and so are manifests that came too late.
func IDs(ctx context.Context, bucket objstore.Reader, r events.Region) ([]string, error) {
	ids, err := Manifests(ctx, bucket, r)
	if err != nil {
		return nil, err
	}
	// Only now: a plan that is made after it was read may have things deleted of
	// which the listing would still tell.
	plan, err := NewestPlan(ctx, bucket, r)
	if err != nil {
		return nil, fmt.Errorf("list backups of %s: %w", r, err)
	}
	return slices.DeleteFunc(ids, func(id string) bool { return !plan.Exists(id) }), nil
}

// Manifests lists the ids of all manifests of a region, oldest first, also of
// those that make no backup exist.
func Manifests(ctx context.Context, bucket objstore.Reader, r events.Region) ([]string, error) {
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
	m, err := Manifest(ctx, bucket, r, id)
	if err != nil {
		return nil, err
	}
	if err := exists(ctx, bucket, r, id); err != nil {
		return nil, err
	}
	return m, nil
}

// Manifest reads a manifest as Load does, also one that makes no backup exist.
func Manifest(ctx context.Context, bucket objstore.Reader, r events.Region, id string) (*format.Manifest, error) {
	if !format.ValidID(id) { // not even a name to ask for
		return nil, NotFound(r, id)
	}
	name := format.ManifestName(r, id)
	text, err := objstore.ReadAll(ctx, bucket, name, format.MaxManifestBytes)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return nil, NotFound(r, id)
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

// exists is nil if the newest plan does not tell otherwise.
func exists(ctx context.Context, bucket objstore.Reader, r events.Region, id string) error {
	plan, err := NewestPlan(ctx, bucket, r)
	switch {
	case err != nil:
		return fmt.Errorf("backup %s: %w", id, err)
	case !plan.Exists(id):
		return NotFound(r, id)
	}
	return nil
}

// NotFound says that there is no such backup.
func NotFound(r events.Region, id string) error {
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
