package projections_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/derived"
)

// byValue is an index of the keys of session by their values.
func byValue(version int) derived.Model {
	return derived.Model{
		Name: "by-value", Version: version, Streams: []events.Stream{"session"},
		Rows: func(v derived.View, emit func(string, []byte)) error {
			// Wide, so that a step of building fills several blocks of Pebble's log.
			emit(fmt.Sprintf("v%d %s", version, v.Value), fmt.Appendf(nil, "%-500s", v.Position))
			return nil
		},
	}
}

// counts counts the events of each key, in a log.
func counts() derived.Model {
	return derived.Model{Name: "counts", Version: 1, Fold: func(e derived.Event, entries *derived.Entries) error {
		entries.Add("key "+e.Key, 1)
		return nil
	}}
}

// gated is a model whose function waits for the gate in its n-th call, and tells.
func gated(m derived.Model, n int) (gate derived.Model, reached, open chan struct{}) {
	reached, open = make(chan struct{}), make(chan struct{})
	rows, calls := m.Rows, 0
	m.Rows = func(v derived.View, emit func(string, []byte)) error {
		if calls++; calls == n { // calls never overlap in one shard
			close(reached)
			<-open
		}
		return rows(v, emit)
	}
	return m, reached, open
}

// wideWorld has many keys, each written in several logs.
func wideWorld(rng *rand.Rand, keys, records int) world {
	w, logs := world{}, logsOf(0)
	for range records {
		r := bare(fmt.Sprintf("k%04d", rng.IntN(keys)), []byte(fmt.Sprintf("%d", rng.IntN(20))), rng.Int64N(5))
		if rng.IntN(6) == 0 {
			r.Value = nil
		}
		w.write(logs[rng.IntN(len(logs))], r)
	}
	return w
}

// half is one run of each log, up to its middle.
func (w world) half() (runs []projections.Run) {
	for l, records := range w {
		runs = append(runs, w.from(l, 0, len(records)/2))
	}
	return runs
}

func rows(t tb, s *projections.Shard, name string) (list []derived.Row) {
	t.Helper()
	for row, err := range projections.QueryModel([]*projections.Shard{s}, name, "", nil) {
		if err != nil {
			t.Fatal(err)
		}
		row.Next = nil
		list = append(list, row)
	}
	return list
}

// checkModel compares the entries of byValue with what the views say.
func checkModel(t tb, s *projections.Shard, version int) {
	t.Helper()
	var want []string
	for _, e := range scanAll(t, []*projections.Shard{s}, "session", "", "") {
		want = append(want, fmt.Sprintf("v%d %s of %s is %s", version, e.Value, e.Key, e.Position))
	}
	var got []string
	for _, row := range rows(t, s, "by-value") {
		if row.Stream != "session" {
			t.Fatalf("%+v", row)
		}
		got = append(got, fmt.Sprintf("%s of %s is %s", row.Key, row.Of, strings.TrimSpace(string(row.Value))))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("entries:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wait(t *testing.T, s *projections.Shard) {
	t.Helper()
	if err := s.WaitModels(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func statusOf(t *testing.T, s *projections.Shard, name string) derived.Status {
	t.Helper()
	for _, m := range s.Models() {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("there is no model %s", name)
	return derived.Status{}
}

func withModels(fs vfs.FS, models ...derived.Model) projections.Config {
	cfg := config(fs)
	cfg.Models = models
	return cfg
}

// derivedKeys counts what the database of a closed shard holds of models.
func derivedKeys(t *testing.T, fs vfs.FS) (n int) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{derived.Prefix}, UpperBound: []byte{derived.Prefix + 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		n++
	}
	return n
}

// A model that is built while batches go on ends with the entries that it would
// have had all along.
func TestModelIsBuiltWhileFolding(t *testing.T) {
	during := 0
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 4))
		w, fs := wideWorld(rng, 1500, 4000), vfs.NewMem()
		s := open(t, config(fs))
		apply(t, s, w.half()...)
		closeShard(t, s)
		s = open(t, withModels(fs, byValue(1)))
		for statusOf(t, s, "by-value").State == derived.Building {
			apply(t, s, randomRuns(rng, w, s)...)
			during++
		}
		wait(t, s)
		checkModel(t, s, 1)
		for l, records := range w {
			apply(t, s, w.from(l, s.Next(l), len(records)))
		}
		checkModel(t, s, 1)
		checkShard(t, s, w, w.ends())
		closeShard(t, s)
	}
	if during == 0 {
		t.Error("every build was over before the first batch: the test tests too little")
	}
}

func TestModelCrashWhileBuilding(t *testing.T) {
	resumed, lost := 0, 0
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 5))
		w, fs := wideWorld(rng, 1500, 8000), vfs.NewCrashableMem()
		s := open(t, config(fs))
		apply(t, s, w.half()...)
		closeShard(t, s)
		model, reached, gate := gated(byValue(1), 520+rng.IntN(300)) // in the third step or later
		s = open(t, withModels(fs, model))
		<-reached
		// All or nothing of what is on its way to the disk: with less than all, Pebble's
		// log nearly always ends before the first step.
		after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100 * int(seed%2), RNG: rng})
		before := statusOf(t, s, "by-value")
		close(gate)
		closeShard(t, s)
		if before.State != derived.Building || before.Done == 0 || before.Total < before.Done {
			t.Fatalf("in the middle: %+v", before)
		}

		first, reached, gate := gated(byValue(1), 1)
		s = open(t, withModels(after, first))
		<-reached
		switch got := statusOf(t, s, "by-value"); {
		case got.State != derived.Building || got.Done > before.Done:
			t.Fatalf("after the crash: %+v, before it %+v", got, before)
		case got.Done > 0:
			resumed++
		default:
			lost++
		}
		close(gate)
		for l, records := range w {
			apply(t, s, w.from(l, s.Next(l), len(records)))
		}
		wait(t, s)
		checkModel(t, s, 1)
		closeShard(t, s)
	}
	if resumed == 0 || lost == 0 {
		t.Errorf("%d builds went on, %d began anew: the test tests too little", resumed, lost)
	}
}

