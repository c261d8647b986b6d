package projections_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

func TestRestore(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	tables, states := backup(t, fs, 0, w, 300)
	cfg := config(fs)
	cfg.Lineage = projections.Lineage{ID: "second", Parent: "first"}
	if err := projections.Restore(t.Context(), cfg, tables, states); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	defer closeShard(t, s)
	checkShard(t, s, w, w.ends())
	if s.Lineage() != cfg.Lineage {
		t.Errorf("lineage %+v, want %+v", s.Lineage(), cfg.Lineage)
	}
	for _, table := range tables {
		if _, err := fs.Stat(table); err == nil {
			t.Errorf("%s was not moved", table)
		}
	}
	// It goes on like any other.
	l := logsOf(0)[0]
	w.write(l, bare("after", []byte("the restore"), 1))
	apply(t, s, w.from(l, s.Next(l), 1))
	checkShard(t, s, w, w.ends())
}

// A restore of anything but exactly what was backed up fails.
func TestRestoreDetects(t *testing.T) {
	w := smallWorld(0)
	for name, c := range map[string]struct {
		harm func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState)
		want any // the error is as this, if it is not nil
	}{
		"a wrong digest": {func(_ *testing.T, _ vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			states[1].Digest[15] ^= 1
			return tables, states
		}, new(*projections.ProofError)},
		"a wrong offset": {func(_ *testing.T, _ vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			states[0].Next++
			return tables, states
		}, new(*projections.ProofError)},
		"wrong counts": {func(_ *testing.T, _ vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			states[0].Events--
			states[1].Parked++
			return tables, states
		}, new(*projections.ProofError)},
		"a log too few": {func(_ *testing.T, _ vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return tables, states[1:]
		}, new(*projections.ProofError)},
		"a log too many": {func(_ *testing.T, _ vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return tables, append(states, events.LogState{Log: events.Log{Origin: events.FirstOrigin("z"), Stream: "z"}, Next: 1})
		}, new(*projections.ProofError)},
		"no tables": {func(_ *testing.T, _ vfs.FS, _ []string, states []events.LogState) ([]string, []events.LogState) {
			return nil, states
		}, new(*projections.ProofError)},
		"a table that is not there": {func(_ *testing.T, _ vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, "nowhere.sst"), states
		}, nil},
		"a table twice": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			write(t, fs, "again.sst", read(t, fs, tables[0]))
			return append(tables, "again.sst"), states
		}, nil},
		"a table that is none": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			write(t, fs, "none.sst", []byte("no table"))
			return append(tables, "none.sst"), states
		}, nil},
		"tables of another shard": {func(t *testing.T, fs vfs.FS, _ []string, states []events.LogState) ([]string, []events.LogState) {
			tables, _ := backup(t, fs, 1, smallWorld(1), 300)
			return tables, states
		}, nil},
		"another shard altogether": {func(t *testing.T, fs vfs.FS, _ []string, _ []events.LogState) ([]string, []events.LogState) {
			return backup(t, fs, 1, smallWorld(1), 300)
		}, nil},
		"a slice too many": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, sliceKey("session", "zzz", "us"), smallSlice(0))), states
		}, new(*projections.DriftError)},
		"a tombstone too many": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, sliceKey("session", "zzz", "us"), smallSlice(1))), states
		}, new(*projections.DriftError)},
		"a slice of a log that is not": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, sliceKey("session", "zzz", "nobody"), smallSlice(0))), states
		}, new(*projections.DriftError)},
		"a slice of a stream that is not": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, sliceKey("zzz", "k", "us"), smallSlice(0))), states
		}, nil},
		"a slice that is none": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, sliceKey("session", "zzz", "us"), nil)), states
		}, new(*projections.DriftError)},
		"a parked record too many": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, []byte("Pus_2/session/0\x00\x00\x00\x00\x00\x00\x00\x00\x01"), []byte("{}"))), states
		}, new(*projections.DriftError)},
		"a key of no kind": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, []byte("Zzz"), nil)), states
		}, nil},
		"a slice's key that is none": {func(t *testing.T, fs vfs.FS, tables []string, states []events.LogState) ([]string, []events.LogState) {
			return append(tables, oneKey(t, fs, []byte("Szzz"), nil)), states
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			tables, states := backup(t, fs, 0, w, 0) // one entry a table
			tables, states = c.harm(t, fs, tables, slices.Clone(states))
			err := projections.Restore(t.Context(), config(fs), tables, states)
			if err == nil {
				t.Fatal("nothing was noticed")
			}
			if c.want != nil && !errors.As(err, c.want) {
				t.Errorf("error %v, want a %T", err, c.want)
			}
			if c.want != nil {
				wantKind(t, err, events.KindInconsistent)
			}
		})
	}
}

