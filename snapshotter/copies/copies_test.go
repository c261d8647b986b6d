package copies_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/copies"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const region = events.Region("us-east-1")

// cut is a shard with one table.
type cut struct {
	partition int32
	table     string
}

func (c cut) Partition() int32          { return c.partition }
func (c cut) LineageID() string         { return "lineage" }
func (c cut) Epoch() events.Epoch       { return 0 }
func (c cut) States() []events.LogState { return nil }

func (c cut) WriteTables(_ context.Context, _ int64, create func(first []byte) (io.WriteCloser, error)) error {
	w, err := create([]byte("key"))
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, c.table)
	return errors.Join(err, w.Close())
}

// backup makes a backup of two shards.
func backup(t *testing.T, bucket objstore.Bucket, contents string) string {
	t.Helper()
	m, err := snapshotter.Full(t.Context(), bucket, []snapshotter.Cut{cut{0, contents}, cut{1, contents + " again"}},
		snapshotter.Config{Region: region, Software: "test", Merge: map[events.Stream]string{"session": "lww"}, Sealer: seal.None()})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	return m.ID
}

// archive appends a segment to the archive of a shard.
func archive(t *testing.T, bucket objstore.Bucket, shard int32) {
	t.Helper()
	newest, err := segment.Newest(t.Context(), bucket, region, shard)
	if err != nil {
		t.Fatal(err)
	}
	b := segment.NewBuilder(segment.Config{
		Region: region, Shard: shard, Software: "test", Sealer: seal.None(), Chain: func(d events.Digest, _ *kgo.Record) events.Digest { d[0]++; return d },
	}, newest)
	l := events.Log{Origin: events.FirstOrigin(region), Stream: "session", Partition: shard}
	if newest == nil {
		err = b.Begin(format.LogEnd{Log: l})
	}
	next, _ := b.Next(l)
	if err := errors.Join(err, b.Add(l, &kgo.Record{Offset: next, Timestamp: time.UnixMilli(next), Value: []byte("value")})); err != nil {
		t.Fatal(err)
	}
	s, object, err := b.Close(time.Now(), 0, func(events.Log, int64) (events.Mark, bool) { return events.Mark{}, false })
	if err == nil {
		err = segment.Append(t.Context(), bucket, s, object)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// objects are those of a bucket that are copied.
func objects(t *testing.T, bucket objstore.Reader) map[string]string {
	t.Helper()
	found := map[string]string{}
	for info, err := range bucket.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(info.Name, "/floors/") || strings.Contains(info.Name, "/plans/") {
			continue
		}
		body, err := objstore.ReadAll(t.Context(), bucket, info.Name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		found[info.Name] = string(body)
	}
	return found
}

func equal(t *testing.T, from, to objstore.Reader) {
	t.Helper()
	want, got := objects(t, from), objects(t, to)
	for name, body := range want {
		if got[name] != body {
			t.Errorf("%s: %q, want %q", name, got[name], body)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is in the copy alone", name)
	}
}

// whole fails unless every backup that can be seen has all its objects.
func whole(t *testing.T, bucket objstore.Reader) (ids []string) {
	t.Helper()
	inv, err := inventory.Read(t.Context(), bucket, region)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range inv.Backups {
		if !b.Restorable() {
			t.Errorf("backup %s: %+v", b.ID, b.Problems)
		}
		ids = append(ids, b.ID)
	}
	return ids
}

func TestCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
		cfg := copies.Config{Region: region, From: from, To: to, Owner: "test"}
		run := func(backups, segments int) {
			t.Helper()
			r, err := copies.Run(t.Context(), cfg)
			if err != nil || len(r.Backups) != backups || r.Segments != segments {
				t.Errorf("%+v, %v", r, err)
			}
			equal(t, from, to)
		}
		run(0, 0)
		backup(t, from, "one")
		archive(t, from, 0)
		archive(t, from, 1)
		archive(t, from, 1)
		run(1, 3)
		run(0, 0)
		backup(t, from, "two")
		backup(t, from, "three")
		archive(t, from, 1)
		run(2, 1)
		if ids := whole(t, to); len(ids) != 3 {
			t.Errorf("backups: %q", ids)
		}
	})
}

// What the copy has pruned does not come back, and what the first bucket has pruned
// stays in the copy.
func TestCopyAndPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
		cfg := copies.Config{Region: region, From: from, To: to, Owner: "test"}
		var ids []string
		for i := range 4 {
			ids = append(ids, backup(t, from, fmt.Sprint(i)))
			time.Sleep(48 * time.Hour)
		}
		if _, err := copies.Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := prune.Run(t.Context(), to, prune.Config{Region: region, Software: "test", Policy: prune.Policy{Last: 1}}); err != nil {
			t.Fatal(err)
		}
		r, err := copies.Run(t.Context(), cfg)
		if err != nil || len(r.Backups) > 0 || len(r.Skipped) != 3 {
			t.Errorf("%+v, %v", r, err)
		}
		if got := whole(t, to); len(got) != 1 || got[0] != ids[3] {
			t.Errorf("the copy has %q", got)
		}
		late := backup(t, from, "late")
		if _, err := prune.Run(t.Context(), from, prune.Config{Region: region, Software: "test", Policy: prune.Policy{Last: 1}}); err != nil {
			t.Fatal(err)
		}
		if r, err := copies.Run(t.Context(), cfg); err != nil || !slices.Equal(r.Backups, []string{late}) {
			t.Errorf("%+v, %v", r, err)
		}
		if got := whole(t, to); !slices.Equal(got, []string{ids[3], late}) {
			t.Errorf("the copy has %q", got)
		}
	})
}

