package prune

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
)

// Policy says what is kept, of all streams alike. The zero Policy keeps nothing but what never goes. Ages are
// counted back from the newest backup, or from a clock that is behind it (earliestClock).
type Policy struct {
	Full   time.Duration // keep full backups that are younger
	Last   int           // keep so many of the newest full ones that can be restored
	Deltas Deltas

	Segment time.Duration // keep the segments for points in time that are younger, and the full backups that these begin with
}

// Deltas says how long deltas are kept, by their tier (catalog.Tier).
type Deltas struct {
	Finest     time.Duration
	TenMinutes time.Duration
	Hours      time.Duration // and longer steps
}

func (d Deltas) of(m *format.Manifest) time.Duration {
	switch step := catalog.Tier(m); {
	case step >= time.Hour:
		return d.Hours
	case step > 0:
		return d.TenMinutes
	}
	return d.Finest
}

// Grace is how much older than the newest backup a backup must be before a floor is
// raised past it. It is no matter of safety: a backup that takes longer than this
// cannot be published while others are pruned, and has to be made anew.
const Grace = 24 * time.Hour

// Verdict says what becomes of a backup.
type Verdict struct {
	Backup  string    `json:"backup"`
	Kind    string    `json:"kind"`
	Created time.Time `json:"created,omitzero"` // zero: its manifest cannot be read
	Bytes   int64     `json:"bytes"`            // that it has in the bucket
	Keep    bool      `json:"keep"`
	Why     string    `json:"why"`
	Held    *Held     `json:"held,omitempty"` // by Object Lock, and else it would go
}

