package inventory_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/inventory"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

const us = events.Region("us")

var begun = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// backup publishes one with a table of one byte, of the given streams.
func backup(t *testing.T, b objstore.Bucket, minutes int, streams ...events.Stream) *format.Manifest {
	t.Helper()
	created := begun.Add(time.Duration(minutes) * time.Minute)
	m := &format.Manifest{
		Format: format.Version, Kind: format.Full, ID: format.NewID(created, [4]byte{byte(minutes)}), Region: us, Created: created, Merge: map[events.Stream]string{},
	}
	shard := format.Shard{Lineage: "l", States: []events.LogState{}}
	for _, s := range streams {
		m.Merge[s] = "lww"
		shard.States = append(shard.States, events.LogState{Log: events.Log{Origin: events.FirstOrigin(us), Stream: s}, Next: int64(minutes)})
	}
	const x = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881" // SHA-256 of "x"
	shard.Tables = []format.Table{{
		Name: string(us) + "/tables/" + m.ID + "/shard-0000/000000-2d711642b726b044.sst", Size: 1, SHA256: x, StoredSize: 1, StoredSHA256: x, Keys: []string{},
	}}
	m.Shards = []format.Shard{shard}
	if err := errors.Join(b.Create(t.Context(), shard.Tables[0].Name, []byte("x")), catalog.Publish(t.Context(), b, m)); err != nil {
		t.Fatal(err)
	}
	return m
}

func table(m *format.Manifest) string { return m.Shards[0].Tables[0].Name }

func read(t *testing.T, b objstore.Reader) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.Read(t.Context(), b, us)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// A delta is restorable if all that it builds on is, and else says what is not.
func TestDeltas(t *testing.T) {
	b := objstore.NewMemory("b")
	all := []*format.Manifest{backup(t, b, 1, "session")}
	for i := range 3 {
		m := *all[i]
		m.Created = m.Created.Add(time.Minute)
		m.ID, m.Kind, m.Parents = format.NewID(m.Created, [4]byte{}), format.Delta, all[i].Path()
		m.Shards = []format.Shard{{Lineage: "l", States: m.Shards[0].States, Tables: []format.Table{}}}
		if err := catalog.Publish(t.Context(), b, &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, &m)
	}
	inv := read(t, b)
	if n := inv.Newest(); n == nil || n.ID != all[3].ID || n.Kind() != format.Delta || len(inv.Unreferenced) > 0 {
		t.Errorf("%+v", n)
	}
	if full := inv.NewestFull(begun.Add(time.Hour)); full == nil || full.ID != all[0].ID {
		t.Errorf("newest full: %+v", full)
	}
	if err := b.Delete(t.Context(), format.ManifestName(us, all[1].ID)); err != nil {
		t.Fatal(err)
	}
	inv = read(t, b)
	if n := inv.Newest(); n == nil || n.ID != all[0].ID {
		t.Errorf("%+v", n)
	}
	for i, object := range []*format.Manifest{all[1], all[2]} {
		if p := inv.Backups[1+i].Problems; len(p) != 1 || p[0].Object != format.ManifestName(us, object.ID) {
			t.Errorf("problems of delta %d: %+v", 1+i, p)
		}
	}
}