// Every write and read of a copy goes wrong in every way: nothing that can be seen in
// the copy lacks anything, and the next run completes it.
func TestCrashMatrix(t *testing.T) {
	for _, effect := range []faults.Effect{faults.FailBefore, faults.FailAfter, faults.Late, faults.Deny, faults.TearBody, faults.TruncateBody, faults.FlipBit} {
		for nth := 1; nth <= 24; nth++ {
			for _, side := range []string{"from", "to"} {
				synctest.Test(t, func(t *testing.T) {
					from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
					backup(t, from, "one")
					backup(t, from, "two")
					archive(t, from, 0)
					archive(t, from, 1)
					faultyFrom, faultyTo := faults.New(from), faults.New(to)
					rule := faults.Rule{Nth: nth, Effect: effect}
					if effect == faults.Late {
						rule.Ops = []string{objstore.OpCreate}
					}
					map[string]*faults.Bucket{"from": faultyFrom, "to": faultyTo}[side].SetRules(rule)
					cfg := copies.Config{Region: region, From: faultyFrom, To: faultyTo, Owner: "test"}
					_, _ = copies.Run(t.Context(), cfg)
					whole(t, to)
					faultyFrom.SetRules()
					faultyTo.SetRules()
					for _, err := range faultyTo.Land(t.Context()) {
						if err != nil {
							t.Error(err)
						}
					}
					whole(t, to)
					if _, err := copies.Run(t.Context(), cfg); err != nil {
						t.Errorf("%s of %s, call %d: %v", effect, side, nth, err)
					}
					if ids := whole(t, to); len(ids) != 2 {
						t.Errorf("%s of %s, call %d: the copy has %q", effect, side, nth, ids)
					}
					if v := slices.Concat(from.Violations(), to.Violations()); len(v) > 0 {
						t.Errorf("%q", v)
					}
				})
			}
		}
	}
}

// What somebody has deleted of a copy comes back as long as it is where it was copied from, but
// not what was pruned; what cannot come back is named.
func TestLostComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
		cfg := copies.Config{Region: region, From: from, To: to, Owner: "test", Cache: &catalog.Cache{}}
		run := func() (*copies.Report, error) { return copies.Run(t.Context(), cfg) }
		var ids []string
		for _, contents := range []string{"one", "two", "three"} {
			ids = append(ids, backup(t, from, contents))
		}
		for range 5 {
			archive(t, from, 0)
			archive(t, from, 1)
		}
		if _, err := run(); err != nil {
			t.Fatal(err)
		}
		tables := func(id string) (names []string) {
			for info := range from.List(t.Context(), format.TablePrefix(region)+id) {
				names = append(names, info.Name)
			}
			return names
		}
		lose := func(bucket *objstore.Memory, names ...string) {
			t.Helper()
			for _, name := range names {
				if err := bucket.Lose(name); err != nil {
					t.Fatal(err)
				}
			}
		}
		lose(to, tables(ids[0])[1])
		lose(to, tables(ids[1])...)
		lose(to, format.ManifestName(region, ids[2]), format.SegmentName(region, 0, 3))
		r, err := run()
		if err != nil || r.Mended != 4 || !slices.Equal(r.Backups, ids[2:]) || r.There != 2 || r.Objects != 4 || r.Segments != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		equal(t, from, to)
		// As a prune does, or a rule by age: nobody can tell.
		lose(to, format.SegmentName(region, 1, 1), format.SegmentName(region, 1, 2))
		if r, err := run(); err != nil || r.Objects > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		lost := []string{tables(ids[1])[0], format.SegmentName(region, 0, 2)}
		lose(to, lost...)
		lose(from, lost[0])
		if err := from.Damage(lost[1], func(b []byte) []byte { return b[1:] }); err != nil {
			t.Fatal(err)
		}
		archive(t, from, 0)
		backup(t, from, "four")
		r, err = run()
		if err == nil || slices.ContainsFunc(lost, func(name string) bool { return !strings.Contains(err.Error(), name) }) || len(r.Backups) != 1 || r.Segments != 1 || !r.Archived.IsZero() {
			t.Errorf("%+v, %v, want all of %q", r, err, lost)
		}
	})
}

