package catalog_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// deltaOf is the manifest of a delta without tables.
func deltaOf(parent *format.Manifest, created time.Time) *format.Manifest {
	m := manifest(parent.Region, 0)
	m.ID, m.Created = format.NewID(created, [4]byte{1}), created
	m.Kind, m.Parents = format.Delta, parent.Path()
	return m
}

// chained is a full and deltas, each upon the one before.
func chained(n int) (all []*format.Manifest) {
	all = append(all, manifest(us, 0))
	for i := range n {
		all = append(all, deltaOf(all[i], all[i].Created.Add(time.Minute)))
	}
	return all
}

func TestLoadChain(t *testing.T) {
	b := checked(t)
	all := chained(3)
	publish(t, b, all...)
	for i, m := range all {
		chain, err := catalog.LoadChain(t.Context(), b, m)
		if err != nil || len(chain) != i+1 || chain.Newest() != m || chain[0].ID != all[0].ID || len(chain.Layers(0)) != i+1 {
			t.Errorf("%d: %v, %v", i, chain, err)
		}
	}
	if m, err := catalog.Newest(t.Context(), b, us); err != nil || m.ID != all[3].ID {
		t.Errorf("newest: %v, %v", m, err)
	}
}

// A chain of which a part is missing, damaged, or not what the others take it for.
func TestBrokenChainsAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(all []*format.Manifest) // before they are published
		damage func(b []byte) []byte        // of the second; nil: it is left out
		says   string
	}{
		"missing":        {nil, nil, "is missing"},
		"damaged":        {nil, func(b []byte) []byte { return b[1:] }, "hash"},
		"of other rules": {func(all []*format.Manifest) { all[1].Merge["x"] = "lww" }, same, "merge rules"},
		"of fewer shards": {func(all []*format.Manifest) {
			all[1].Shards = append(all[1].Shards, format.Shard{Partition: 1, Lineage: "l", States: []events.LogState{}, Tables: []format.Table{}})
		}, same, "shards"},
		"on another full": {func(all []*format.Manifest) { all[1].Parents = []string{format.NewID(time.UnixMilli(1), [4]byte{})} }, same, "parents"},
		"ahead": {func(all []*format.Manifest) {
			all[1].Shards[0].States = []events.LogState{{Log: events.Log{Origin: events.FirstOrigin("eu"), Stream: "s"}, Next: 1}}
		}, same, "stood at 1"},
		"a delta as a full": {func(all []*format.Manifest) {
			all[0].Kind, all[0].Parents = format.Delta, []string{format.NewID(time.UnixMilli(1), [4]byte{})}
		}, same, "does not build on"},
	} {
		b := checked(t)
		all := chained(2)
		if test.change != nil {
			test.change(all)
		}
		for i, m := range all {
			if i != 1 || test.damage != nil {
				text, err := m.Encode()
				if err != nil {
					t.Fatal(err)
				}
				put(t, b, format.ManifestName(us, m.ID), text)
			}
		}
		if test.damage != nil {
			if err := b.Damage(format.ManifestName(us, all[1].ID), test.damage); err != nil {
				t.Fatal(err)
			}
		}
		chain, err := catalog.LoadChain(t.Context(), b, all[2])
		if events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), test.says) || chain != nil {
			t.Errorf("%s: %v, %v", name, chain, err)
		}
	}
}

func same(b []byte) []byte { return b }

