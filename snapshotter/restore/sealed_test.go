package restore_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
)

func newKey(t testing.TB) (opener *seal.Opener, recipient string) {
	t.Helper()
	file, recipient, err := seal.Generate(false, time.Unix(1, 0))
	if err == nil {
		opener, err = seal.NewOpener("key", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	return opener, recipient
}

// sealedBackup publishes a backup with the given tables of each shard, sealed for
// two keys.
func sealedBackup(t testing.TB, contents ...[]string) (bucket *objstore.Memory, m *format.Manifest, operating, recovery *seal.Opener) {
	t.Helper()
	operating, a := newKey(t)
	recovery, b := newKey(t)
	sealer, err := seal.NewSealer([]string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	bucket = objstore.NewMemory("backups")
	created := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	m = &format.Manifest{
		Format: format.Version, Kind: format.Full, ID: format.NewID(created, [4]byte{1}), Region: "us", Created: created, Merge: map[events.Stream]string{},
	}
	for p, tables := range contents {
		shard := format.Shard{Partition: int32(p), Lineage: "l", States: []events.LogState{}, Tables: []format.Table{}}
		for n, c := range tables {
			var box bytes.Buffer
			w, err := sealer.Writer(&box)
			if err == nil {
				_, err = w.Write([]byte(c))
			}
			if err = errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			sum, stored := sha256.Sum256([]byte(c)), sha256.Sum256(box.Bytes())
			tab := format.Table{
				Name: m.TableName(int32(p), n, stored, true), Size: int64(len(c)), SHA256: hex.EncodeToString(sum[:]),
				StoredSize: int64(box.Len()), StoredSHA256: hex.EncodeToString(stored[:]), Keys: sealer.Keys(),
			}
			if err := bucket.Create(t.Context(), tab.Name, box.Bytes()); err != nil {
				t.Fatal(err)
			}
			shard.Tables = append(shard.Tables, tab)
		}
		m.Shards = append(m.Shards, shard)
	}
	if err := catalog.Publish(t.Context(), bucket, m); err != nil {
		t.Fatal(err)
	}
	return bucket, m, operating, recovery
}

// restoreAll restores a backup that somebody else has written, from its manifest on.
func restoreAll(t testing.TB, bucket objstore.Bucket, id string, opener *seal.Opener) (*target, error) {
	t.Helper()
	tgt := &target{}
	m, err := catalog.Load(t.Context(), bucket, "us", id)
	if err == nil {
		_, err = restore.Run(t.Context(), restore.Source{Bucket: bucket, Opener: opener}, catalog.Chain{m}, tgt, nil)
	}
	return tgt, err
}

func TestSealedBackupsOpenWithEitherKey(t *testing.T) {
	bucket, m, operating, recovery := sealedBackup(t, []string{"one", strings.Repeat("two", 70_000)}, []string{"three"})
	want := map[string]string{"0/0": "one", "0/1": strings.Repeat("two", 70_000), "1/0": "three"}
	for name, opener := range map[string]*seal.Opener{"operating": operating, "recovery": recovery} {
		if tgt, err := restoreAll(t, bucket, m.ID, opener); err != nil || !maps.Equal(tgt.tables, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without a key that fits nothing is fetched, and the object and the keys are named.
func TestLostKey(t *testing.T) {
	bucket, m, _, _ := sealedBackup(t, []string{"one"}, []string{"two"})
	stranger, _ := newKey(t)
	faulty := faults.New(bucket, faults.Rule{Name: "*/tables/*", Effect: faults.Wait})
	for name, opener := range map[string]*seal.Opener{"none": nil, "stranger": stranger} {
		tgt, err := restoreAll(t, faulty, m.ID, opener)
		table := m.Shards[0].Tables[0]
		if events.KindOf(err) != events.KindNotFound || !strings.Contains(err.Error(), table.Name) || !strings.Contains(err.Error(), table.Keys[1]) {
			t.Errorf("%s: %v", name, err)
		}
		if len(tgt.tables)+len(tgt.finished)+len(faulty.Log()) > 0 {
			t.Errorf("%s: something was fetched: %v", name, faulty.Log())
		}
	}
}

// names lists the objects of a backup: its manifest first.
func names(m *format.Manifest) []string {
	names := []string{format.ManifestName(m.Region, m.ID)}
	for t := range m.Tables() {
		names = append(names, t.Name)
	}
	return names
}

// mutated checks that a backup of which some objects were changed is refused, that
// one of them is named, and that no shard with a changed table is finished.
func mutated(t testing.TB, bucket objstore.Bucket, m *format.Manifest, opener *seal.Opener, what string, objects ...string) error {
	tgt, err := restoreAll(t, bucket, m.ID, opener)
	if kind := events.KindOf(err); kind != events.KindInconsistent && kind != events.KindNotFound && kind != events.KindRefused {
		return fmt.Errorf("%s: %v", what, err)
	}
	named := strings.Contains(err.Error(), m.ID) && objects[0] == format.ManifestName("us", m.ID)
	for _, o := range objects {
		named = named || strings.Contains(err.Error(), o)
	}
	if !named {
		return fmt.Errorf("%s: none of %q is named: %v", what, objects, err)
	}
	for _, p := range tgt.finished {
		for _, tab := range m.Shards[p].Tables {
			for _, o := range objects {
				if o == tab.Name {
					return fmt.Errorf("%s: shard %d was finished", what, p)
				}
			}
		}
	}
	return nil
}

// Every byte of every object of a tiny backup is changed, in turn; every end is
// lost; every object goes missing; every two change places.
func TestMutationsOfATinyBackup(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of restores")
	}
	synctest.Test(t, func(t *testing.T) {
		bucket, m, opener, _ := sealedBackup(t, []string{"one"}, []string{"two"})
		all := names(m)
		for i, name := range all {
			whole, err := objstore.ReadAll(t.Context(), bucket, name, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			set := func(body []byte) {
				if err := bucket.Damage(name, func([]byte) []byte { return body }); err != nil {
					t.Fatal(err)
				}
			}
			for at := range whole {
				flipped := bytes.Clone(whole)
				flipped[at] ^= 1 << (at % 8)
				set(flipped)
				if err := mutated(t, bucket, m, opener, fmt.Sprintf("byte %d of %s", at, name), name); err != nil {
					t.Error(err)
				}
				set(whole[:at])
				if err := mutated(t, bucket, m, opener, fmt.Sprintf("%s cut at %d", name, at), name); err != nil {
					t.Error(err)
				}
			}
			for _, other := range all[i+1:] {
				var theirs []byte
				_ = bucket.Damage(other, func(b []byte) []byte { theirs = b; return whole })
				set(theirs)
				if err := mutated(t, bucket, m, opener, "swapped "+name+" and "+other, name, other); err != nil {
					t.Error(err)
				}
				_ = bucket.Damage(other, func([]byte) []byte { return theirs })
			}
			set(whole)
		}
		if _, err := restoreAll(t, bucket, m.ID, opener); err != nil {
			t.Errorf("unchanged again: %v", err)
		}
	})
}

// The same for larger backups, sampled.
func TestMutations(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			big := strings.Repeat("0123456789", rapid.IntRange(1, 20_000).Draw(rt, "size"))
			bucket, m, opener, _ := sealedBackup(t, []string{big, "small"}, nil, []string{big + "!", "last"})
			all := names(m)
			name := rapid.SampledFrom(all).Draw(rt, "object")
			other := name
			switch how := rapid.SampledFrom([]string{"flip", "cut", "extend", "swap", "delete"}).Draw(rt, "how"); how {
			case "swap":
				for other == name {
					other = rapid.SampledFrom(all).Draw(rt, "other")
				}
				var first []byte
				_ = bucket.Damage(name, func(b []byte) []byte { first = b; return b })
				_ = bucket.Damage(other, func(b []byte) []byte { b, first = first, b; return b })
				_ = bucket.Damage(name, func([]byte) []byte { return first })
			case "delete":
				if err := bucket.Delete(t.Context(), name); err != nil {
					rt.Fatal(err)
				}
			default:
				_ = bucket.Damage(name, func(b []byte) []byte {
					at := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
					switch how {
					case "flip":
						b[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "mask"))
					case "cut":
						b = b[:at]
					case "extend":
						b = append(b, rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(rt, "more")...)
					}
					return b
				})
			}
			if err := mutated(t, bucket, m, opener, "mutation", name, other); err != nil {
				rt.Fatal(err)
			}
		})
	})
}

// A restore leaves a pin while it goes on and none afterwards; a bucket that may only
// be read is restored from all the same.
func TestPins(t *testing.T) {
	bucket, m, opener, _ := sealedBackup(t, []string{"one"})
	var during []catalog.PinStatus
	src := restore.Source{Bucket: bucket, Opener: opener, Owner: "somebody"}
	report, err := restore.Run(t.Context(), src, catalog.Chain{m}, &target{}, func(int64) { during, _ = catalog.Pins(t.Context(), bucket, "us") })
	if err != nil || !report.Pinned {
		t.Errorf("%+v, %v", report, err)
	}
	if len(during) != 1 || during[0].Backup != m.ID || during[0].Owner != "somebody" || !during[0].Holds(time.Now()) || during[0].Holds(time.Now().Add(2*catalog.PinFor)) {
		t.Errorf("pins during the restore: %+v", during)
	}
	if after, err := catalog.Pins(t.Context(), bucket, "us"); err != nil || len(after) > 0 {
		t.Errorf("pins after it: %+v, %v", after, err)
	}
	src.Bucket = faults.New(bucket, faults.Rule{Ops: []string{objstore.OpCreate, objstore.OpDelete}, Effect: faults.Deny})
	if report, err := restore.Run(t.Context(), src, catalog.Chain{m}, &target{}, nil); err != nil || report.Pinned {
		t.Errorf("read only: %+v, %v", report, err)
	}
	if err := restore.Shard(t.Context(), src, catalog.Chain{m}, 1, &target{}, nil); events.KindOf(err) != events.KindNotFound {
		t.Errorf("a shard that there is not: %v", err)
	}
	tgt := &target{}
	if err := restore.Shard(t.Context(), src, catalog.Chain{m}, 0, tgt, nil); err != nil || tgt.tables["0/0"] != "one" {
		t.Errorf("one shard: %v", err)
	}
}