// Leftover are tables that no manifest refers to.
type Leftover struct {
	Backup  string `json:"backup"` // that they were made for
	Objects int    `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Keep    bool   `json:"keep"`
	Why     string `json:"why"`
	Held    *Held  `json:"held,omitempty"` // by Object Lock, and else they would go
}

// decision is what to do about an inventory.
type decision struct {
	below     string // the floor that it needs; empty: none
	backups   []Verdict
	leftovers []Leftover
}

// deletes are the ids of the backups that are to go.
func (d *decision) deletes() (ids []string) {
	for _, v := range d.backups {
		if !v.Keep {
			ids = append(ids, v.Backup)
		}
	}
	return ids
}

// judge decides about what there is. What is held stays, by its id. What is above limit stays; no
// limit: what is too young to raise a floor past it.
func judge(inv *stock, policy Policy, held map[string]*Held, limit string) (*decision, error) {
	for _, b := range inv.Backups {
		if b.Manifest == nil {
			return nil, events.Errorf(events.KindRefused, "nothing is deleted while a manifest cannot be read, since nobody knows what it refers to: %s: %s; "+
				"if that backup is lost for good, delete this one object by hand", b.Problems[0].Object, b.Problems[0].Error)
		}
	}
	d := &decision{}
	newest := inv.Newest()
	if newest == nil {
		d.backups = verdicts(inv, func(inventory.Backup, newer) string { return "no backup can be restored" })
		d.leftovers = leftovers(inv, func(string) string { return "no backup can be restored" })
		return d, nil
	}
	tooYoung := func(id string) bool {
		if limit != "" {
			return id > limit
		}
		began, err := format.IDTime(id)
		return err != nil || id >= newest.ID || inv.now.Sub(began) < Grace
	}
	base := basePromised(inv, policy.Segment)
	d.backups = verdicts(inv, func(b inventory.Backup, n newer) string {
		why := reasonToKeep(policy, b, n, inv.now, pinned(inv, b.ID), tooYoung(b.ID), held[b.ID])
		switch {
		case why != "":
		case b.ID == inv.proved:
			why = "the newest that a restore drill has proved"
		case b.Restorable() && b.Kind() == format.Full && b.ID >= base && base != "":
			// Those that are newer than the oldest point will be what the oldest one is restored from.
			why = fmt.Sprintf("points in time of the last %s are restored from it", days(policy.Segment))
		}
		return why
	})
	d.leftovers = leftovers(inv, func(id string) string {
		switch {
		case pinned(inv, id) != "":
			return pinned(inv, id)
		case tooYoung(id):
			return "a backup may still be at work with this id"
		case held[id] != nil:
			return held[id].why()
		}
		return ""
	})
	d.note(held)
	for _, id := range d.deletes() {
		d.below = max(d.below, id)
	}
	for _, l := range d.leftovers {
		if !l.Keep {
			d.below = max(d.below, l.Backup)
		}
	}
	return d, nil
}

// note notes what would go if it were not held.
func (d *decision) note(held map[string]*Held) {
	for i := range d.backups {
		d.backups[i].Held = held[d.backups[i].Backup]
	}
	for i := range d.leftovers {
		d.leftovers[i].Held = held[d.leftovers[i].Backup]
	}
}

// newer are the backups that are newer than one and can be restored.
type newer struct {
	all, fulls int

	merge   map[events.Stream]string // of the newest
	current map[events.Region]uint32 // incarnations in the newest
	most    []events.Vector          // of those that hold what no other one does which is newer
}

// isOver says whether a log is one of which no newer backup will hold more: that of a stream that is gone, or of a former incarnation.
func (n *newer) isOver(l events.Log) bool {
	_, is := n.merge[l.Stream]
	return !is || l.Origin.Incarnation < n.current[l.Origin.Region]
}

// hold says whether one of them holds all that a backup does, of logs that go on. One
// is made of a shard that has not caught up yet, such as one that begins with an old directory: then a
// restore would come to less if what is before it went.
func (n *newer) hold(v events.Vector) bool {
	return slices.ContainsFunc(n.most, func(most events.Vector) bool {
		for l, next := range v {
			if most[l] < next && !n.isOver(l) {
				return false
			}
		}
		return true
	})
}

// note takes in the next older one, and says whether no other holds all that it does.
func (n *newer) note(b inventory.Backup) bool {
	if n.all++; n.merge == nil {
		n.merge, n.current = b.Manifest.Merge, map[events.Region]uint32{}
		for _, st := range b.Manifest.States() {
			o := st.Log.Origin
			n.current[o.Region] = max(n.current[o.Region], o.Incarnation)
		}
	}
	if b.Kind() == format.Full {
		n.fulls++
	}
	v := events.VectorOf(b.Manifest.States())
	if n.hold(v) {
		return false
	}
	n.most = append(n.most, v)
	return true
}

// reasonToKeep is empty if the backup is to go, unless one that stays builds on it.
func reasonToKeep(policy Policy, b inventory.Backup, n newer, reference time.Time, pin string, tooYoung bool, held *Held) string {
	keep, isFull := policy.Full, b.Kind() == format.Full
	if !isFull {
		keep = policy.Deltas.of(b.Manifest)
	}
	switch {
	case b.Restorable() && n.all == 0:
		return "the newest that can be restored"
	case b.Restorable() && isFull && n.fulls < policy.Last:
		return fmt.Sprintf("one of the last %d", policy.Last)
	case reference.Sub(b.Manifest.Created) <= keep:
		return fmt.Sprintf("not older than %s", days(keep))
	case pin != "":
		return pin
	case tooYoung:
		return fmt.Sprintf("not older than %s: a backup may still be at work", days(Grace))
	case held != nil:
		return held.why()
	}
	return ""
}

// pinned says who keeps a backup, empty: nobody.
func pinned(inv *stock, id string) string {
	p := inv.Pinned(id, inv.now)
	if p == nil {
		return ""
	}
	return fmt.Sprintf("pinned by %s (%s)", p.Owner, p.Object)
}

// verdicts asks for reasons, from the newest backup to the oldest: what builds on a
// backup is newer than it.
func verdicts(inv *stock, reason func(b inventory.Backup, n newer) string) []Verdict {
	list := []Verdict{}
	var n newer
	needed := map[string]string{} // by whom
	for _, b := range slices.Backward(inv.Backups) {
		why := reason(b, n)
		if by := needed[b.ID]; why == "" && by != "" {
			why = fmt.Sprintf("%s builds on it", by)
		}
		if b.Restorable() && n.note(b) && why == "" {
			why = "no newer one holds all that it does"
		}
		if why != "" {
			for _, parent := range b.Manifest.Parents {
				needed[parent] = b.ID
			}
		}
		v := Verdict{Backup: b.ID, Kind: b.Kind(), Created: b.Manifest.Created, Bytes: b.Manifest.StoredBytes(), Keep: why != "", Why: why}
		if why == "" {
			v.Why = "older than what is kept"
		}
		list = append(list, v)
	}
	slices.Reverse(list)
	return list
}

func leftovers(inv *stock, reason func(id string) string) []Leftover {
	list := []Leftover{}
	for _, id := range slices.Sorted(maps.Keys(inv.Unreferenced)) {
		l := Leftover{Backup: id, Objects: len(inv.Unreferenced[id]), Why: reason(id)}
		for _, info := range inv.Unreferenced[id] {
			l.Bytes += info.Size
		}
		if l.Keep = l.Why != ""; !l.Keep {
			l.Why = "no backup refers to them"
		}
		list = append(list, l)
	}
	return list
}

// days writes a duration the way the configuration does.
func days(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}
