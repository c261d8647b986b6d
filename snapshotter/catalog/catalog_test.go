package catalog_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

const us = events.Region("us")

// manifest is that of a backup without tables, made so many seconds after an
// arbitrary time.
func manifest(r events.Region, seconds int) *format.Manifest {
	created := time.Date(2026, 11, 23, 8, 0, seconds, 0, time.UTC)
	return &format.Manifest{
		Format: format.Version, Kind: format.Full, ID: format.NewID(created, [4]byte{byte(255 - seconds)}), Region: r, Created: created,
		Merge: map[events.Stream]string{}, Shards: []format.Shard{{Lineage: "l", States: []events.LogState{}, Tables: []format.Table{}}},
	}
}

func publish(t *testing.T, b objstore.Bucket, manifests ...*format.Manifest) {
	t.Helper()
	for _, m := range manifests {
		if err := catalog.Publish(t.Context(), b, m); err != nil {
			t.Fatal(err)
		}
	}
}

func put(t *testing.T, b objstore.Bucket, name string, body []byte) {
	t.Helper()
	if err := b.Create(t.Context(), name, body); err != nil {
		t.Fatal(err)
	}
}

// checked fails the test if anybody broke the bucket's contract.
func checked(t *testing.T) *objstore.Memory {
	t.Helper()
	b := objstore.NewMemory("backups")
	t.Cleanup(func() {
		for _, violation := range b.Violations() {
			t.Errorf("the bucket's contract was broken: %s", violation)
		}
	})
	return b
}

func TestIDsAreSortedAndForeignObjectsIgnored(t *testing.T) {
	b := checked(t)
	var want []string
	for _, seconds := range []int{30, 10, 20, 0, 59} {
		m := manifest(us, seconds)
		publish(t, b, m, manifest("us-east", seconds), manifest("u", seconds))
		want = append(want, m.ID)
	}
	slices.Sort(want)
	for _, foreign := range []string{
		"us/manifests/README.txt", "us/manifests/zzz.manifest", "us/manifests/old/" + want[0] + ".manifest",
		"us/manifests/" + want[0] + ".manifest.bak", "us/manifests/" + want[0], "us/manifests.txt", "us/tables/x",
		"us/manifests/99991231T235959.999Z-0000000G.manifest",
	} {
		put(t, b, foreign, []byte("foreign"))
	}
	ids, err := catalog.IDs(t.Context(), b, us)
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("ids: %q, %v; want %q", ids, err, want)
	}
	newest, err := catalog.Newest(t.Context(), b, us)
	if err != nil || newest.ID != want[len(want)-1] {
		t.Errorf("newest: %v, %v", newest, err)
	}
	if ids, err := catalog.IDs(t.Context(), b, "eu"); err != nil || len(ids) > 0 {
		t.Errorf("ids of a region without backups: %q, %v", ids, err)
	}
}

func TestLoad(t *testing.T) {
	b := checked(t)
	m := manifest(us, 1)
	publish(t, b, m)
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	misplaced, elsewhere, damaged, newer, large := manifest(us, 2), manifest("eu", 3), manifest(us, 4), manifest(us, 5), manifest(us, 6)
	put(t, b, format.ManifestName(us, misplaced.ID), text)
	put(t, b, format.ManifestName("eu", elsewhere.ID), mustEncode(t, manifest(us, 3)))
	put(t, b, format.ManifestName(us, damaged.ID), bytes.ToUpper(text))
	future := []byte(`{"format":9}`)
	put(t, b, format.ManifestName(us, newer.ID), fmt.Appendf(nil, "%s\nsha256:%x\n", future, sha256.Sum256(future)))
	put(t, b, format.ManifestName(us, large.ID), make([]byte, format.MaxManifestBytes+1))
	for _, test := range []struct {
		name   string
		region events.Region
		id     string
		kind   events.Kind
		says   string
	}{
		{"there", us, m.ID, 0, ""},
		{"missing", us, manifest(us, 9).ID, events.KindNotFound, "evenkeel backup list"},
		{"of another region", "eu", m.ID, events.KindNotFound, "evenkeel backup list"},
		{"no id", us, "newest", events.KindNotFound, "evenkeel backup list"},
		{"empty id", us, "", events.KindNotFound, "evenkeel backup list"},
		{"id that leads elsewhere", us, "../manifests/" + m.ID, events.KindNotFound, "evenkeel backup list"},
		{"id that is no name", us, "a b\n", events.KindNotFound, "evenkeel backup list"},
		{"under the name of another", us, misplaced.ID, events.KindInconsistent, m.ID},
		{"under the name of another region", "eu", elsewhere.ID, events.KindInconsistent, "of us"},
		{"damaged", us, damaged.ID, events.KindInconsistent, damaged.ID},
		{"of a newer format", us, newer.ID, events.KindRefused, "use a newer one"},
		{"too large", us, large.ID, events.KindFailed, large.ID},
	} {
		got, err := catalog.Load(t.Context(), b, test.region, test.id)
		if events.KindOf(err) != test.kind || (got != nil) != (err == nil) {
			t.Errorf("%s: %v, %v; want kind %q", test.name, got, err, test.kind)
		}
		if err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v; want %q in it", test.name, err, test.says)
		}
	}
}

