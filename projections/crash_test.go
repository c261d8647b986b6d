package projections_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// bigWorld is random, with values large enough that Pebble's log grows over
// many blocks, some of which a crash takes away.
func bigWorld(rng *rand.Rand, records int) world { return bigWorldIn(rng, streams, records) }

// bigWorldOfAll has streams of all rules.
func bigWorldOfAll(rng *rand.Rand, records int) world {
	return bigWorldIn(rng, slices.Sorted(maps.Keys(ruleOf)), records)
}

func bigWorldIn(rng *rand.Rand, streams []events.Stream, records int) world {
	w := world{}
	logs := logsIn(0, streams)
	for range records {
		value := make([]byte, rng.IntN(6000))
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		r := bare(keys[rng.IntN(len(keys))], value, rng.Int64N(5))
		switch rng.IntN(8) {
		case 0:
			r.Value = nil
		case 1:
			r.Key = nil
		}
		l := logs[rng.IntN(len(logs))]
		if l.Stream == "fields" && r.Value != nil {
			r.Value = fmt.Appendf(nil, `{"f-%d":"%x"}`, rng.IntN(4), value)
		}
		w.write(l, r)
	}
	return w
}

// randomRuns moves every log on by some records from where the shard stands.
func randomRuns(rng *rand.Rand, w world, s *projections.Shard) (runs []projections.Run) {
	for _, l := range logsIn(0, w.streams()) {
		runs = append(runs, w.from(l, s.Next(l), rng.IntN(5)))
	}
	return runs
}

// crashed is what is left of a file system after a crash.
func crashed(rng *rand.Rand, fs *vfs.MemFS) *vfs.MemFS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 25 * rng.IntN(5), RNG: rng})
}

// checkCrashed opens a shard after a crash: it stands at an exact cut, not after
// the one that it had shown, and is brought to the end by replaying its logs.
func checkCrashed(t *testing.T, fs *vfs.MemFS, w world, shown events.Vector) (at events.Vector) {
	t.Helper()
	s := open(t, config(fs))
	defer closeShard(t, s)
	at = events.VectorOf(s.Logs())
	if o := at.Compare(shown); o == events.After || o == events.Concurrent {
		t.Fatalf("crashed at %s, opened at %s", shown, at)
	}
	checkShard(t, s, w, at)
	for l, records := range w {
		apply(t, s, w.from(l, s.Next(l), len(records)))
	}
	checkShard(t, s, w, w.ends())
	return at
}

func TestCrashBetweenApplies(t *testing.T) {
	lost, kept := 0, 0
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			w, fs := bigWorldOfAll(rng, 400), vfs.NewCrashableMem()
			s := open(t, config(fs))
			for range rng.IntN(12) {
				apply(t, s, randomRuns(rng, w, s)...)
			}
			shown := events.VectorOf(s.Logs())
			after := crashed(rng, fs)
			closeShard(t, s)
			at := checkCrashed(t, after, w, shown)
			if at.Compare(shown) == events.Before {
				lost++
			}
			if len(at) > 0 {
				kept++
			}
		})
	}
	if lost == 0 || kept == 0 {
		t.Errorf("%d crashes took something, %d left something: the test tests too little", lost, kept)
	}
}

// The crash comes while Pebble writes its log and flushes memtables.
func TestCrashWhileApplying(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 2))
	w, fs := bigWorldOfAll(rng, 2_000), vfs.NewCrashableMem()
	s := open(t, config(fs))
	defer func() { closeShard(t, s) }()
	for range 12 {
		applied := make(chan error, 1)
		go func(seed uint64) {
			rng := rand.New(rand.NewPCG(seed, 3))
			var err error
			for range 10 {
				_, e := s.Apply(randomRuns(rng, w, s))
				err = errors.Join(err, e)
			}
			applied <- err
		}(rng.Uint64())
		after := crashed(rng, fs)
		if err := <-applied; err != nil {
			t.Fatal(err)
		}
		checkCrashed(t, after, w, events.VectorOf(s.Logs()))
	}
}

// What was closed is durable, all of it, whatever was not asked to be synced.
func TestCrashAfterClose(t *testing.T) {
	w, fs := bigWorldOfAll(rand.New(rand.NewPCG(1, 1)), 300), vfs.NewCrashableMem()
	s := open(t, config(fs))
	apply(t, s, w.everything()...)
	closeShard(t, s)
	s = open(t, config(fs.CrashClone(vfs.CrashCloneCfg{})))
	defer closeShard(t, s)
	checkShard(t, s, w, w.ends())
	if s.Lineage().ID != "first" {
		t.Errorf("lineage %+v", s.Lineage())
	}
}

// A shard that has just been made survives a crash as what it is, with all the
// directories above it.
func TestCrashAfterOpen(t *testing.T) {
	fs := vfs.NewCrashableMem()
	cfg := config(fs)
	cfg.Dir = "data/state/shard-0000"
	s := open(t, cfg)
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	closeShard(t, s)
	cfg.FS, cfg.Lineage.ID = after, "second"
	s = open(t, cfg)
	defer closeShard(t, s)
	if s.Lineage().ID != "first" {
		t.Errorf("the shard was lost: lineage %+v", s.Lineage())
	}
}

// A restored shard is durable once Restore returns.
func TestCrashAfterRestore(t *testing.T) {
	w, fs := bigWorldOfAll(rand.New(rand.NewPCG(1, 2)), 300), vfs.NewCrashableMem()
	tables, states := backup(t, fs, 0, w, 500)
	if err := projections.Restore(t.Context(), config(fs), tables, states); err != nil {
		t.Fatal(err)
	}
	s := open(t, config(fs.CrashClone(vfs.CrashCloneCfg{})))
	defer closeShard(t, s)
	checkShard(t, s, w, w.ends())
}
