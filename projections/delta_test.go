package projections_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/touched"
)

// point is a vector that was backed up, as the layers that make it.
type point struct {
	at     events.Vector
	layers [][]string
	states []events.LogState
}

// writeDelta writes what differs between a cut and a vector as tables of a directory.
func writeDelta(t tb, fs vfs.FS, cut *projections.Cut, since events.Vector, keys map[events.Log][]string, to string, tableBytes int64) (paths []string) {
	t.Helper()
	if err := fs.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	err := cut.WriteDelta(t.Context(), since, keys, tableBytes, func([]byte) (io.WriteCloser, error) {
		paths = append(paths, fs.PathJoin(to, fmt.Sprintf("%06d.sst", len(paths))))
		f, err := fs.Create(paths[len(paths)-1], vfs.WriteCategoryUnspecified)
		return syncedFile{f}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// restoreLayers restores copies of a point's tables and opens what comes out.
func restoreLayers(t tb, fs vfs.FS, p point) *projections.Shard {
	t.Helper()
	cfg := config(copyTables(t, fs, slices.Concat(p.layers...)))
	if err := projections.RestoreLayers(t.Context(), cfg, p.layers, p.states); err != nil {
		t.Fatalf("%d layers: %v", len(p.layers), err)
	}
	return open(t, cfg)
}

// deltas drives a shard and backs it up now and then, as a whole or as what has changed
// since any earlier point.
type deltas struct {
	world   world
	logs    []events.Log
	fs      vfs.FS
	shard   *projections.Shard
	next    events.Vector // what the shard has folded
	read    events.Vector // what the set has noted, at least as much
	touched *touched.Set
	points  []point
	dirs    int
}

// Whatever is written, folded, backed up and restored: each point is restored to
// exactly what its vector says, through whichever layers, also those of databases that
// were made otherwise.
func TestDeltasAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &deltas{world: world{}, logs: genLogs().Draw(t, "logs"), fs: vfs.NewMem(), next: events.Vector{}, read: events.Vector{}, touched: touched.New(1 << 20)}
		for _, l := range d.logs {
			d.touched.Begin(l, 0)
		}
		d.shard = open(t, config(vfs.NewMem()))
		t.Cleanup(func() { closeShard(t, d.shard) })
		t.Repeat(map[string]func(*rapid.T){
			"write":    d.write,
			"write 2":  d.write,
			"fold":     d.fold,
			"fold 2":   d.fold,
			"full":     d.full,
			"delta":    d.delta,
			"delta 2":  d.delta,
			"elsewhen": d.elsewhen,
			"anew":     d.anew,
			"":         func(t *rapid.T) { checkShard(t, d.shard, d.world, d.next) },
		})
		for _, p := range d.points {
			d.check(t, p)
		}
	})
}

func (d *deltas) check(t *rapid.T, p point) {
	s := restoreLayers(t, d.fs, p)
	defer closeShard(t, s)
	checkShard(t, s, d.world, p.at)
	there := layersInPlace(t, d.fs, p)
	defer closeShard(t, there)
	checkShard(t, there, d.world, p.at)
	if err := there.Hydrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkShard(t, there, d.world, p.at)
}

// layersInPlace opens a point's tables where they are.
func layersInPlace(t tb, fs vfs.FS, p point) *projections.Shard {
	t.Helper()
	e := newElsewhere()
	var layers []projections.Layer
	for i, paths := range p.layers {
		layers = append(layers, e.putTables(t, fs, fmt.Sprintf("backup-%d", i), paths))
	}
	cfg := config(vfs.NewMem())
	cfg.Outside = e
	if err := projections.RestoreInPlace(t.Context(), cfg, "backup", layers, p.states); err != nil {
		t.Fatalf("%d layers in place: %v", len(layers), err)
	}
	return open(t, cfg)
}

func (d *deltas) write(t *rapid.T) {
	l := rapid.SampledFrom(d.logs).Draw(t, "log")
	for range rapid.IntRange(1, 8).Draw(t, "records") {
		d.world.write(l, genRecord().Draw(t, "record"))
	}
}

// fold folds some of what is next in some logs, and has the set read as far or further.
func (d *deltas) fold(t *rapid.T) {
	var runs []projections.Run
	for _, l := range rapid.SliceOfNDistinct(rapid.SampledFrom(d.logs), 1, 4, func(l events.Log) string { return l.String() }).Draw(t, "logs") {
		run := d.world.from(l, d.next[l], rapid.IntRange(1, 9).Draw(t, "records"))
		runs = append(runs, run)
		d.next[l] += int64(len(run.Records))
		ahead := d.world.from(l, d.read[l], int(d.next[l]-d.read[l])+rapid.IntRange(0, 2).Draw(t, "ahead"))
		for _, r := range ahead.Records {
			d.touched.Note(l, r)
		}
		d.read[l] += int64(len(ahead.Records))
	}
	apply(t, d.shard, runs...)
}