// A store that breaks its word leaves the beginning of an object of the copy. It is named, and
// keeps nothing else from being copied; once somebody has deleted it the copy is whole.
func TestTornInTheCopy(t *testing.T) {
	const writes = 8
	for nth := 1; nth <= writes; nth++ {
		synctest.Test(t, func(t *testing.T) {
			from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
			backup(t, from, "one")
			backup(t, from, "two")
			archive(t, from, 0)
			archive(t, from, 1)
			tears := faults.New(to, faults.Rule{Ops: []string{objstore.OpCreate}, Nth: nth, Effect: faults.Torn})
			cfg := copies.Config{Region: region, From: from, To: tears, Owner: "test"}
			if r, err := copies.Run(t.Context(), cfg); err == nil {
				t.Errorf("write %d: %+v", nth, r)
			}
			var torn []string
			want := objects(t, from)
			for name, body := range objects(t, to) {
				if body != want[name] {
					torn = append(torn, name)
				}
			}
			if len(torn) != 1 {
				t.Fatalf("write %d: torn: %q", nth, torn)
			}
			for range 2 {
				if _, err := copies.Run(t.Context(), cfg); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), torn[0]) || !strings.Contains(err.Error(), "delete") {
					t.Errorf("write %d: %v, want that %s is damaged", nth, err, torn[0])
				}
			}
			for name := range objects(t, to) {
				delete(want, name)
			}
			if id, is := format.ParseTableName(region, torn[0]); is { // of its backup there may be anything but the manifest
				maps.DeleteFunc(want, func(name, _ string) bool { return strings.Contains(name, id) })
			}
			if len(want) > 0 {
				t.Errorf("write %d: not copied, besides %s: %q", nth, torn[0], slices.Collect(maps.Keys(want)))
			}
			if err := to.Lose(torn[0]); err != nil {
				t.Fatal(err)
			}
			if _, err := copies.Run(t.Context(), cfg); err != nil {
				t.Errorf("write %d: %v", nth, err)
			}
			equal(t, from, to)
		})
	}
}

// Damage at the source is not copied: it is named.
func TestDamageIsNotCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, kind := range []string{"/tables/", "/segments/"} {
			from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
			id := backup(t, from, "one")
			archive(t, from, 0)
			var damaged string
			for name := range objects(t, from) {
				if strings.Contains(name, kind) {
					damaged = name
				}
			}
			err := from.Damage(damaged, func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b })
			if err != nil {
				t.Fatal(err)
			}
			_, err = copies.Run(t.Context(), copies.Config{Region: region, From: from, To: to, Owner: "test"})
			if events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), damaged) {
				t.Errorf("%v", err)
			}
			if _, err := catalog.Load(t.Context(), to, region, id); (kind == "/tables/") != (err != nil) {
				t.Errorf("%s: %v", kind, err)
			}
		}
	})
}

// What is damaged at the source keeps from being copied what builds on it, and of its own archive what
// comes behind it, and nothing else; all of it is named.
func TestDamageKeepsNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
		var ids []string
		for _, contents := range []string{"one", "two", "three", "four"} {
			ids = append(ids, backup(t, from, contents))
			for shard := range int32(3) {
				archive(t, from, shard)
			}
		}
		var table string
		for info := range from.List(t.Context(), format.TablePrefix(region)+ids[0]) {
			table = info.Name
		}
		damaged := []string{table, format.ManifestName(region, ids[2]), format.SegmentName(region, 0, 2)}
		for _, name := range damaged {
			if err := from.Damage(name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }); err != nil {
				t.Fatal(err)
			}
		}
		lost := format.SegmentName(region, 1, 3) // from the midst: nobody has pruned it
		cfg := copies.Config{Region: region, From: faults.New(from, faults.Rule{Ops: []string{objstore.OpGet}, Name: lost, Effect: faults.FlipBit}), To: to, Owner: "test"}
		r, err := copies.Run(t.Context(), cfg)
		wanted := append(damaged, lost)
		if events.KindOf(err) != events.KindInconsistent || slices.ContainsFunc(wanted, func(name string) bool { return !strings.Contains(err.Error(), name) }) {
			t.Errorf("%v, want all of %q", err, wanted)
		}
		if !slices.Equal(r.Backups, []string{ids[1], ids[3]}) || !slices.Equal(whole(t, to), r.Backups) {
			t.Errorf("%+v, the copy has %q", r, whole(t, to))
		}
		for shard, want := range []int{1, 2, 4} {
			if n, err := segment.Numbers(t.Context(), to, region, int32(shard)); err != nil || len(n) != want {
				t.Errorf("segments %d of shard %d are copied, %v", n, shard, err)
			}
		}
		if r.Segments != 7 {
			t.Errorf("%d segments", r.Segments)
		}
	})
}

// Shards are copied some at a time: one whose objects come slowly does not hold up another.
func TestShardsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := objstore.NewMemory("from"), objstore.NewMemory("to")
		for range 10 {
			for shard := range int32(4) {
				archive(t, from, shard)
			}
		}
		slow := faults.New(from, faults.Rule{Ops: []string{objstore.OpGet}, Name: "*/segments/*", Delay: time.Second})
		begun := time.Now()
		r, err := copies.Run(t.Context(), copies.Config{Region: region, From: slow, To: to, Owner: "test"})
		if took := time.Since(begun); err != nil || r.Segments != 40 || took > 11*time.Second {
			t.Errorf("%+v in %s, %v", r, took, err)
		}
		equal(t, from, to)
	})
}
