package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Publish creates the manifest of a backup whose tables are all in the bucket.
// From then on the backup exists, unless its id, or that of a backup that it builds on,
// has come to lie at or below the floor meanwhile: then the error is of kind
// events.KindRefused, and a new backup is to be made. Publish deletes nothing: what
// came too late makes no backup exist, and the next prune tidies it up.
func Publish(ctx context.Context, bucket objstore.Bucket, m *format.Manifest) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	if err := checkBefore(ctx, bucket, m); err != nil {
		return fmt.Errorf("publish backup %s: %w", m.ID, err)
	}
	if err := bucket.Create(ctx, format.ManifestName(m.Region, m.ID), text); err != nil {
		return fmt.Errorf("publish backup %s: %w", m.ID, err)
	}
	if err := checkAfter(ctx, bucket, m); err != nil {
		return fmt.Errorf("backup %s has a manifest and may not count: %w", m.ID, err)
	}
	return nil
}

// checkBefore refuses what would not count: what lies at or below the floor, and a
// delta of which a parent does not exist.
func checkBefore(ctx context.Context, bucket objstore.Reader, m *format.Manifest) error {
	floor, err := NewestFloor(ctx, bucket, m.Region)
	if err != nil {
		return err
	}
	if floor != nil && m.ID <= floor.Below {
		return tooLate(floor)
	}
	if m.Kind != format.Delta {
		return nil
	}
	plan, err := NewestPlan(ctx, bucket, m.Region)
	if err != nil {
		return err
	}
	if !plan.Has(m) {
		return events.Errorf(events.KindRefused, "a backup that it builds on was pruned; make a new one")
	}
	return nil
}

// checkAfter says whether a manifest counts that has been created. A floor that is
// raised later finds the manifest, and its plan decides about it and all that it builds
// on together. One that was raised before may have been raised past any of them: then
// what counts is the plan of that floor, or an earlier one that knew the manifest.
func checkAfter(ctx context.Context, bucket objstore.Reader, m *format.Manifest) error {
	floor, err := NewestFloor(ctx, bucket, m.Region)
	if err != nil {
		return err
	}
	if floor == nil || m.Path()[0] > floor.Below { // ids ascend
		return nil
	}
	plan, err := NewestPlan(ctx, bucket, m.Region)
	if err != nil {
		return err
	}
	if plan != nil && plan.Has(m) && (plan.Number >= floor.Number || m.ID <= plan.Below) {
		return nil // it was in time all the same
	}
	return tooLate(floor)
}

func tooLate(floor *format.Floor) error {
	return events.Errorf(events.KindRefused, "it took so long that old backups were pruned past it (up to %s); make a new one, and check this machine's clock", floor.Below)
}

// IDs lists the backups of a region, oldest first. Objects that no backup has
// there are passed over, and so are manifests that came too late. No manifest is read:
// of a delta whose parent came too late only Load tells that it does not exist.
func IDs(ctx context.Context, bucket objstore.Reader, r events.Region) ([]string, error) {
	ids, _, err := list(ctx, bucket, r)
	return ids, err
}

// list is IDs, with the plan by which it goes.
func list(ctx context.Context, bucket objstore.Reader, r events.Region) ([]string, *format.Plan, error) {
	ids, err := Manifests(ctx, bucket, r)
	if err != nil {
		return nil, nil, err
	}
	// Only now: a plan that is made after it was read may have things deleted of
	// which the listing would still tell.
	plan, err := NewestPlan(ctx, bucket, r)
	if err != nil {
		return nil, nil, fmt.Errorf("list backups of %s: %w", r, err)
	}
	return slices.DeleteFunc(ids, func(id string) bool { return !plan.Exists(id) }), plan, nil
}

// Manifests lists the ids of all manifests of a region, oldest first, also of
// those that make no backup exist.
func Manifests(ctx context.Context, bucket objstore.Reader, r events.Region) ([]string, error) {
	listed, err := ListManifests(ctx, bucket, r)
	var ids []string
	for _, at := range listed {
		ids = append(ids, at.ID)
	}
	return ids, err
}

// Listed is a manifest in a listing.
type Listed struct {
	ID     string
	Stored time.Time // when the bucket got it, by the bucket's clock
}

// ListManifests is Manifests, with what the bucket says of each.
func ListManifests(ctx context.Context, bucket objstore.Reader, r events.Region) ([]Listed, error) {
	var listed []Listed
	for info, err := range bucket.List(ctx, format.ManifestPrefix(r)) {
		if err != nil {
			return nil, fmt.Errorf("list backups of %s: %w", r, err)
		}
		if id, ok := format.ParseManifestName(r, info.Name); ok {
			listed = append(listed, Listed{ID: id, Stored: info.Modified})
		}
	}
	slices.SortFunc(listed, func(a, b Listed) int { return cmp.Compare(a.ID, b.ID) })
	return listed, nil
}

