package restore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
)

// backup puts a backup with the given tables of each shard into a bucket.
func backup(t *testing.T, tables ...[]string) (*objstore.Memory, *format.Manifest) {
	t.Helper()
	bucket := objstore.NewMemory("backups")
	created := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	m := &format.Manifest{
		Format: format.Version, Kind: format.Full, ID: format.NewID(created, [4]byte{1}), Region: "us", Created: created, Merge: map[events.Stream]string{},
	}
	for p, contents := range tables {
		log := events.Log{Origin: events.FirstOrigin("us"), Stream: "session", Partition: int32(p)}
		shard := format.Shard{Partition: int32(p), Lineage: "l", States: []events.LogState{{Log: log, Next: int64(p)}}, Tables: []format.Table{}}
		for n, c := range contents {
			sum := sha256.Sum256([]byte(c))
			tab := format.Table{Name: m.TableName(int32(p), n, sum, false), Size: int64(len(c)), SHA256: hex.EncodeToString(sum[:])}
			tab.StoredSize, tab.StoredSHA256, tab.Keys = tab.Size, tab.SHA256, []string{}
			if err := bucket.Create(t.Context(), tab.Name, []byte(c)); err != nil {
				t.Fatal(err)
			}
			shard.Tables = append(shard.Tables, tab)
		}
		m.Shards = append(m.Shards, shard)
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	return bucket, m
}

func source(b objstore.Bucket) restore.Source { return restore.Source{Bucket: b} }

// some is a backup of two shards with three tables.
func some(t *testing.T) (*objstore.Memory, *format.Manifest) {
	t.Helper()
	return backup(t, []string{"first table of shard 0", "second table, of equal size"}, []string{"first! table of shard 1...."})
}

// target collects tables by place, and fails as told.
type target struct {
	mu       sync.Mutex
	tables   map[string]string
	finished []int32

	create, write, close, finish error
}

func (t *target) Create(partition int32, n int) (io.WriteCloser, error) {
	if t.create != nil {
		return nil, t.create
	}
	return &place{target: t, name: fmt.Sprintf("%d/%d", partition, n)}, nil
}

func (t *target) Finish(_ context.Context, shard format.Shard, _ [][]int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished = append(t.finished, shard.Partition)
	return t.finish
}

type place struct {
	bytes.Buffer
	target *target
	name   string
}

func (p *place) Write(b []byte) (int, error) {
	if p.target.write != nil {
		return 0, p.target.write
	}
	return p.Buffer.Write(b)
}

func (p *place) Close() error {
	p.target.mu.Lock()
	defer p.target.mu.Unlock()
	if p.target.tables == nil {
		p.target.tables = map[string]string{}
	}
	p.target.tables[p.name] = p.String()
	return p.target.close
}

func TestRun(t *testing.T) {
	bucket, m := some(t)
	tgt := &target{}
	var mu sync.Mutex
	var fetched []int64
	report, err := restore.Run(t.Context(), source(bucket), catalog.Chain{m}, tgt, func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		fetched = append(fetched, n)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"0/0": "first table of shard 0", "0/1": "second table, of equal size", "1/0": "first! table of shard 1...."}
	if !maps.Equal(tgt.tables, want) {
		t.Errorf("restored: %q", tgt.tables)
	}
	slices.Sort(tgt.finished)
	if !slices.Equal(tgt.finished, []int32{0, 1}) {
		t.Errorf("finished: %v", tgt.finished)
	}
	slices.Sort(fetched)
	if !slices.Equal(fetched, []int64{22, 27, 27}) {
		t.Errorf("fetched: %v", fetched)
	}
	if report.Backup != m.ID || report.Region != "us" || !report.Created.Equal(m.Created) || report.Tables != 3 || report.Bytes != 76 ||
		!slices.Equal(report.States, m.States()) || report.Duration <= 0 {
		t.Errorf("report: %+v", report)
	}
}

// A shard is finished only when all of its tables are there, and one without any
// is finished too.
func TestShardsWithoutTables(t *testing.T) {
	bucket, m := backup(t, nil, []string{"table"}, nil)
	tgt := &target{}
	if _, err := restore.Run(t.Context(), source(bucket), catalog.Chain{m}, tgt, nil); err != nil || len(tgt.finished) != 3 {
		t.Errorf("finished %v, %v", tgt.finished, err)
	}
}

// Every damage to every table is refused, and the object is named.
func TestDamageIsRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(body []byte) []byte
	}{
		{"bit flipped", func(b []byte) []byte { b[len(b)/2] ^= 4; return b }},
		{"first bit flipped", func(b []byte) []byte { b[0] ^= 1; return b }},
		{"last bit flipped", func(b []byte) []byte { b[len(b)-1] ^= 128; return b }},
		{"truncated", func(b []byte) []byte { return b[:len(b)-1] }},
		{"empty", func([]byte) []byte { return nil }},
		{"extended", func(b []byte) []byte { return append(b, 0) }},
		{"twice as long", func(b []byte) []byte { return append(b, b...) }},
		{"other bytes", func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) }},
	} {
		for nth := range 3 {
			t.Run(fmt.Sprintf("%s, table %d", test.name, nth), func(t *testing.T) {
				refused(t, nth, func(bucket *objstore.Memory, name string) error { return bucket.Damage(name, test.damage) })
			})
		}
	}
	for nth := range 3 {
		t.Run(fmt.Sprintf("deleted, table %d", nth), func(t *testing.T) {
			refused(t, nth, func(bucket *objstore.Memory, name string) error { return bucket.Delete(t.Context(), name) })
		})
	}
}

