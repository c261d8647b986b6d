package projections_test

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// faulty is a file system some of whose operations fail while the toggle is on.
func faulty(fs vfs.FS, fails func(errorfs.Op) bool) (vfs.FS, *errorfs.Toggle) {
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fails(op) {
			return errorfs.ErrInjected
		}
		return nil
	})}
	return errorfs.Wrap(fs, toggle), toggle
}

func ofFile(suffix string, kinds ...errorfs.OpKind) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool {
		return strings.HasSuffix(op.Path, suffix) && slices.Contains(kinds, op.Kind)
	}
}

// coldShard is a shard of w whose slices are all in tables, so that whatever it
// looks up is read from fs.
func coldShard(t *testing.T, fs vfs.FS, cfg projections.Config, w world) *projections.Shard {
	t.Helper()
	warm := cfg
	warm.FS = fs
	s := open(t, warm)
	apply(t, s, w.everything()...)
	closeShard(t, s)
	closeShard(t, open(t, warm)) // moves what is in Pebble's log into tables
	cache := pebble.NewCache(0)
	t.Cleanup(cache.Unref)
	cfg.Cache = cache
	return open(t, cfg)
}

// An Apply that cannot read what it changes changes nothing: neither what the
// shard shows, nor the database, nor what is blocked.
func TestApplyThatFailsLeavesEverythingAsItWas(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, w world) (s *projections.Shard, mend func()){
		"tables cannot be read": func(t *testing.T, w world) (*projections.Shard, func()) {
			mem := vfs.NewMem()
			fs, toggle := faulty(mem, ofFile(".sst", errorfs.OpFileReadAt))
			s := coldShard(t, mem, config(fs), w)
			toggle.On()
			return s, toggle.Off
		},
		"free space is unknown": func(t *testing.T, w world) (*projections.Shard, func()) {
			mem := vfs.NewMem()
			mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: reserve})
			fs, toggle := faulty(mem, func(op errorfs.Op) bool { return op.Kind == errorfs.OpGetDiskUsage })
			cfg := config(fs)
			cfg.MinFreeBytes = reserve
			s := coldShard(t, mem, cfg, w)
			toggle.On()
			return s, toggle.Off
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := smallWorld(0)
			s, mend := prepare(t, w)
			defer func() { closeShard(t, s) }()
			at := w.ends()
			logs := logsOf(0)
			for _, l := range logs {
				w.write(l, &kgo.Record{Value: []byte("no key")}) // is parked without reading anything
				w.write(l, bare(keys[0], []byte("new"), 50))
				w.write(l, bare(keys[1], nil, 50))
				w.write(l, bare("later", nil, 50))
			}
			gap := w.from(logs[0], at[logs[0]]+1, 1)
			done, err := s.Apply([]projections.Run{gap, w.from(logs[1], at[logs[1]], 2), w.from(logs[2], at[logs[2]], 2)})
			if !errors.Is(err, errorfs.ErrInjected) || done != (projections.Applied{}) {
				t.Fatalf("applied %+v, %v", done, err)
			}
			if got := s.Logs(); !slices.Equal(got, w.states(at)) {
				t.Errorf("shows %+v", got)
			}
			if blocked := s.Blocked(); len(blocked) != 0 {
				t.Errorf("blocked: %v", blocked)
			}
			mend()
			checkShard(t, s, w, at)
			apply(t, s, w.everything()...)
			checkShard(t, s, w, w.ends())
		})
	}
}

func TestDiskFull(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	cfg := config(fs)
	cfg.MinFreeBytes = 10 << 20
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 10<<20 - 1})
	s := open(t, cfg)
	defer closeShard(t, s)
	_, err := s.Apply(w.everything())
	full := wantAs[*projections.DiskFullError](t, err)
	if want := (projections.DiskFullError{Dir: dir, Free: 10<<20 - 1, Reserve: 10 << 20}); *full != want {
		t.Errorf("%+v, want %+v", *full, want)
	}
	const text = "disk of state is nearly full: 9 MiB free, 10 MiB are kept in reserve; free some space, nothing is lost meanwhile"
	if err.Error() != text {
		t.Errorf("error %q", err)
	}
	checkShard(t, s, w, events.Vector{})
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 10 << 20})
	apply(t, s, w.everything()...)
	checkShard(t, s, w, w.ends())
}