// Load reads one backup's manifest. A backup that there is not is KindNotFound,
// one whose manifest is damaged KindInconsistent.
func Load(ctx context.Context, bucket objstore.Reader, r events.Region, id string) (*format.Manifest, error) {
	m, err := Manifest(ctx, bucket, r, id)
	if err != nil {
		return nil, err
	}
	if err := exists(ctx, bucket, m); err != nil {
		return nil, err
	}
	return m, nil
}

// exists is nil if the newest plan does not tell otherwise of the backup or of what it
// builds on.
func exists(ctx context.Context, bucket objstore.Reader, m *format.Manifest) error {
	plan, err := NewestPlan(ctx, bucket, m.Region)
	switch {
	case err != nil:
		return fmt.Errorf("backup %s: %w", m.ID, err)
	case !plan.Has(m):
		return NotFound(m.Region, m.ID)
	}
	return nil
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

// parallelReads bounds how many manifests are read at a time.
const parallelReads = 16

// ReadAll reads manifests, several at a time, as Manifest does one. At the place of each
// id is its manifest, or why there is none. cache may be nil.
func ReadAll(ctx context.Context, bucket objstore.Reader, r events.Region, ids []string, cache *Cache) ([]*format.Manifest, []error) {
	manifests, errs := cache.take(ids, time.Now()), make([]error, len(ids))
	var g errgroup.Group
	g.SetLimit(parallelReads)
	for i, id := range ids {
		if manifests[i] != nil {
			continue
		}
		g.Go(func() error {
			manifests[i], errs[i] = Manifest(ctx, bucket, r, id)
			return nil
		})
	}
	_ = g.Wait() // nothing returns an error
	cache.keep(manifests)
	return manifests, errs
}

// Cache keeps the manifests of one region that ReadAll has read, for an hour: they are
// immutable, and there may be thousands. What happens to one meanwhile, other than that
// it is deleted, is not seen. It is safe for concurrent use.
type Cache struct {
	mu        sync.Mutex
	begun     time.Time
	manifests map[string]*format.Manifest
}

const cacheFor = time.Hour

// take gives what is known of some manifests, nil for the others.
func (c *Cache) take(ids []string, now time.Time) []*format.Manifest {
	known := make([]*format.Manifest, len(ids))
	if c == nil {
		return known
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.begun) >= cacheFor {
		c.begun, c.manifests = now, nil
	}
	for i, id := range ids {
		known[i] = c.manifests[id]
	}
	return known
}

// keep keeps some manifests, and lets go of all others.
func (c *Cache) keep(manifests []*format.Manifest) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.manifests = map[string]*format.Manifest{}
	for _, m := range manifests {
		if m != nil {
			c.manifests[m.ID] = m
		}
	}
}

// All reads the manifests of all backups that exist, oldest first. One that cannot be
// read is an error.
func All(ctx context.Context, bucket objstore.Reader, r events.Region) ([]*format.Manifest, error) {
	ids, err := Manifests(ctx, bucket, r)
	if err != nil {
		return nil, err
	}
	manifests, errs := ReadAll(ctx, bucket, r, ids, nil)
	plan, err := NewestPlan(ctx, bucket, r)
	if err != nil {
		return nil, fmt.Errorf("list backups of %s: %w", r, err)
	}
	var all []*format.Manifest
	for i, m := range manifests {
		switch err := errs[i]; {
		case events.KindOf(err) == events.KindNotFound || err != nil && !plan.Exists(ids[i]): // deleted meanwhile, or nobody's
		case err != nil:
			return nil, fmt.Errorf("list backups: %w", err)
		case plan.Has(m):
			all = append(all, m)
		}
	}
	return all, nil
}

// NotFound says that there is no such backup.
func NotFound(r events.Region, id string) error {
	return events.Errorf(events.KindNotFound, "there is no backup %q of %s; list those that exist with: evenkeel backup list", id, r)
}

// Newest reads the manifest of a region's newest backup.
func Newest(ctx context.Context, bucket objstore.Reader, r events.Region) (*format.Manifest, error) {
	return newest(ctx, bucket, r, func(string) bool { return false })
}

// NewestPast is Newest among the backups whose time is not still to come (Ahead).
func NewestPast(ctx context.Context, bucket objstore.Reader, r events.Region, now time.Time) (*format.Manifest, error) {
	return newest(ctx, bucket, r, func(id string) bool {
		began, err := format.IDTime(id)
		return err != nil || Ahead(began, now)
	})
}

// newest is the newest backup that is not to be passed over.
func newest(ctx context.Context, bucket objstore.Reader, r events.Region, passOver func(id string) bool) (*format.Manifest, error) {
	ids, plan, err := list(ctx, bucket, r)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Backward(slices.DeleteFunc(ids, passOver)) {
		m, err := Manifest(ctx, bucket, r, id)
		if events.KindOf(err) == events.KindNotFound || err == nil && !plan.Has(m) {
			continue // it has been pruned meanwhile, or what it builds on has
		}
		return m, err
	}
	return nil, events.Errorf(events.KindNotFound, "the bucket holds no backup of %s; make one with: evenkeel backup create", r)
}