// The entries of the version before are served, and said to be stale, until those
// of the new one are complete; nothing of them is left then.
func TestModelVersion(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 6))
	w, fs := wideWorld(rng, 1000, 4000), vfs.NewMem()
	s := open(t, withModels(fs, byValue(1)))
	if st := statusOf(t, s, "by-value"); st.State != derived.Running {
		t.Fatalf("an empty shard's model: %+v", st)
	}
	apply(t, s, w.half()...)
	checkModel(t, s, 1)
	old, at := rows(t, s, "by-value"), events.VectorOf(s.Logs())
	closeShard(t, s)

	model, reached, gate := gated(byValue(2), 400)
	s = open(t, withModels(fs, model))
	<-reached
	if got := rows(t, s, "by-value"); !reflect.DeepEqual(got, old) {
		t.Errorf("%d entries are served while the new ones are made, want the old %d", len(got), len(old))
	}
	st := statusOf(t, s, "by-value")
	if st.State != derived.Building || st.ServedVersion != 1 || !strings.Contains(st.Stale, "version 1") || st.Until.Compare(at) != events.Equal {
		t.Errorf("status %+v", st)
	}
	close(gate)
	apply(t, s, w.everything()...)
	wait(t, s)
	checkModel(t, s, 2)
	st = statusOf(t, s, "by-value")
	if st.State != derived.Running || st.ServedVersion != 2 || st.Stale != "" || st.Done != 0 {
		t.Errorf("status %+v", st)
	}
	n := len(rows(t, s, "by-value"))
	closeShard(t, s)
	if got := derivedKeys(t, fs); got != n+1 {
		t.Errorf("%d keys are in the database, want %d entries and a record", got, n)
	}
}

// Rebuild of a model that runs: it is kept up to date and served meanwhile.
func TestModelRebuild(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 7))
	w := wideWorld(rng, 1000, 4000)
	s := open(t, withModels(vfs.NewMem(), byValue(1)))
	defer closeShard(t, s)
	for l, records := range w {
		apply(t, s, w.from(l, 0, len(records)/2))
	}
	during := 0
	for range 5 {
		if err := s.RebuildModel(t.Context(), "by-value", derived.Rebuild{}); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			apply(t, s, randomRuns(rng, w, s)...)
			checkModel(t, s, 1)
			if st := statusOf(t, s, "by-value"); st.State == derived.Building && st.Stale == "" {
				during++
			}
		}
		wait(t, s)
		checkModel(t, s, 1)
	}
	if during == 0 {
		t.Error("every rebuild was over before the first batch: the test tests too little")
	}
	wantKind(t, s.RebuildModel(t.Context(), "nobody's", derived.Rebuild{}), events.KindNotFound)
	wantKind(t, s.RebuildModel(t.Context(), "by-value", derived.Rebuild{FromNow: true}), events.KindInvalid)
}