// Pebble learns late that its log cannot be written, because nobody waits for
// it: the shard goes on in memory for a while. Then either Pebble panics, and the
// shard is not to be touched any more, or Close has the error. What the shard
// shows and what is on disk are exact cuts all the time: nothing later than the
// failure is there without what came before.
func TestLogThatCannotBeWritten(t *testing.T) {
	// More than a block of Pebble's log, and less than a memtable: when that is
	// full, Pebble's panic cannot be caught.
	w := smallWorld(0)
	for range 6 {
		for _, l := range logsOf(0) {
			w.write(l, bare(keys[len(w[l])%len(keys)], make([]byte, 2000), 1))
		}
	}
	writing := []errorfs.OpKind{errorfs.OpFileWrite}
	syncing := []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}
	for name, c := range map[string]struct {
		kinds []errorfs.OpKind
		from  int32 // the operation that fails, and all after it
	}{
		"at the first write": {writing, 0},
		"at a later write":   {writing, 2},
		"at the first sync":  {syncing, 0},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			var ops atomic.Int32
			fs, toggle := faulty(mem, func(op errorfs.Op) bool {
				return ofFile(".log", c.kinds...)(op) && ops.Add(1) > c.from
			})
			s := open(t, config(fs))
			toggle.On()
			panicked := panics(func() {
				for offset := range int64(30) {
					for _, l := range logsOf(0) {
						apply(t, s, w.from(l, offset, 1))
					}
				}
			})
			shown := events.VectorOf(s.Logs())
			checkViews(t, s, w, shown)
			if !panicked {
				if err := s.Close(); !errors.Is(err, errorfs.ErrInjected) {
					t.Errorf("Close says %v", err)
				}
			}
			all := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}
			at := checkCrashed(t, mem.CrashClone(all), w, shown)
			if lost := at.Compare(shown) == events.Before; lost != (c.kinds[0] == errorfs.OpFileWrite) {
				t.Errorf("opened at %s, shown was %s", at, shown)
			}
		})
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// A corrupt file is an error to whoever reads it, and the end of nobody.
func TestCorruptTableIsAnErrorAndNotAPanic(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	var log strings.Builder
	cfg := config(fs)
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := coldShard(t, fs, cfg, w)
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	corrupt := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			data, err := fs.UnsafeGetFileDataBuffer(fs.PathJoin(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for i := 100; i < len(data)*3/4; i += 1000 { // all data blocks
				data[i] ^= 0xff
			}
			corrupt++
		}
	}
	if _, err := projections.Get([]*projections.Shard{s}, "session", "a"); !pebble.IsCorruptionError(err) {
		t.Errorf("Get says %v", err)
	}
	for _, err := range projections.Scan([]*projections.Shard{s}, "session", "", "") {
		if !pebble.IsCorruptionError(err) {
			t.Errorf("Scan says %v", err)
		}
	}
	if _, err := s.Verify(); !pebble.IsCorruptionError(err) {
		t.Errorf("Verify says %v", err)
	}
	at := w.ends()
	l := logsOf(0)[0]
	w.write(l, bare("a", []byte("new"), 1))
	if _, err := s.Apply([]projections.Run{w.from(l, at[l], 1)}); !pebble.IsCorruptionError(err) {
		t.Errorf("Apply says %v", err)
	}
	if s.Next(l) != at[l] {
		t.Errorf("went on to %d", s.Next(l))
	}
	closeShard(t, s)
	if lines := strings.Count(log.String(), "a file of the state is corrupt"); lines != corrupt || strings.Count(log.String(), "\n") != lines {
		t.Errorf("%d files are corrupt; log:\n%s", corrupt, &log)
	}
}

// flip changes one byte of a file.
func flip(t tb, fs vfs.FS, path string, at int64, mask byte) {
	t.Helper()
	data := read(t, fs, path)
	data[at] ^= mask
	write(t, fs, path, data)
}

func read(t tb, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, info.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t tb, fs vfs.FS, path string, data []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := (syncedFile{f}).Close(); err != nil {
		t.Fatal(err)
	}
}