func (d *deltas) freeze(t *rapid.T) (cut *projections.Cut, to string) {
	cut, err := d.shard.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	d.dirs++
	return cut, fmt.Sprintf("tables-%d", d.dirs)
}

func (d *deltas) full(t *rapid.T) {
	cut, to := d.freeze(t)
	defer cut.Close()
	tables := writeTables(t, d.fs, cut, to, rapid.Int64Range(0, 300).Draw(t, "table bytes"))
	d.points = append(d.points, point{d.next.Clone(), [][]string{tables}, cut.States()})
}

func (d *deltas) delta(t *rapid.T) {
	base := d.any(t)
	cut, to := d.freeze(t)
	defer cut.Close()
	if o := base.at.Compare(cut.Vector()); o != events.Before && o != events.Equal {
		if err := cut.WriteDelta(t.Context(), base.at, nil, 1, nil); err == nil {
			t.Fatalf("a delta from %s back to %s", base.at, cut.Vector())
		}
		t.Skip("the shard is behind that point")
	}
	keys, err := d.touched.Since(base.at, cut.Vector())
	if err != nil {
		t.Fatal(err)
	}
	tables := writeDelta(t, d.fs, cut, base.at, keys, to, rapid.Int64Range(0, 300).Draw(t, "table bytes"))
	p := point{d.next.Clone(), append(slices.Clone(base.layers), tables), cut.States()}
	d.points = append(d.points, p)
	d.check(t, p)
}

func (d *deltas) any(t *rapid.T) point {
	if len(d.points) == 0 {
		t.Skip("no point yet")
	}
	return rapid.SampledFrom(d.points).Draw(t, "point")
}

// elsewhen goes on with a shard that is restored from any point.
func (d *deltas) elsewhen(t *rapid.T) {
	p := d.any(t)
	closeShard(t, d.shard)
	d.shard, d.next = restoreLayers(t, d.fs, p), p.at.Clone()
}

// anew goes on with a shard that is folded from nothing, record by record.
func (d *deltas) anew(t *rapid.T) {
	closeShard(t, d.shard)
	d.shard = open(t, config(vfs.NewMem()))
	step := rapid.IntRange(1, 5).Draw(t, "records at a time")
	for _, l := range slices.SortedFunc(maps.Keys(d.next), events.Log.Compare) {
		for at := int64(0); at < d.next[l]; at += int64(step) {
			apply(t, d.shard, d.world.from(l, at, min(step, int(d.next[l]-at))))
		}
	}
}

// manyRecords is a log of so many records over a few keys, each value being new.
func manyRecords(w world, l events.Log, records int) {
	for i := range records {
		w.write(l, bare(keys[i%len(keys)], fmt.Appendf(nil, "%d", i), int64(i)))
	}
}

// A delta brings the marks of its window, takes away those that they have replaced, and
// leaves the rest.
func TestDeltaHasMarks(t *testing.T) {
	w, l := world{}, logsOf(0)[0]
	manyRecords(w, l, 5000)
	const far = 4096 * projections.MarkEvery // behind this, marks go
	for i := range 3000 {                    // of a log with holes: offsets jump
		r := bare("late", fmt.Appendf(nil, "%d", i), int64(i))
		r.Offset = int64(far + i)
		w[l] = append(w[l], r)
	}
	fs, s := vfs.NewMem(), openNew(t)
	var points []point
	set := touched.New(1 << 20)
	set.Begin(l, 0)
	folded := 0
	for i, until := range []int{1500, 1501, 4000, 6000, 8000} {
		for _, r := range w[l][folded:until] {
			set.Note(l, r)
		}
		apply(t, s, projections.Run{Log: l, Records: w[l][folded:until], Sparse: true})
		folded = until
		cut, err := s.Freeze()
		if err != nil {
			t.Fatal(err)
		}
		p := point{at: cut.Vector(), states: cut.States()}
		to := fmt.Sprintf("tables-%d", i)
		if i == 0 {
			p.layers = [][]string{writeTables(t, fs, cut, to, 1<<20)}
		} else {
			base := points[i-1]
			keys, err := set.Since(base.at, p.at)
			if err != nil {
				t.Fatal(err)
			}
			p.layers = append(slices.Clone(base.layers), writeDelta(t, fs, cut, base.at, keys, to, 1<<20))
		}
		if err := cut.Close(); err != nil {
			t.Fatal(err)
		}
		points = append(points, p)
		restored := restoreLayers(t, fs, p)
		for at := int64(projections.MarkEvery); at < p.at[l]; at += projections.MarkEvery {
			want, wantErr := s.At(l, at)
			got, gotErr := restored.At(l, at)
			if wantErr == nil && gotErr != nil && at > 5000 && at < far {
				continue // inside a hole, and not remembered
			}
			if got != want || (gotErr == nil) != (wantErr == nil) {
				t.Errorf("layer %d, mark at %d: %+v, %v; want %+v, %v", i, at, got, gotErr, want, wantErr)
			}
		}
		closeShard(t, restored)
	}
}

