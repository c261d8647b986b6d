package projections_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// machine drives one shard through everything that can happen to it, beside the
// world, which knows what the shard must hold.
type machine struct {
	world   world
	logs    []events.Log
	fs      *vfs.MemFS
	cfg     projections.Config
	shard   *projections.Shard
	next    events.Vector // what the shard has folded
	durable events.Vector // what it cannot lose
	blocked map[events.Log]bool
	dirs    int
}

const reserve = 100 // bytes of disk to be kept free

func TestShardAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{world: world{}, logs: genLogs().Draw(t, "logs"), fs: vfs.NewCrashableMem()}
		for _, l := range m.logs {
			m.world[l] = nil
		}
		m.cfg = config(m.fs)
		m.cfg.MinFreeBytes = reserve
		m.open(t)
		t.Cleanup(func() {
			if m.shard != nil {
				m.close(t)
			}
		})
		t.Repeat(map[string]func(*rapid.T){
			"write":   m.write,
			"apply":   m.apply,
			"apply 2": m.apply, // as often as all that is rare together
			"apply 3": m.apply,
			"gap":     m.gap,
			"stream":  m.unknownStream,
			"full":    m.diskFull,
			"reopen":  m.reopen,
			"crash":   m.crash,
			"restore": m.restore,
			"":        m.check,
		})
		m.finish(t)
	})
}

func (m *machine) open(t *rapid.T) {
	m.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: reserve})
	s, err := projections.Open(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.shard, m.blocked = s, map[events.Log]bool{}
	m.next = events.VectorOf(s.Logs())
	m.durable = m.next.Clone()
}

func (m *machine) close(t *rapid.T) {
	s := m.shard
	m.shard = nil
	closeShard(t, s)
}

func (m *machine) check(t *rapid.T) {
	checkShard(t, m.shard, m.world, m.next)
	got := m.shard.Blocked()
	if len(got) != len(m.blocked) {
		t.Fatalf("blocked are %v, want %v", got, m.blocked)
	}
	for l := range m.blocked {
		if got[l] == nil {
			t.Fatalf("%s is not blocked", l)
		}
	}
}

func (m *machine) write(t *rapid.T) {
	l := rapid.SampledFrom(m.logs).Draw(t, "log")
	for range rapid.IntRange(1, 8).Draw(t, "records") {
		m.world.write(l, genRecord().Draw(t, "record"))
	}
}

// run draws a run of a log: some of it may have been folded before, and it may
// end anywhere.
func (m *machine) run(t *rapid.T) projections.Run {
	l := rapid.SampledFrom(m.logs).Draw(t, "log")
	back := rapid.Int64Range(0, 3).Draw(t, "folded before")
	return m.world.from(l, max(0, m.next[l]-back), rapid.IntRange(0, 9).Draw(t, "records"))
}

// expect works out what an Apply of the runs does, and takes it in.
func (m *machine) expect(runs []projections.Run) (done projections.Applied) {
	for _, run := range runs {
		if m.blocked[run.Log] {
			continue
		}
		from := m.next[run.Log]
		for _, r := range run.Records {
			if r.Offset < m.next[run.Log] {
				done.Skipped++
				continue
			}
			if r.Offset > m.next[run.Log] {
				m.blocked[run.Log] = true
				break
			}
			m.next[run.Log]++
		}
		done = done.Add(m.world.foldSince(run.Log, m.next[run.Log], from).done)
	}
	return done
}

func (m *machine) applyRuns(t *rapid.T, runs []projections.Run) {
	want := m.expect(runs)
	got, err := m.shard.Apply(runs)
	if err != nil || got != want {
		t.Fatalf("applied %+v, %v; want %+v", got, err, want)
	}
}

func (m *machine) apply(t *rapid.T) {
	var runs []projections.Run
	for range rapid.IntRange(0, 4).Draw(t, "runs") {
		runs = append(runs, m.run(t))
	}
	m.applyRuns(t, runs)
}