func mustEncode(t *testing.T, m *format.Manifest) []byte {
	t.Helper()
	text, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The newest backup is the newest or an error, never an older one.
func TestNewest(t *testing.T) {
	b := checked(t)
	if m, err := catalog.Newest(t.Context(), b, us); events.KindOf(err) != events.KindNotFound || m != nil {
		t.Errorf("of none: %v, %v", m, err)
	}
	older, newer := manifest(us, 1), manifest(us, 2)
	publish(t, b, newer, older)
	if m, err := catalog.Newest(t.Context(), b, us); err != nil || m.ID != newer.ID {
		t.Errorf("of two: %v, %v", m, err)
	}
	if err := b.Damage(format.ManifestName(us, newer.ID), func(body []byte) []byte { return body[1:] }); err != nil {
		t.Fatal(err)
	}
	if m, err := catalog.Newest(t.Context(), b, us); events.KindOf(err) != events.KindInconsistent || m != nil {
		t.Errorf("of two, the newer damaged: %v, %v", m, err)
	}
}

// A bucket that fails is not one without backups, and not one with a damaged
// manifest either.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		name string
		rule faults.Rule
		load events.Kind
		ids  error
	}{
		{"listing fails", faults.Rule{Ops: []string{objstore.OpList}, Effect: faults.FailBefore}, events.KindFailed, objstore.ErrUnavailable},
		{"listing breaks off", faults.Rule{Ops: []string{objstore.OpList}, Effect: faults.FailAfter}, events.KindFailed, objstore.ErrUnavailable},
		{"listing denied", faults.Rule{Ops: []string{objstore.OpList}, Effect: faults.Deny}, events.KindFailed, objstore.ErrAccess},
		{"reading fails", faults.Rule{Ops: []string{objstore.OpGet}, Effect: faults.FailBefore}, events.KindFailed, nil},
		{"reading denied", faults.Rule{Ops: []string{objstore.OpGet}, Effect: faults.Deny}, events.KindFailed, nil},
		{"body cut", faults.Rule{Effect: faults.TearBody}, events.KindInconsistent, nil},
		{"body shorter", faults.Rule{Effect: faults.TruncateBody}, events.KindInconsistent, nil},
		{"bit flipped", faults.Rule{Effect: faults.FlipBit}, events.KindInconsistent, nil},
	} {
		b := checked(t)
		m := manifest(us, 1)
		publish(t, b, m)
		faulty := faults.New(b, test.rule)
		ids, err := catalog.IDs(t.Context(), faulty, us)
		if !errors.Is(err, test.ids) || (err == nil) != slices.Equal(ids, []string{m.ID}) {
			t.Errorf("%s: ids %q, %v", test.name, ids, err)
		}
		if got, err := catalog.Load(t.Context(), faulty, us, m.ID); events.KindOf(err) != test.load || (got != nil) != (err == nil) {
			t.Errorf("%s: load: %v, %v; want kind %q", test.name, got, err, test.load)
		}
		if _, err := catalog.Newest(t.Context(), faulty, us); err == nil {
			t.Errorf("%s: newest: no error", test.name)
		}
	}
}

func TestPublish(t *testing.T) {
	b := checked(t)
	m := manifest(us, 1)
	publish(t, b, m, m) // the same again is a lost answer's retry
	other := manifest(us, 1)
	other.Software = "another"
	if err := catalog.Publish(t.Context(), b, other); !errors.Is(err, objstore.ErrExists) || !strings.Contains(err.Error(), m.ID) {
		t.Errorf("another of the same name: %v", err)
	}
	malformed := manifest(us, 2)
	malformed.Shards = nil
	if err := catalog.Publish(t.Context(), b, malformed); err == nil {
		t.Error("malformed: published")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := catalog.Publish(ctx, b, manifest(us, 3)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if ids, err := catalog.IDs(t.Context(), b, us); err != nil || !slices.Equal(ids, []string{m.ID}) {
		t.Errorf("ids: %q, %v", ids, err)
	}
}