// refused damages the nth table of some backup and checks what a restore says.
func refused(t *testing.T, nth int, damage func(bucket *objstore.Memory, name string) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bucket, m := some(t)
		tables := slices.Concat(m.Shards[0].Tables, m.Shards[1].Tables)
		if err := damage(bucket, tables[nth].Name); err != nil {
			t.Fatal(err)
		}
		tgt := &target{}
		report, err := restore.Run(t.Context(), source(bucket), catalog.Chain{m}, tgt, nil)
		if events.KindOf(err) != events.KindInconsistent || report != nil {
			t.Fatalf("%v, %v", report, err)
		}
		for _, word := range []string{m.ID, tables[nth].Name} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not name %s", err, word)
			}
		}
		if nth < 2 && slices.Contains(tgt.finished, 0) || nth == 2 && slices.Contains(tgt.finished, 1) {
			t.Error("the shard was finished")
		}
	})
}

// Two tables that change places are each what the manifest does not say.
func TestSwappedTablesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, m := some(t)
		a, b := m.Shards[0].Tables[1].Name, m.Shards[1].Tables[0].Name // of equal size
		var bodyA []byte
		take := func(body []byte) []byte { bodyA = body; return []byte("first! table of shard 1....") }
		if err := errors.Join(bucket.Damage(a, take), bucket.Damage(b, func([]byte) []byte { return bodyA })); err != nil {
			t.Fatal(err)
		}
		_, err := restore.Run(t.Context(), source(bucket), catalog.Chain{m}, &target{}, nil)
		if events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), a) && !strings.Contains(err.Error(), b) {
			t.Error(err)
		}
	})
}

