package prune

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// Held is an object that the store does not let go (Object Lock).
type Held struct {
	Object string `json:"object"`
	objstore.Hold
}

func (h Held) why() string { return fmt.Sprintf("Object Lock holds it %s: %s", h.Hold, h.Object) }

// locks asks a store once about each object that is to be deleted. They are asked about before
// anything is planned: a store may well "delete" what is locked, by hiding it behind a marker, and of a
// backup that was given up without its tables, or without its manifest, nobody can restore
// what is locked of it.
type locks struct {
	store lockStore
	now   time.Time // of the newest stock
	known map[string]objstore.Hold
}

// lockStore is what is to be known of a bucket before anything is deleted in it.
type lockStore interface {
	objstore.Reader
	objstore.Holder
}

func newLocks(store lockStore) *locks {
	return &locks{store: store, known: map[string]objstore.Hold{}}
}

// ask finds out what holds some objects.
func (l *locks) ask(ctx context.Context, names []string) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, known := l.known[name]; return known })
	holds, err := l.store.Holds(ctx, names)
	if err != nil {
		return fmt.Errorf("nothing is deleted before it is known what Object Lock holds: %w", err)
	}
	for i, name := range names {
		l.known[name] = holds[i]
	}
	return nil
}

// first is the first of some objects that is held, of which ask has been told; nil: none is.
func (l *locks) first(names []string) *Held {
	for _, name := range names {
		if hold := l.known[name]; hold.Holds(l.now) {
			return &Held{Object: name, Hold: hold}
		}
	}
	return nil
}

// backups says which of some backups are held, by their ids; of each there is a list of objects. It asks
// for the first of each list first, which is its manifest if it has one: that was made last, and
// is held the longest by the usual rules.
func (l *locks) backups(ctx context.Context, objects map[string][]string) (map[string]*Held, error) {
	held := map[string]*Held{}
	var firsts, others []string
	for _, id := range slices.Sorted(maps.Keys(objects)) {
		firsts = append(firsts, objects[id][0])
	}
	if err := l.ask(ctx, firsts); err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(objects)) {
		if l.first(objects[id][:1]) == nil {
			others = append(others, objects[id][1:]...)
		}
	}
	if err := l.ask(ctx, others); err != nil {
		return nil, err
	}
	for id, names := range objects {
		if h := l.first(names); h != nil {
			held[id] = h
		}
	}
	return held, nil
}

// judge decides about what there is, and keeps what is held: a backup whole, and all that it builds on.
func (l *locks) judge(ctx context.Context, inv *stock, policy Policy, limit string) (d *decision, err error) {
	if inv.proved, err = newestProved(ctx, l.store, inv.Inventory); err != nil {
		return nil, err
	}
	if d, err = judge(inv, policy, nil, limit); err != nil {
		return nil, err
	}
	objects := map[string][]string{}
	for _, id := range d.deletes() {
		objects[id] = inv.Objects(id)
	}
	for _, left := range d.leftovers {
		if left.Keep {
			continue
		}
		for _, info := range inv.Unreferenced[left.Backup] {
			objects[left.Backup] = append(objects[left.Backup], info.Name)
		}
	}
	held, err := l.backups(ctx, objects)
	if err != nil || len(held) == 0 {
		return d, err
	}
	return judge(inv, policy, held, limit)
}

// late are the manifests of backups that were given up and may go. Of what was locked since, all
// stays in the bucket, with what it builds on: the report says so.
func (l *locks) late(ctx context.Context, inv *stock, ids []string, report *Report) (names []string, err error) {
	objects := map[string][]string{}
	for _, id := range ids {
		objects[id] = inv.Objects(id)
	}
	held, err := l.backups(ctx, objects)
	if err != nil {
		return nil, err
	}
	stays := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(held)) {
		report.hold(held[id])
		stays[id] = true
		for _, parent := range inv.Path(id) {
			stays[parent] = true
		}
	}
	report.Late = slices.DeleteFunc(report.Late, func(id string) bool { return stays[id] })
	for _, id := range ids {
		if !stays[id] {
			names = append(names, format.ManifestName(inv.Region, id))
		}
	}
	return names, nil
}

// lockedAtOnce is how many segments of the archive are asked about before the next are.
const lockedAtOnce = 1000

// cut finds the first of a shard's segments that is held, of those that are to go; nil: none. From there on
// the archive stays, and stays whole: readers take what has no hole. By the usual rules that
// is the first that is asked about.
func (l *locks) cut(ctx context.Context, names []string) (*Held, error) {
	for part := range slices.Chunk(names, lockedAtOnce) {
		if err := l.ask(ctx, part); err != nil {
			return nil, err
		}
		if h := l.first(part); h != nil {
			return h, nil
		}
	}
	return nil, nil
}
