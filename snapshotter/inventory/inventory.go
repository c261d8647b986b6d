// Package inventory takes stock of a region's backups by reading the bucket, and
// nothing else: which backups exist, whether all of their objects are there, what
// nothing refers to. It opens no table.
package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Inventory is what the bucket holds of a region.
type Inventory struct {
	Region  events.Region
	Plan    *format.Plan // the newest; nil: none
	Backups []Backup     // that exist, oldest first
	Late    []string     // ids of manifests that make no backup exist
	Pins    []catalog.PinStatus
	Clock   time.Time // of the bucket, when it got the newest of what was listed; zero: nothing was

	manifests map[string]*format.Manifest // those that can be read, late ones too

	// Unreferenced are the objects with tables that no manifest refers to, by the id
	// of the backup that they were made for.
	Unreferenced map[string][]objstore.Info
}

// Backup is a backup that exists.
type Backup struct {
	ID       string
	Stored   time.Time        // when the bucket got its manifest, by the bucket's clock
	Manifest *format.Manifest // nil: it cannot be read
	Problems []Problem        // none: it can be restored as far as sizes tell
}

// Kind is that of the backup; empty: its manifest cannot be read.
func (b Backup) Kind() string {
	if b.Manifest == nil {
		return ""
	}
	return cmp.Or(b.Manifest.Kind, format.Full)
}

// Problem is what is wrong with an object.
type Problem struct {
	Object string `json:"object"`
	Error  string `json:"error"`
}

// Restorable says whether all of the backup is there, and all that it builds on.
func (b Backup) Restorable() bool { return b.Manifest != nil && len(b.Problems) == 0 }

// Read takes stock. A manifest that cannot be read is a problem of its backup; a
// bucket that cannot be read is an error.
func Read(ctx context.Context, bucket objstore.Reader, r events.Region) (*Inventory, error) {
	return ReadCached(ctx, bucket, r, nil)
}

// ReadCached is Read for who does it again and again: manifests that the cache has are
// not read anew.
func ReadCached(ctx context.Context, bucket objstore.Reader, r events.Region, cache *catalog.Cache) (*Inventory, error) {
	inv := &Inventory{Region: r}
	// Pins and tables are listed before manifests are, and the plan is read last: who
	// publishes, pins or prunes meanwhile makes things look less deletable, not more.
	var err error
	if inv.Pins, err = catalog.Pins(ctx, bucket, r); err != nil {
		return nil, err
	}
	tables, err := listTables(ctx, bucket, r)
	if err != nil {
		return nil, err
	}
	manifests, err := readManifests(ctx, bucket, r, cache)
	if err != nil {
		return nil, err
	}
	if inv.Plan, err = catalog.NewestPlan(ctx, bucket, r); err != nil {
		return nil, err
	}
	for _, info := range tables {
		inv.tick(info.Modified)
	}
	inv.manifests = map[string]*format.Manifest{}
	restorable := map[string]bool{}
	for _, b := range manifests {
		inv.tick(b.Stored)
		if err := b.check(ctx, bucket, tables); err != nil {
			return nil, err
		}
		b.checkParent(restorable)
		restorable[b.ID] = b.Restorable()
		if b.Manifest != nil {
			inv.manifests[b.ID] = b.Manifest
		}
		if inv.GivenUp(inv.Plan, b.ID) {
			inv.Late = append(inv.Late, b.ID)
		} else {
			inv.Backups = append(inv.Backups, b)
		}
	}
	inv.Unreferenced = unreferenced(r, tables, manifests)
	return inv, inv.confirm(ctx, bucket, manifests)
}

// tick notes what the bucket's clock has said.
func (inv *Inventory) tick(at time.Time) {
	if at.After(inv.Clock) {
		inv.Clock = at
	}
}

// confirm asks for the manifests that the listing does not have and whose tables are
// there: a listing is no proof that something is missing.
func (inv *Inventory) confirm(ctx context.Context, bucket objstore.Reader, manifests []Backup) error {
	for id := range inv.Unreferenced {
		if slices.ContainsFunc(manifests, func(b Backup) bool { return b.ID == id }) {
			continue
		}
		_, err := bucket.Stat(ctx, format.ManifestName(inv.Region, id))
		switch {
		case err == nil:
			delete(inv.Unreferenced, id)
		case !errors.Is(err, objstore.ErrNotFound):
			return fmt.Errorf("manifest of backup %s: %w", id, err)
		}
	}
	return nil
}

