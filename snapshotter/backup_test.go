package snapshotter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

func TestFull(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	var uploaded atomic.Int64
	cfg := config
	cfg.Uploaded = func(n int64) { uploaded.Add(n) }
	begun := time.Now().Truncate(time.Millisecond)
	m, err := snapshotter.Full(t.Context(), bucket, someCuts(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if ids := audit(t, bucket, someCuts()); len(ids) != 1 || ids[0] != m.ID {
		t.Errorf("ids: %q, made: %q", ids, m.ID)
	}
	if m.Region != region || m.Software != "test" || m.Merge["session"] != "lww" || m.Format != format.Version || len(m.Shards) != 3 {
		t.Errorf("manifest: %+v", m)
	}
	if m.Created.Before(begun) || time.Since(m.Created) < 0 || !strings.HasPrefix(m.ID, m.Created.Format("20060102T150405.000Z")) {
		t.Errorf("backup %s of %s", m.ID, m.Created)
	}
	if n := uploaded.Load(); n != m.StoredBytes() || n <= m.Bytes() {
		t.Errorf("%d bytes uploaded, %d in the manifest", n, m.StoredBytes())
	}
	stored, err := catalog.Load(t.Context(), bucket, region, m.ID)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := m.Encode()
	if same, _ := stored.Encode(); string(same) != string(text) {
		t.Errorf("stored:\n%s\nreturned:\n%s", same, text)
	}
}

// Shards come in any order, without any table, and without a rule.
func TestFullOfOddRegions(t *testing.T) {
	for _, test := range []struct {
		name string
		cuts []snapshotter.Cut
	}{
		{"one shard", cutsOf([]string{"table"})},
		{"nothing in it", cutsOf(nil, nil)},
		{"the same contents twice", cutsOf([]string{"same", "same"}, []string{"same"})},
		{"many", cutsOf(make([][]string, 40)...)},
	} {
		bucket := objstore.NewMemory("backups")
		if _, err := snapshotter.Full(t.Context(), bucket, test.cuts, snapshotter.Config{Region: region, Sealer: seal.None()}); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if ids := audit(t, bucket, test.cuts); len(ids) != 1 {
			t.Errorf("%s: ids %q", test.name, ids)
		}
	}
	backwards := []snapshotter.Cut{&cut{partition: 1, tables: []string{"b"}}, &cut{partition: 0, tables: []string{"a"}}}
	bucket := objstore.NewMemory("backups")
	if _, err := snapshotter.Full(t.Context(), bucket, backwards, config); err != nil {
		t.Error(err)
	}
	audit(t, bucket, backwards)
}

// What is no backup of a whole region is not published, whoever is to blame.
func TestFullRefuses(t *testing.T) {
	one := func(c *cut) []snapshotter.Cut { return []snapshotter.Cut{c, &cut{partition: 1}} }
	for _, test := range []struct {
		name string
		cuts []snapshotter.Cut
		cfg  snapshotter.Config
		says string
	}{
		{"no shards", nil, config, "shards"},
		{"shard missing", []snapshotter.Cut{&cut{partition: 0}, &cut{partition: 2}}, config, "place 1"},
		{"shard twice", []snapshotter.Cut{&cut{partition: 0}, &cut{partition: 0}}, config, "place 1"},
		{"no region", someCuts(), snapshotter.Config{}, "region"},
		{"cut breaks at once", one(&cut{tables: []string{"a"}, breaksAt: 1}), config, errBroken.Error()},
		{"cut breaks later", one(&cut{tables: []string{"a", "b", "c"}, breaksAt: 3}), config, errBroken.Error()},
		{"cut does not close a table", one(&cut{tables: []string{"a", "b"}, forgets: true}), config, "1 of 2 tables"},
		{"empty table", one(&cut{tables: []string{""}}), config, "0 bytes"},
		{"no sealer", someCuts(), snapshotter.Config{Region: region}, "sealer"},
	} {
		bucket := objstore.NewMemory("backups")
		m, err := snapshotter.Full(t.Context(), bucket, test.cuts, test.cfg)
		if err == nil || m != nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q in it", test.name, err, test.says)
		}
		if ids := audit(t, bucket); len(ids) > 0 {
			t.Errorf("%s: published", test.name)
		}
	}
}

// A cut that makes nothing of a failed upload does not lead to a backup with a
// hole.
func TestFullDoesNotTrustTheCut(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	faulty := faults.New(bucket, faults.Rule{Ops: []string{objstore.OpCreate}, Nth: 2, Effect: faults.FailBefore})
	cuts := []snapshotter.Cut{&cut{tables: []string{"a", "b", "c"}, hides: true}}
	if m, err := snapshotter.Full(t.Context(), faulty, cuts, config); err == nil {
		t.Errorf("backup %s has a hole", m.ID)
	}
	if ids := audit(t, bucket, cuts); len(ids) > 0 {
		t.Errorf("published: %q", ids)
	}
}

// The error of a backup names the shard and the object.
func TestFullNamesWhatFailed(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	faulty := faults.New(bucket, faults.Rule{Name: "*/shard-0002/000001-*", Effect: faults.Deny})
	_, err := snapshotter.Full(t.Context(), faulty, someCuts(), config)
	if !errors.Is(err, objstore.ErrAccess) || !strings.Contains(err.Error(), "shard 2") || !strings.Contains(err.Error(), "/shard-0002/000001-") {
		t.Errorf("error: %v", err)
	}
}

// Any number of backups at once are all whole, and all have names of their own.
func TestConcurrentBackups(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	g, ctx := errgroup.WithContext(t.Context())
	const backups = 8
	var all [][]snapshotter.Cut
	for i := range backups {
		cuts := cutsOf([]string{fmt.Sprint("table of ", i), "the same in all"}, []string{"the same in all"})
		all = append(all, cuts)
		g.Go(func() error {
			_, err := snapshotter.Full(ctx, bucket, cuts, config)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if ids := audit(t, bucket, all...); len(ids) != backups {
		t.Errorf("ids: %q", ids)
	}
}

// Backups in one millisecond have different names; later ones sort behind.
func TestNamesOfBackups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := objstore.NewMemory("backups")
		var made []string
		for i := range 20 {
			m, err := snapshotter.Full(t.Context(), bucket, someCuts(), config)
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Now().UTC(); !m.Created.Equal(want) {
				t.Errorf("created %s, it is %s", m.Created, want)
			}
			made = append(made, m.ID)
			time.Sleep(time.Duration(i%3) * time.Millisecond) // three in each millisecond but one
		}
		ids := audit(t, bucket, someCuts())
		if len(ids) != len(made) {
			t.Fatalf("%d of %d backups", len(ids), len(made))
		}
		const stamp = len("20060102T150405.000Z")
		for i := range ids {
			if ids[i][:stamp] != made[i][:stamp] {
				t.Errorf("place %d: %s, made was %s", i, ids[i], made[i])
			}
		}
	})
}

// Every backup that can be seen restores to exactly its cut, whatever the bucket
// does to any number of them.
func TestEveryVisibleBackupRestores(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bucket := objstore.NewMemory("backups")
		rules := []faults.Rule{
			{Ops: []string{objstore.OpCreate}, Effect: faults.FailBefore, Probability: rapid.Float64Range(0.001, 0.2).Draw(rt, "fail before")},
			{Ops: []string{objstore.OpCreate}, Effect: faults.FailAfter, Probability: rapid.Float64Range(0.001, 0.2).Draw(rt, "fail after")},
			{Ops: []string{objstore.OpCreate}, Effect: faults.Late, Probability: rapid.Float64Range(0.001, 0.2).Draw(rt, "late")},
		}
		faulty := faults.NewSeed(bucket, rapid.Uint64().Draw(rt, "seed"), rules...)
		var all [][]snapshotter.Cut
		succeeded := 0
		table := rapid.StringN(1, 2000, -1)
		for range rapid.IntRange(1, 5).Draw(rt, "backups") {
			var tables [][]string
			for range rapid.IntRange(1, 4).Draw(rt, "shards") {
				tables = append(tables, rapid.SliceOfN(table, 0, 4).Draw(rt, "tables"))
			}
			cuts := cutsOf(tables...)
			all = append(all, cuts)
			if m, err := snapshotter.Full(context.Background(), faulty, cuts, config); err == nil {
				succeeded++
				if m.Validate() != nil {
					rt.Errorf("manifest: %v", m.Validate())
				}
			}
		}
		ids := audit(rt, bucket, all...)
		if len(ids) < succeeded {
			rt.Errorf("%d backups succeeded, %d are there", succeeded, len(ids))
		}
		faulty.Land(context.Background()) // uploads that everybody has given up
		if after := audit(rt, bucket, all...); len(after) < len(ids) {
			rt.Errorf("%d backups before late uploads landed, %d after", len(ids), len(after))
		}
	})
}

// A backup leaves nothing but its own objects.
func TestBackupWritesItsOwnNamesOnly(t *testing.T) {
	bucket := objstore.NewMemory("backups")
	m, err := snapshotter.Full(t.Context(), bucket, someCuts(), config)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{format.ManifestName(region, m.ID): true}
	for _, s := range m.Shards {
		for _, tab := range s.Tables {
			want[tab.Name] = true
		}
	}
	n := 0
	for info, err := range bucket.List(t.Context(), "") {
		n++
		if err != nil || !want[info.Name] {
			t.Errorf("object %q, %v", info.Name, err)
		}
	}
	if n != len(want) || n != tablesOfSome+1 {
		t.Errorf("%d objects, want %d", n, tablesOfSome+1)
	}
}