func TestModelOfEvents(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, config(fs))
	apply(t, s, w.half()...)
	at := events.VectorOf(s.Logs())
	closeShard(t, s)
	s = open(t, withModels(fs, counts()))
	st := statusOf(t, s, "counts")
	if st.State != derived.Running || !st.Served || st.Since.Compare(at) != events.Equal {
		t.Errorf("status %+v, want it to run since %s", st, at)
	}
	sum := func() (n int) {
		for _, row := range rows(t, s, "counts") {
			var one int
			if _, err := fmt.Sscan(string(row.Value), &one); err != nil || row.Log.Stream == "" || row.Of != "" {
				t.Fatalf("%+v: %v", row, err)
			}
			n += one
		}
		return n
	}
	done := apply(t, s, w.everything()...)
	if got := sum(); got != done.Events {
		t.Errorf("%d events are counted, want the %d since", got, done.Events)
	}
	wantKind(t, s.RebuildModel(t.Context(), "counts", derived.Rebuild{}), events.KindRefused)
	if err := s.RebuildModel(t.Context(), "counts", derived.Rebuild{FromNow: true}); err != nil {
		t.Fatal(err)
	}
	if st := statusOf(t, s, "counts"); sum() != 0 || st.Since.Compare(w.ends()) != events.Equal {
		t.Errorf("from now on: %d are counted since %s", sum(), st.Since)
	}
	closeShard(t, s)
}

// What is not enabled any more is removed: nobody would keep it up to date.
func TestModelIsDisabled(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, withModels(fs, byValue(1), counts()))
	apply(t, s, w.everything()...)
	closeShard(t, s)
	s = open(t, withModels(fs, byValue(1)))
	for _, err := range projections.QueryModel([]*projections.Shard{s}, "counts", "", nil) {
		wantKind(t, err, events.KindNotFound)
	}
	n := len(rows(t, s, "by-value"))
	closeShard(t, s)
	if got := derivedKeys(t, fs); got != n+1 {
		t.Errorf("%d keys, want %d", got, n+1)
	}
	closeShard(t, open(t, config(fs)))
	if got := derivedKeys(t, fs); got != 0 {
		t.Errorf("%d keys are left", got)
	}
}

// Entries are in no backup; a restored shard makes them.
func TestModelAfterRestore(t *testing.T) {
	w, fs := smallWorld(0), vfs.NewMem()
	s := open(t, withModels(fs, byValue(1), counts()))
	apply(t, s, w.everything()...)
	cut, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	tables := writeTables(t, fs, cut, "tables", 500)
	states := cut.States()
	if err := cut.Close(); err != nil {
		t.Fatal(err)
	}
	closeShard(t, s)
	cfg := withModels(fs, byValue(1), counts())
	cfg.Dir = "restored"
	if err := projections.Restore(t.Context(), cfg, tables, states); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	defer closeShard(t, s)
	wait(t, s)
	checkModel(t, s, 1)
	checkShard(t, s, w, w.ends())
	if st := statusOf(t, s, "counts"); st.Since.Compare(w.ends()) != events.Equal || len(rows(t, s, "counts")) != 0 {
		t.Errorf("counts of events that were not seen: %+v", st)
	}
}

// Pages over several shards give every row once, in order, also those that two
// shards have under one key.
func TestQueryModel(t *testing.T) {
	var shards []*projections.Shard
	want := map[string]int{}
	for p := range int32(3) {
		cfg := withModels(vfs.NewMem(), byValue(1))
		cfg.Partition = p
		s := open(t, cfg)
		t.Cleanup(func() { closeShard(t, s) })
		l := events.Log{Origin: regions[0], Stream: "session", Partition: p}
		w := world{}
		for i, value := range []string{"a", "a\xff", "a\xff\xff", "a\x00", "a\x00\xff", "ab", "b", "\xff"} {
			w.write(l, bare("same", []byte(value), 1))
			w.write(l, bare(fmt.Sprint("k", i), []byte(value), 1))
			want["v1 "+value+" k"+fmt.Sprint(i)]++
		}
		want["v1 \xff same"]++
		apply(t, s, w.everything()...)
		shards = append(shards, s)
	}
	for _, prefix := range []string{"", "v1 ", "v1 a", "v1 a\xff", "v1 a\x00", "v1 b", "v2", "\x00", "\xff"} {
		for _, size := range []int{1, 2, 3, 100} {
			got, last := map[string]int{}, ""
			var next []byte
			for n := size; n == size; {
				n = 0
				for row, err := range projections.QueryModel(shards, "by-value", prefix, next) {
					if err != nil {
						t.Fatal(err)
					}
					if n == size {
						break
					}
					if row.Key < last {
						t.Fatalf("%q comes after %q", row.Key, last)
					}
					last, next = row.Key, row.Next
					got[row.Key+" "+row.Of]++
					n++
				}
			}
			wanted := map[string]int{}
			for key, n := range want {
				if strings.HasPrefix(key, prefix) {
					wanted[key] = n
				}
			}
			if !reflect.DeepEqual(got, wanted) {
				t.Errorf("prefix %q, pages of %d: %v, want %v", prefix, size, got, wanted)
			}
		}
	}
}