// Every table counts, also one of nothing but parked records or tombstones.
func TestRestoreMissesEveryTable(t *testing.T) {
	w := smallWorld(0)
	fs := vfs.NewMem()
	tables, states := backup(t, fs, 0, w, 0) // one entry a table
	kinds := map[byte]int{}
	for i, missing := range tables {
		kinds[firstKey(t, fs, missing)[0]]++
		cfg := config(copyTables(t, fs, tables))
		err := projections.Restore(t.Context(), cfg, slices.Delete(slices.Clone(tables), i, i+1), states)
		if err == nil {
			t.Errorf("nobody misses %q", firstKey(t, fs, missing))
		} else {
			wantKind(t, err, events.KindInconsistent)
		}
	}
	if kinds['L'] == 0 || kinds['P'] == 0 || kinds['S'] == 0 {
		t.Errorf("tables by kind of key: %v", kinds)
	}
}

// Whatever byte of a table is flipped, and whichever part of it: the restore
// fails, and nothing panics.
func TestRestoreDetectsEveryFlippedByte(t *testing.T) {
	w := world{}
	for _, l := range logsOf(0)[:3] {
		w.write(l, bare("a", []byte(strings.Repeat("compressible ", 10)), 1))
		w.write(l, bare("b", nil, 1))
		w.write(l, &kgo.Record{Value: []byte("no key")})
	}
	fs := vfs.NewMem()
	tables, states := backup(t, fs, 0, w, 1<<20)
	if len(tables) != 2 {
		t.Fatalf("%d tables", len(tables))
	}
	rng := rand.New(rand.NewPCG(1, 4))
	for _, table := range tables {
		size := int64(len(read(t, fs, table)))
		for at := range size {
			harmed := copyTables(t, fs, tables)
			flip(t, harmed, table, at, 1<<rng.IntN(8))
			err := projections.Restore(t.Context(), config(harmed), tables, states)
			if err == nil {
				t.Errorf("table %s: byte %d of %d was flipped, and nothing noticed", table, at, size)
			}
			wantKind(t, err, events.KindInconsistent)
		}
	}
	if err := projections.Restore(t.Context(), config(fs), tables, states); err != nil {
		t.Errorf("not flipped: %v", err)
	}
}

func TestRestoreNeedsAnEmptyDirectory(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	tables, states := backup(t, fs, 0, w, 300)
	for range 2 {
		s := open(t, config(fs))
		apply(t, s, w.everything()...)
		closeShard(t, s)
		err := projections.Restore(t.Context(), config(fs), tables, states)
		wantKind(t, err, events.KindRefused)
	}
	s := open(t, config(fs))
	defer closeShard(t, s)
	checkShard(t, s, w, w.ends()) // unharmed
}

func TestRestoreCanBeCancelled(t *testing.T) {
	fs := vfs.NewMem()
	tables, states := backup(t, fs, 0, smallWorld(0), 300)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := projections.Restore(ctx, config(fs), tables, states); !errors.Is(err, context.Canceled) || events.KindOf(err) != events.KindFailed {
		t.Errorf("error %v", err)
	}
}

func TestProofErrorNamesWhatDiffers(t *testing.T) {
	fs := vfs.NewMem()
	w := world{}
	l := logsOf(0)[0]
	w.write(l, bare("a", []byte("v"), 1))
	tables, states := backup(t, fs, 0, w, 300)
	states[0].Log.Stream = "session"
	err := projections.Restore(t.Context(), config(fs), tables, states)
	want := fmt.Sprintf("shard 0: restored state differs from the backup: want us/session/0 at offset 1 with chain %[2]s and digest %[1]s (1 keys, 15 bytes, 1 events, 0 parked), found nothing\n"+
		"shard 0: restored state differs from the backup: want nothing, found us/config/0 at offset 1 with chain %[2]s and digest %[1]s (1 keys, 15 bytes, 1 events, 0 parked)", states[0].Digest, states[0].Chain)
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v, want\n%s", err, want)
	}
}

// copyTables copies tables to a file system of their own.
func copyTables(t tb, fs vfs.FS, tables []string) vfs.FS {
	t.Helper()
	to := vfs.NewMem()
	for _, table := range tables {
		if err := to.MkdirAll(to.PathDir(table), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, to, table, read(t, fs, table))
	}
	return to
}

// oneKey writes a table of one entry.
func oneKey(t tb, fs vfs.FS, key, value []byte) (path string) {
	t.Helper()
	const name = "one.sst"
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), sstable.WriterOptions{TableFormat: pebble.FormatNewest.MaxTableFormat()})
	if err := w.Set(key, value); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func firstKey(t tb, fs vfs.FS, table string) []byte {
	t.Helper()
	f, err := fs.Open(table)
	if err != nil {
		t.Fatal(err)
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sstable.NewReader(t.Context(), readable, sstable.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	return slices.Clone(it.First().K.UserKey)
}

// sliceKey is the database's key of a slice, written as doc.go draws it.
func sliceKey(stream, key, origin string) []byte {
	return []byte("S" + stream + "\x00" + strings.ReplaceAll(key, "\x00", "\x00\xff") + "\x00\x01" + origin)
}

// smallSlice is a slice of rule lww with the given flags.
func smallSlice(flags byte) []byte { return []byte{1, flags, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0} }