// A delta is as large as what was touched, and not as the state.
func TestDeltaIsSmall(t *testing.T) {
	sizes := map[int]int{}
	for _, n := range []int{100, 1000} {
		w, s := world{}, openNew(t)
		since := events.Vector{}
		for _, l := range logsOf(0) {
			for i := range n {
				w.write(l, bare(fmt.Sprintf("key-%05d", i), []byte("value"), 1))
			}
			since[l] = int64(n)
		}
		apply(t, s, w.everything()...)
		keys := map[events.Log][]string{}
		for _, l := range logsOf(0)[:3] {
			w.write(l, bare("key-00001", []byte("another"), 2))
			apply(t, s, w.from(l, int64(n), 1))
			keys[l] = []string{"key-00001", "key-00001", "never there"}
		}
		cut, err := s.Freeze()
		if err != nil {
			t.Fatal(err)
		}
		out := &tally{}
		if err := cut.WriteDelta(t.Context(), since, keys, 1<<20, func([]byte) (io.WriteCloser, error) { return out, nil }); err != nil {
			t.Error(err)
		}
		if err := cut.Close(); err != nil {
			t.Error(err)
		}
		sizes[n] = out.written
	}
	if sizes[1000] > sizes[100]+sizes[100]/10 {
		t.Errorf("bytes by keys in each log: %v", sizes)
	}
}

// What cannot be a delta is refused, and nothing is written.
func TestDeltaRefuses(t *testing.T) {
	w, s := smallWorld(0), openNew(t)
	apply(t, s, w.everything()...)
	cut, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	moved, ahead, foreign := w.ends(), w.ends(), w.ends()
	l := logsOf(0)[2]
	moved[l]--
	ahead[l]++
	foreign[events.Log{Origin: events.FirstOrigin("z"), Stream: "session"}] = 1
	for name, c := range map[string]struct {
		since events.Vector
		kind  events.Kind
	}{
		"nobody knows the keys": {moved, events.KindInvalid},
		"the cut is behind":     {ahead, events.KindRefused},
		"a log is not there":    {foreign, events.KindRefused},
	} {
		err := cut.WriteDelta(t.Context(), c.since, nil, 1, func([]byte) (io.WriteCloser, error) {
			t.Errorf("%s: a table is written", name)
			return &tally{}, nil
		})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		wantKind(t, err, c.kind)
	}
	if err := cut.WriteDelta(t.Context(), w.ends(), nil, 1, nil); err != nil {
		t.Errorf("nothing has changed: %v", err)
	}
}

// What goes wrong with a table comes out, and every table is closed once.
func TestDeltaFails(t *testing.T) {
	w, s := smallWorld(0), openNew(t)
	apply(t, s, w.everything()...)
	cut, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	all := map[events.Log][]string{}
	for _, l := range logsOf(0) {
		all[l] = keys
	}
	for name, first := range map[string]tally{"write": {failWrite: true}, "close": {failClose: true}} {
		out := first
		err := cut.WriteDelta(t.Context(), nil, all, 1<<20, func([]byte) (io.WriteCloser, error) { return &out, nil })
		if err == nil || out.closed != 1 {
			t.Errorf("%s: %v, closed %d times", name, err, out.closed)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := cut.WriteDelta(ctx, nil, all, 1, func([]byte) (io.WriteCloser, error) { return &tally{}, nil }); err == nil {
		t.Error("nobody wants it, and it is written")
	}
}

// A layer that is missing, or is there in another order, is found out.
func TestRestoreMissesEveryLayer(t *testing.T) {
	w, s, fs := world{}, openNew(t), vfs.NewMem()
	p, was := point{}, events.Vector{}
	for i := range 4 {
		key := fmt.Sprintf("key-%d", i)
		touched := map[events.Log][]string{}
		for _, l := range logsOf(0) {
			w.write(l, bare(key, []byte("value"), 1))
			apply(t, s, w.from(l, s.Next(l), 1))
			touched[l] = []string{key}
		}
		cut, err := s.Freeze()
		if err != nil {
			t.Fatal(err)
		}
		p.layers = append(p.layers, writeDelta(t, fs, cut, was, touched, fmt.Sprintf("tables-%d", i), 1<<20))
		p.states, was = cut.States(), cut.Vector()
		if err := cut.Close(); err != nil {
			t.Fatal(err)
		}
	}
	closeShard(t, restoreLayers(t, fs, p)) // a delta since nothing is as good as a full
	restore := func(layers [][]string) error {
		return projections.RestoreLayers(t.Context(), config(copyTables(t, fs, slices.Concat(p.layers...))), layers, p.states)
	}
	for i := range p.layers {
		err := restore(slices.Delete(slices.Clone(p.layers), i, i+1))
		if err == nil {
			t.Errorf("nobody misses layer %d", i)
		}
		wantKind(t, err, events.KindInconsistent)
	}
	swapped := slices.Clone(p.layers)
	swapped[2], swapped[3] = swapped[3], swapped[2]
	wantKind(t, restore(swapped), events.KindInconsistent)
}