// A reading that goes wrong once is repeated; one that always does is an error
// that tells damage from a bucket that is away.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		rule   faults.Rule
		passes bool // if it happens once
		kind   events.Kind
		is     error
	}{
		{"unavailable", faults.Rule{Effect: faults.FailBefore}, true, events.KindFailed, objstore.ErrUnavailable},
		{"answer lost", faults.Rule{Effect: faults.FailAfter}, true, events.KindFailed, objstore.ErrUnavailable},
		{"body cut", faults.Rule{Effect: faults.TearBody}, true, events.KindInconsistent, objstore.ErrCorrupt},
		{"body shorter", faults.Rule{Effect: faults.TruncateBody}, true, events.KindInconsistent, objstore.ErrCorrupt},
		{"bit flipped", faults.Rule{Effect: faults.FlipBit}, true, events.KindInconsistent, objstore.ErrCorrupt},
		{"denied", faults.Rule{Effect: faults.Deny}, false, events.KindFailed, objstore.ErrAccess},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket, m := some(t)
				test.rule.Name = "*/tables/*"
				always, once := test.rule, test.rule
				once.Times = 1
				faulty := faults.New(bucket, once)
				tgt := &target{}
				if _, err := restore.Run(t.Context(), source(faulty), catalog.Chain{m}, tgt, nil); (err == nil) != test.passes {
					t.Errorf("once: %v", err)
				}
				if test.passes && (len(faulty.Log()) != 1 || tgt.tables["0/0"] != "first table of shard 0" || tgt.tables["1/0"] != "first! table of shard 1....") {
					t.Errorf("once: faults %v, restored %q", faulty.Log(), tgt.tables)
				}
				faulty.SetRules(always)
				_, err := restore.Run(t.Context(), source(faulty), catalog.Chain{m}, &target{}, nil)
				named := func(tab format.Table) bool { return strings.Contains(err.Error(), tab.Name) }
				if events.KindOf(err) != test.kind || !errors.Is(err, test.is) || !slices.ContainsFunc(slices.Collect(m.Tables()), named) {
					t.Errorf("always: %v", err)
				}
			})
		})
	}
}

// What the target says comes out, and is not tried again.
func TestTargetFails(t *testing.T) {
	full := errors.New("disk full")
	for name, tgt := range map[string]*target{"create": {create: full}, "write": {write: full}, "close": {close: full}, "finish": {finish: full}} {
		bucket, m := some(t)
		report, err := restore.Run(t.Context(), source(bucket), catalog.Chain{m}, tgt, nil)
		if !errors.Is(err, full) || report != nil || !strings.Contains(err.Error(), m.ID) {
			t.Errorf("%s: %v, %v", name, report, err)
		}
		if name != "finish" && len(tgt.finished) > 0 {
			t.Errorf("%s: finished %v", name, tgt.finished)
		}
	}
}

// A restore that is told to end does, while it waits for the bucket and while it
// waits between two attempts.
func TestCancel(t *testing.T) {
	for _, test := range []struct {
		name  string
		rule  faults.Rule
		after time.Duration
	}{
		{"at once", faults.Rule{}, 0},
		{"while the bucket hangs", faults.Rule{Name: "*/tables/*", Effect: faults.Wait, Delay: 24 * time.Hour}, time.Minute},
		{"between attempts", faults.Rule{Effect: faults.FailBefore}, 10 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket, m := some(t)
				ctx, cancel := context.WithTimeout(t.Context(), test.after)
				defer cancel()
				begun := time.Now()
				tgt := &target{}
				report, err := restore.Run(ctx, source(faults.New(bucket, test.rule)), catalog.Chain{m}, tgt, nil)
				if err == nil || report != nil || len(tgt.finished) > 0 {
					t.Errorf("%v, %v, finished %v", report, err, tgt.finished)
				}
				if took := time.Since(begun); took != test.after {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// An object of any size in a table's place is not read to its end.
func TestForeignObjectIsNotSwallowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, m := some(t)
		if err := bucket.Damage(m.Shards[0].Tables[0].Name, func([]byte) []byte { return make([]byte, 1<<20) }); err != nil {
			t.Fatal(err)
		}
		tgt := &target{}
		if _, err := restore.Run(t.Context(), source(bucket), catalog.Chain{m}, tgt, nil); events.KindOf(err) != events.KindInconsistent {
			t.Error(err)
		}
		if n := len(tgt.tables["0/0"]); n > 23 {
			t.Errorf("%d bytes were taken for a table of 22", n)
		}
	})
}