// unreferenced are the tables that no manifest refers to, by the backup that they
// were made for. A manifest that cannot be read may refer to any.
func unreferenced(r events.Region, tables map[string]objstore.Info, manifests []Backup) map[string][]objstore.Info {
	needed := map[string]bool{}
	for _, b := range manifests {
		if b.Manifest == nil {
			return nil
		}
		for t := range b.Manifest.Tables() {
			needed[t.Name] = true
		}
	}
	found := map[string][]objstore.Info{}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		if id, ok := format.ParseTableName(r, name); ok && !needed[name] {
			found[id] = append(found[id], tables[name])
		}
	}
	return found
}

func listTables(ctx context.Context, bucket objstore.Reader, r events.Region) (map[string]objstore.Info, error) {
	tables := map[string]objstore.Info{}
	for info, err := range bucket.List(ctx, format.TablePrefix(r)) {
		if err != nil {
			return nil, fmt.Errorf("list tables of %s: %w", r, err)
		}
		tables[info.Name] = info
	}
	return tables, nil
}

// readManifests reads all manifests, oldest first.
func readManifests(ctx context.Context, bucket objstore.Reader, r events.Region, cache *catalog.Cache) ([]Backup, error) {
	listed, err := catalog.ListManifests(ctx, bucket, r)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, at := range listed {
		ids = append(ids, at.ID)
	}
	manifests, errs := catalog.ReadAll(ctx, bucket, r, ids, cache)
	var backups []Backup
	for i, id := range ids {
		b, err := Backup{ID: id, Stored: listed[i].Stored, Manifest: manifests[i]}, errs[i]
		switch kind := events.KindOf(err); {
		case kind == events.KindNotFound: // deleted meanwhile
			continue
		case kind == events.KindInconsistent || kind == events.KindRefused || errors.Is(err, objstore.ErrInvalid):
			b.Problems = []Problem{{Object: format.ManifestName(r, id), Error: err.Error()}}
		case err != nil:
			return nil, err
		}
		backups = append(backups, b)
	}
	return backups, nil
}

// Path is what a backup builds on, and itself; nothing if its manifest cannot be read.
func (inv *Inventory) Path(id string) []string {
	if m := inv.manifests[id]; m != nil {
		return m.Path()
	}
	return nil
}

// Objects are the names of what a backup has in the bucket: its manifest, and then its tables, of
// which nobody knows if the manifest cannot be read.
func (inv *Inventory) Objects(id string) []string {
	names := []string{format.ManifestName(inv.Region, id)}
	if m := inv.manifests[id]; m != nil {
		for t := range m.Tables() {
			names = append(names, t.Name)
		}
	}
	return names
}

// GivenUp says whether a plan does not let a manifest make a backup exist: for its own id
// or for what it builds on.
func (inv *Inventory) GivenUp(plan *format.Plan, id string) bool {
	return !plan.Exists(id) || slices.ContainsFunc(inv.Path(id), func(id string) bool { return !plan.Exists(id) })
}

// checkParent notes that what a delta builds on is not all there; restorable are the
// older backups.
func (b *Backup) checkParent(restorable map[string]bool) {
	if b.Manifest == nil || b.Manifest.Kind != format.Delta {
		return
	}
	parent := b.Manifest.Parent()
	if whole, there := restorable[parent]; !whole {
		problem := "missing from the bucket, and this backup builds on it"
		if there {
			problem = "cannot be restored, and this backup builds on it"
		}
		b.Problems = append(b.Problems, Problem{Object: format.ManifestName(b.Manifest.Region, parent), Error: problem})
	}
}

// check notes the objects of the backup that are missing or of another size. What
// the listing does not have is asked for: it may have come since.
func (b *Backup) check(ctx context.Context, bucket objstore.Reader, tables map[string]objstore.Info) error {
	if b.Manifest == nil {
		return nil
	}
	for t := range b.Manifest.Tables() {
		info, there := tables[t.Name]
		if !there {
			var err error
			info, err = bucket.Stat(ctx, t.Name)
			if errors.Is(err, objstore.ErrNotFound) {
				b.Problems = append(b.Problems, Problem{Object: t.Name, Error: "missing from the bucket"})
				continue
			}
			if err != nil {
				return fmt.Errorf("object %s: %w", t.Name, err)
			}
		}
		if size, _ := t.Stored(); info.Size != size {
			b.Problems = append(b.Problems, Problem{Object: t.Name, Error: fmt.Sprintf("%d bytes are there, the manifest says %d", info.Size, size)})
		}
	}
	return nil
}