func TestRead(t *testing.T) {
	b := objstore.NewMemory("b")
	if inv := read(t, b); inv.Newest() != nil || len(inv.Backups) > 0 {
		t.Errorf("an empty bucket: %+v", inv)
	}
	whole, hole, short, damaged := backup(t, b, 1, "session"), backup(t, b, 2, "session"), backup(t, b, 3, "session"), backup(t, b, 4, "session")
	orphan := strings.Replace(table(whole), whole.ID, format.NewID(begun, [4]byte{9}), 1)
	err := errors.Join(
		b.Delete(t.Context(), table(hole)), b.Damage(table(short), func([]byte) []byte { return []byte("xx") }),
		b.Create(t.Context(), orphan, []byte("x")),
	)
	if err != nil {
		t.Fatal(err)
	}
	inv := read(t, b)
	if newest := inv.Newest(); newest == nil || newest.ID != damaged.ID {
		t.Errorf("newest: %+v", newest)
	}
	if len(inv.Unreferenced) != 1 || inv.Unreferenced[format.NewID(begun, [4]byte{9})][0].Name != orphan {
		t.Errorf("unreferenced: %v", inv.Unreferenced)
	}
	if err := b.Damage(format.ManifestName(us, damaged.ID), func(body []byte) []byte { return body[1:] }); err != nil {
		t.Fatal(err)
	}
	inv = read(t, b)
	var problems []string
	for _, backup := range inv.Backups {
		for _, p := range backup.Problems {
			problems = append(problems, p.Object)
		}
	}
	if want := []string{table(hole), table(short), format.ManifestName(us, damaged.ID)}; !slices.Equal(problems, want) {
		t.Errorf("problems: %q, want %q", problems, want)
	}
	if newest := inv.Newest(); newest == nil || newest.ID != whole.ID {
		t.Errorf("newest: %+v", newest)
	}
	if len(inv.Unreferenced) > 0 { // the damaged manifest may refer to it
		t.Errorf("unreferenced: %v", inv.Unreferenced)
	}
}

// hiding lists nothing with a word in its name: a listing is no proof.
type hiding struct {
	*objstore.Memory
	word string
}

func (h hiding) List(ctx context.Context, prefix string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		for info, err := range h.Memory.List(ctx, prefix) {
			if err == nil && strings.Contains(info.Name, h.word) {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

func TestAListingIsNoProof(t *testing.T) {
	b := objstore.NewMemory("b")
	backup(t, b, 1, "session")
	if inv := read(t, hiding{b, "/tables/"}); inv.Newest() == nil {
		t.Errorf("a table that is there is missed: %+v", inv.Backups)
	}
	if inv := read(t, hiding{b, "/manifests/"}); len(inv.Unreferenced) > 0 {
		t.Errorf("a table is called unreferenced whose manifest is there: %v", inv.Unreferenced)
	}
	for _, rule := range []faults.Rule{
		{Ops: []string{objstore.OpList}, Nth: 1, Effect: faults.FailAfter}, {Ops: []string{objstore.OpList}, Nth: 2, Effect: faults.FailBefore},
		{Ops: []string{objstore.OpList}, Nth: 3, Effect: faults.FailAfter}, {Ops: []string{objstore.OpList}, Nth: 4, Effect: faults.Deny},
		{Ops: []string{objstore.OpGet}, Effect: faults.Deny},
	} {
		if _, err := inventory.Read(t.Context(), faults.New(b, rule), us); err == nil {
			t.Errorf("%+v: no error", rule)
		}
	}
}

// Each stream has the newest point from which it can be restored.
func TestPoints(t *testing.T) {
	b := objstore.NewMemory("b")
	first, second, third := backup(t, b, 1, "config", "session"), backup(t, b, 2, "session"), backup(t, b, 3, "session")
	if err := b.Delete(t.Context(), table(third)); err != nil {
		t.Fatal(err)
	}
	points := read(t, b).Points([]events.Stream{"session", "secrets"}, begun.Add(10*time.Minute))
	if len(points) != 3 {
		t.Fatalf("%+v", points)
	}
	config, secrets, session := points[0], points[1], points[2]
	if config.Stream != "config" || config.Backup != first.ID || config.Age != 540 || len(config.States) != 1 || config.States[0].Next != 1 {
		t.Errorf("%+v", config)
	}
	if secrets.Stream != "secrets" || secrets.Backup != "" || secrets.Age != -1 {
		t.Errorf("%+v", secrets)
	}
	if session.Stream != "session" || session.Backup != second.ID || session.Age != 480 || session.States[0].Next != 2 {
		t.Errorf("%+v", session)
	}
	if early := read(t, b).Points(nil, begun)[0]; early.Age != 0 { // a clock that is behind
		t.Errorf("%+v", early)
	}
}