func (m *machine) gap(t *rapid.T) {
	l := rapid.SampledFrom(m.logs).Draw(t, "log")
	first := m.next[l] + rapid.Int64Range(1, 2).Draw(t, "missing")
	if m.blocked[l] || first >= int64(len(m.world[l])) {
		t.Skip("nothing to leave out")
	}
	want := m.next[l]
	runs := []projections.Run{m.world.from(l, first, 3), m.run(t), m.world.from(l, want, 1)}
	if runs[1].Log == l {
		runs[1].Records = nil
	}
	m.applyRuns(t, runs)
	var gap *projections.GapError
	if err := m.shard.Blocked()[l]; !errors.As(err, &gap) || *gap != (projections.GapError{Log: l, Want: want, Got: first}) {
		t.Fatalf("blocked by %v, want a gap from %d to %d", err, want, first)
	}
}

func (m *machine) unknownStream(t *rapid.T) {
	l := events.Log{Origin: regions[0], Stream: "nobodys"}
	m.blocked[l] = true
	m.applyRuns(t, []projections.Run{{Log: l, Records: m.run(t).Records}, m.run(t)})
	if next := m.shard.Next(l); next != 0 {
		t.Fatalf("a log without a rule was folded up to %d", next)
	}
}

func (m *machine) diskFull(t *rapid.T) {
	m.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: reserve - 1})
	runs := []projections.Run{m.run(t), m.run(t)}
	var full *projections.DiskFullError
	if done, err := m.shard.Apply(runs); !errors.As(err, &full) || done != (projections.Applied{}) {
		t.Fatalf("full disk: %+v, %v", done, err)
	}
	m.check(t)
	m.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: reserve})
	m.applyRuns(t, runs)
}

func (m *machine) reopen(t *rapid.T) {
	was := m.next
	m.close(t)
	m.open(t)
	if m.next.Compare(was) != events.Equal {
		t.Fatalf("closed at %s, opened at %s", was, m.next)
	}
}

// crash takes away what was not synced, or some of it.
func (m *machine) crash(t *rapid.T) {
	percent := rapid.SampledFrom([]int{0, 10, 50, 90, 100}).Draw(t, "percent kept")
	seed := rapid.Uint64().Draw(t, "seed")
	crashed := m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})
	m.close(t)
	was, durable := m.next, m.durable
	m.fs, m.cfg.FS = crashed, crashed
	m.open(t)
	if o := m.next.Compare(was); o != events.Equal && o != events.Before {
		t.Fatalf("crashed at %s, opened at %s", was, m.next)
	}
	if o := m.next.Compare(durable); o != events.Equal && o != events.After {
		t.Fatalf("what was synced, %s, is lost: opened at %s", durable, m.next)
	}
}

// restore goes on with a shard that is restored from a backup of this one.
func (m *machine) restore(t *rapid.T) {
	cut, err := m.shard.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	m.dirs++
	tables := writeTables(t, m.fs, cut, fmt.Sprintf("tables-%d", m.dirs), rapid.Int64Range(0, 200).Draw(t, "table bytes"))
	states := cut.States()
	if err := cut.Close(); err != nil {
		t.Fatal(err)
	}
	m.close(t)
	m.cfg.Dir = fmt.Sprintf("%s-%d", dir, m.dirs)
	if err := projections.Restore(t.Context(), m.cfg, tables, states); err != nil {
		t.Fatal(err)
	}
	was := m.next
	m.open(t)
	if m.next.Compare(was) != events.Equal {
		t.Fatalf("backed up at %s, restored at %s", was, m.next)
	}
}

// finish feeds the shard what it has not seen; then it must be the same as one
// that was fed everything at once.
func (m *machine) finish(t *rapid.T) {
	m.reopen(t) // unblocks
	for _, l := range slices.SortedFunc(maps.Keys(m.world), events.Log.Compare) {
		m.applyRuns(t, []projections.Run{m.world.from(l, m.next[l], 1<<20)})
	}
	m.check(t)
	whole := open(t, config(vfs.NewMem()))
	defer closeShard(t, whole)
	apply(t, whole, m.world.everything()...)
	if !slices.Equal(whole.Logs(), m.shard.Logs()) {
		t.Fatalf("in pieces:\n%+v\nat once:\n%+v", m.shard.Logs(), whole.Logs())
	}
	checkShard(t, whole, m.world, m.world.ends())
}