// Pinned says who keeps a backup at a time, since somebody reads it or one that builds on
// it; nil: nobody.
func (inv *Inventory) Pinned(id string, now time.Time) *catalog.PinStatus {
	for i, p := range inv.Pins {
		path := inv.Path(p.Backup)
		builds := slices.Contains(path, id) || path == nil && id < p.Backup // it may build on anything
		if p.Holds(now) && (p.Backup == id || builds) {
			return &inv.Pins[i]
		}
	}
	return nil
}

// Ahead are the ids of the backups whose time is still to come: nobody knows how old they are.
func (inv *Inventory) Ahead(now time.Time) (ids []string) {
	for _, b := range inv.Backups {
		if b.Manifest != nil && catalog.Ahead(b.Manifest.Created, now) {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

// Agreed is the latest time that has come by two clocks that know nothing of each other: that of
// who made a backup, and the bucket's when it got it. Whose clock says that it is still to come has
// one that is behind. Zero: there is no backup.
func (inv *Inventory) Agreed() (at time.Time) {
	for _, b := range inv.Backups {
		if b.Manifest == nil {
			continue
		}
		both := b.Manifest.Created
		if b.Stored.Before(both) {
			both = b.Stored
		}
		if both.After(at) {
			at = both
		}
	}
	return at
}

// Newest is the newest backup that can be restored as far as sizes tell, nil if
// there is none.
func (inv *Inventory) Newest() *Backup {
	for i := range slices.Backward(inv.Backups) {
		if inv.Backups[i].Restorable() {
			return &inv.Backups[i]
		}
	}
	return nil
}

// NewestPast is Newest among the backups whose time is not still to come.
func (inv *Inventory) NewestPast(now time.Time) *Backup {
	return inv.newestPast(now, func(*Backup) bool { return true })
}

// NewestFull is NewestPast among the full backups.
func (inv *Inventory) NewestFull(now time.Time) *Backup {
	return inv.newestPast(now, func(b *Backup) bool { return b.Kind() == format.Full })
}

func (inv *Inventory) newestPast(now time.Time, is func(*Backup) bool) *Backup {
	for i := range slices.Backward(inv.Backups) {
		if b := &inv.Backups[i]; b.Restorable() && !catalog.Ahead(b.Manifest.Created, now) && is(b) {
			return b
		}
	}
	return nil
}

// Point is the newest backup from which a stream can be restored.
type Point struct {
	Stream  events.Stream     `json:"stream"`
	Backup  string            `json:"backup,omitempty"` // empty: none
	Created time.Time         `json:"created,omitzero"`
	Age     float64           `json:"age_seconds"` // what would be lost if the logs were lost too; -1: everything
	States  []events.LogState `json:"states"`
}

// Points finds the newest restorable point of each of the given streams, and of
// those that backups hold besides. Backups whose time is still to come are passed over.
func (inv *Inventory) Points(streams []events.Stream, now time.Time) []Point {
	points := map[events.Stream]*Point{}
	for _, s := range streams {
		points[s] = &Point{Stream: s, Age: -1, States: []events.LogState{}}
	}
	for _, b := range slices.Backward(inv.Backups) {
		if !b.Restorable() || catalog.Ahead(b.Manifest.Created, now) {
			continue
		}
		for s := range b.Manifest.Merge {
			if p, known := points[s]; known && p.Backup != "" {
				continue
			}
			p := &Point{Stream: s, Backup: b.ID, Created: b.Manifest.Created, Age: max(0, now.Sub(b.Manifest.Created).Seconds()), States: []events.LogState{}}
			for _, st := range b.Manifest.States() {
				if st.Log.Stream == s {
					p.States = append(p.States, st)
				}
			}
			points[s] = p
		}
	}
	var list []Point
	for _, s := range slices.Sorted(maps.Keys(points)) {
		list = append(list, *points[s])
	}
	return list
}