// A delta is no backup, and is not published, once a plan has given up what it builds on.
func TestDeltaOnWhatWasPruned(t *testing.T) {
	b := checked(t)
	full, kept := manifest(us, 0), manifest(us, 1)
	delta := deltaOf(full, full.Created.Add(time.Minute))
	publish(t, b, full, kept, delta)
	floor := &format.Floor{Format: 1, Region: us, Number: 1, Below: kept.ID, Created: full.Created, Owner: "o"}
	plan := &format.Plan{Format: 1, Region: us, Number: 1, Below: kept.ID, Created: full.Created, Owner: "o", Keep: []string{kept.ID}, Delete: []string{full.ID}}
	text, err := floor.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, format.FloorName(us, 1), text)

	// Between floor and plan nobody knows what becomes of the fulls.
	err = catalog.Publish(t.Context(), b, deltaOf(full, full.Created.Add(2*time.Minute)))
	if events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "may not count") {
		t.Errorf("while the plan is made: %v", err)
	}
	if text, err = plan.Encode(); err != nil {
		t.Fatal(err)
	}
	put(t, b, format.PlanName(us, 1), text)
	if _, err := catalog.Load(t.Context(), b, us, delta.ID); events.KindOf(err) != events.KindNotFound {
		t.Errorf("a delta on what is given up: %v", err)
	}
	if m, err := catalog.Newest(t.Context(), b, us); err != nil || m.ID != kept.ID {
		t.Errorf("newest: %v, %v", m, err)
	}
	if _, err := catalog.LoadChain(t.Context(), b, delta); err != nil {
		t.Errorf("its manifests are still there: %v", err)
	}
	if err := b.Delete(t.Context(), format.ManifestName(us, full.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.LoadChain(t.Context(), b, delta); events.KindOf(err) != events.KindNotFound {
		t.Errorf("its full is deleted: %v", err)
	}
	late := deltaOf(full, full.Created.Add(3*time.Minute))
	if err := catalog.Publish(t.Context(), b, late); events.KindOf(err) != events.KindRefused || strings.Contains(err.Error(), "may not count") {
		t.Errorf("a delta on what is gone: %v", err)
	}
	if _, err := b.Stat(t.Context(), format.ManifestName(us, late.ID)); err == nil {
		t.Error("and its manifest was written")
	}
	if err := catalog.Publish(t.Context(), b, deltaOf(kept, full.Created.Add(4*time.Minute))); err != nil {
		t.Errorf("a delta on what is kept: %v", err)
	}
	// The next floor is raised, and its plan may give up what the last one has kept.
	floor.Number, plan.Number, plan.Delete = 2, 2, []string{}
	if text, err = floor.Encode(); err != nil {
		t.Fatal(err)
	}
	put(t, b, format.FloorName(us, 2), text)
	if err := catalog.Publish(t.Context(), b, deltaOf(kept, full.Created.Add(5*time.Minute))); events.KindOf(err) != events.KindRefused {
		t.Errorf("while the next plan is made: %v", err)
	}
	if text, err = plan.Encode(); err != nil {
		t.Fatal(err)
	}
	put(t, b, format.PlanName(us, 2), text)
	if err := catalog.Publish(t.Context(), b, deltaOf(kept, full.Created.Add(6*time.Minute))); err != nil {
		t.Errorf("once the next plan has kept it: %v", err)
	}
	if _, err := catalog.Pin(t.Context(), b, delta, "late"); events.KindOf(err) != events.KindNotFound {
		t.Errorf("a pin: %v", err)
	}
}

// Whenever backups are made, and however long the pauses: a delta has at most one parent
// for each interval of each step.
func TestChainsStayShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "begin")).UTC()
		newest := manifest(us, 0)
		newest.ID = format.NewID(now, [4]byte{})
		every := rapid.SampledFrom([]time.Duration{30 * time.Second, time.Minute, 7 * time.Minute}).Draw(t, "every")
		pause := rapid.IntRange(0, 3000).Draw(t, "pause after")
		for i := range 3000 {
			now = now.Add(every)
			if i == pause {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(50*time.Hour)).Draw(t, "pause")))
			}
			parent := catalog.ParentFor(now, newest)
			path := newest.Path()
			at := slices.Index(path, parent)
			if at < 0 {
				t.Fatalf("%s is not in the path %q", parent, path)
			}
			m := manifest(us, 0)
			m.ID, m.Kind, m.Parents = format.NewID(now, [4]byte{}), format.Delta, path[:at+1]
			days := int(now.Sub(mustTime(t, path[0]))/(24*time.Hour)) + 1
			if most := 1 + days + 23 + 5 + int((10*time.Minute-1)/every) + 1; len(m.Parents) > most {
				t.Fatalf("%d parents at %s, every %s, want at most %d: %q", len(m.Parents), now, every, most, m.Parents)
			}
			newest = m
		}
	})
}

func mustTime(t *rapid.T, id string) time.Time {
	at, err := format.IDTime(id)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// What was read is not read again for an hour, and only what is asked for is kept.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := checked(t)
		all := chained(2)
		publish(t, b, all...)
		ids := []string{all[0].ID, all[1].ID, all[2].ID}
		var cache catalog.Cache
		read := func(ids []string) (whole int) {
			manifests, errs := catalog.ReadAll(t.Context(), b, us, ids, &cache)
			for i, m := range manifests {
				if (m == nil) != (errs[i] != nil) || m != nil && m.ID != ids[i] {
					t.Errorf("%s: %v, %v", ids[i], m, errs[i])
				}
				if m != nil {
					whole++
				}
			}
			return whole
		}
		if n := read(ids); n != 3 {
			t.Errorf("%d of 3", n)
		}
		for _, id := range ids[:2] {
			if err := b.Damage(format.ManifestName(us, id), func(b []byte) []byte { return b[1:] }); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(59 * time.Minute)
		if n := read(ids[1:]); n != 2 {
			t.Errorf("%d of 2, from the cache", n)
		}
		if n := read(ids); n != 2 {
			t.Errorf("%d, when the first is not in the cache any more", n)
		}
		time.Sleep(time.Minute)
		if n := read(ids); n != 1 {
			t.Errorf("%d after an hour", n)
		}
	})
}
