package projections_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// elsewhere holds tables that shards read in place.
type elsewhere struct {
	mu     sync.Mutex
	tables map[string][]byte // by backup/name
	away   error             // why nothing can be read at present
	hangs  bool              // readings wait until their context ends
	reads  map[string]int    // by name
	after  int               // readings left until away; 0: no end
	opens  int               // tables opened
	meet   int               // so many are opened at the same time; 0: they need not be
	met    chan struct{}     // closed once they are
	alone  bool              // they were not
}

var (
	errAway = errors.New("object table-000: connection refused")
	_       = projections.Outside((*elsewhere)(nil))
)

func (e *elsewhere) read(ctx context.Context, name string) error {
	e.mu.Lock()
	hangs, err := e.hangs, e.away
	e.reads[name]++
	if e.after > 0 {
		if e.after--; e.after == 0 {
			e.away = errAway
		}
	}
	e.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (e *elsewhere) set(away error, hangs bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away, e.hangs = away, hangs
}

// OpenTable implements projections.Outside.
func (e *elsewhere) OpenTable(ctx context.Context, backup, name string, _ projections.Reading) (projections.OutsideTable, error) {
	if err := e.read(ctx, name); err != nil {
		return nil, err
	}
	e.meeting()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.opens++
	b, ok := e.tables[backup+"/"+name]
	if !ok {
		return nil, events.Errorf(events.KindInconsistent, "object %s: missing from the bucket", name)
	}
	return &elsewhereTable{e, name, b}, nil
}

func (e *elsewhere) meeting() {
	e.mu.Lock()
	met := e.met
	if e.meet--; e.meet == 0 {
		close(met)
	}
	e.mu.Unlock()
	if met == nil {
		return
	}
	select {
	case <-met:
	case <-time.After(10 * time.Second):
		e.mu.Lock()
		defer e.mu.Unlock()
		e.alone = true
	}
}

type elsewhereTable struct {
	in    *elsewhere
	name  string
	bytes []byte
}

func (t *elsewhereTable) Size() int64 { return int64(len(t.bytes)) }

func (t *elsewhereTable) ReadAt(ctx context.Context, p []byte, offset int64) error {
	if err := t.in.read(ctx, t.name); err != nil {
		return err
	}
	copy(p, t.bytes[offset:])
	return nil
}

func (t *elsewhereTable) Close() error { return nil }

// put makes a layer of the state of a world.
func (e *elsewhere) put(t tb, backupID string, w world, tableBytes int64) (projections.Layer, []events.LogState) {
	t.Helper()
	fs := vfs.NewMem()
	paths, states := backup(t, fs, 0, w, tableBytes)
	return e.putTables(t, fs, backupID, paths), states
}

// putTables makes a layer of tables.
func (e *elsewhere) putTables(t tb, fs vfs.FS, backupID string, paths []string) projections.Layer {
	t.Helper()
	layer := projections.Layer{Backup: backupID}
	for i, path := range paths {
		f, err := fs.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("table-%03d", i)
		e.tables[backupID+"/"+name] = b
		first, err := projections.FirstKey(t.Context(), &elsewhereTable{e, name, b})
		if err != nil {
			t.Fatal(err)
		}
		layer.Tables = append(layer.Tables, projections.LayerTable{Name: name, Size: int64(len(b)), First: first})
	}
	return layer
}

func newElsewhere() *elsewhere {
	return &elsewhere{tables: map[string][]byte{}, reads: map[string]int{}}
}

// inPlace is a shard of which all tables lie elsewhere.
func inPlace(t tb, fs vfs.FS, e *elsewhere, w world, tableBytes int64) projections.Config {
	t.Helper()
	layer, states := e.put(t, "backup-1", w, tableBytes)
	cfg := config(fs)
	cfg.Outside, cfg.Lineage = e, projections.Lineage{ID: "second", Parent: "backup-1"}
	if err := projections.RestoreInPlace(t.Context(), cfg, "backup-1", []projections.Layer{layer}, states); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A shard in place is read and folded like any other, however often it is opened anew;
// once it is here it needs nothing from elsewhere.
func TestInPlace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, fs, e := smallWorld(0), vfs.NewMem(), newElsewhere()
		cfg := inPlace(rt, fs, e, w, rapid.SampledFrom([]int64{1, 300, 2000, 1 << 20}).Draw(rt, "table bytes"))
		s := open(rt, cfg)
		checkShard(rt, s, w, w.ends())
		if s.Lineage() != cfg.Lineage {
			rt.Errorf("lineage %+v, want %+v", s.Lineage(), cfg.Lineage)
		}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"apply", "apply", "reopen", "hydrate", "check"}).Draw(rt, "step") {
			case "apply":
				l := rapid.SampledFrom(logsOf(0)).Draw(rt, "log")
				w.write(l, bare(rapid.SampledFrom(keys).Draw(rt, "key"), []byte("later"), int64(len(w[l]))))
				apply(rt, s, w.from(l, s.Next(l), 1))
			case "reopen":
				closeShard(rt, s)
				s = open(rt, cfg)
			case "hydrate":
				if err := s.Hydrate(rt.Context()); err != nil {
					rt.Fatal(err)
				}
			case "check":
				checkShard(rt, s, w, w.ends())
			}
		}
		if err := s.Hydrate(rt.Context()); err != nil || s.InPlace() != nil {
			rt.Fatalf("hydrated: %+v, %v", s.InPlace(), err)
		}
		closeShard(rt, s)
		cfg.Outside = nil
		s = open(rt, cfg)
		defer closeShard(rt, s)
		checkShard(rt, s, w, w.ends())
		if states, err := s.Verify(); err != nil || !slices.Equal(states, w.states(w.ends())) {
			rt.Fatalf("at rest: %+v, %v", states, err)
		}
	})
}

// Later layers cover earlier ones.
func TestInPlaceInLayers(t *testing.T) {
	w, fs, e := smallWorld(0), vfs.NewMem(), newElsewhere()
	first, _ := e.put(t, "backup-1", w, 300)
	for i, l := range logsOf(0) {
		for n, k := range keys[:i+1] {
			w.write(l, bare(k, []byte("later"), int64(1000+n)))
		}
	}
	second, states := e.put(t, "backup-2", w, 500)
	cfg := config(fs)
	cfg.Outside = e
	if err := projections.RestoreInPlace(t.Context(), cfg, "backup-2", []projections.Layer{first, second}, states); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	defer closeShard(t, s)
	checkShard(t, s, w, w.ends())
	if at := s.InPlace(); at == nil || at.Backup != "backup-2" || at.Left > at.Bytes { // compactions bring tables here too
		t.Errorf("in place: %+v", at)
	}
	if err := s.Hydrate(t.Context()); err != nil || s.InPlace() != nil {
		t.Fatalf("%+v, %v", s.InPlace(), err)
	}
	checkShard(t, s, w, w.ends())
}

// While the tables are out of reach, what needs them fails and says so; nothing is
// applied in part. When they are back, everything goes on.
func TestInPlaceOutOfReach(t *testing.T) {
	w, fs, e := smallWorld(0), vfs.NewMem(), newElsewhere()
	cfg := inPlace(t, fs, e, w, 300)
	s := open(t, cfg)
	defer func() { closeShard(t, s) }()
	e.set(errAway, false)
	var outside *projections.OutsideError
	outOfReach := func(what string, err error) {
		t.Helper()
		if !errors.As(err, &outside) || outside.Lasts() || events.KindOf(err) != events.KindNotReady || !strings.Contains(err.Error(), "object table-000") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := projections.Get([]*projections.Shard{s}, "session", "s-1")
	outOfReach("get", err)
	l := logsOf(0)[1]
	w.write(l, bare("s-1", []byte("later"), 1))
	before := s.Logs()
	_, err = s.Apply([]projections.Run{w.from(l, s.Next(l), 1)})
	outOfReach("apply", err)
	if judged := s.InPlaceError(err); events.KindOf(judged) != events.KindNotReady {
		t.Errorf("judged: %v", judged)
	}
	if len(s.Blocked()) > 0 || !slices.Equal(s.Logs(), before) {
		t.Errorf("blocked %v, at %+v", s.Blocked(), s.Logs())
	}
	err = s.Hydrate(t.Context())
	outOfReach("hydrate", err)
	if s.InPlace() == nil {
		t.Error("hydrated out of nowhere")
	}
	e.set(nil, false)
	apply(t, s, w.from(l, s.Next(l), 1))
	checkShard(t, s, w, w.ends())
	e.mu.Lock()
	e.after = 12 // in the middle of it
	e.mu.Unlock()
	left := s.InPlace().Left
	err = s.Hydrate(t.Context())
	outOfReach("hydrate until away", err)
	if now := s.InPlace().Left; now >= left || now == 0 {
		t.Errorf("%d bytes left of %d", now, left)
	}
	e.set(nil, false)
	if err := s.Hydrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.set(errAway, false)
	checkShard(t, s, w, w.ends())
}

// A shard whose tables hang is closed all the same.
func TestInPlaceHangs(t *testing.T) {
	w, fs, e := smallWorld(0), vfs.NewMem(), newElsewhere()
	cfg := inPlace(t, fs, e, w, 300)
	s := open(t, cfg)
	e.set(nil, true)
	ctx, cancel := context.WithCancel(t.Context())
	hydrated := make(chan error, 1)
	go func() { hydrated <- s.Hydrate(ctx) }()
	cancel()
	if err := <-hydrated; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	closeShard(t, s)
	e.set(nil, false)
	s = open(t, cfg)
	defer closeShard(t, s)
	if err := s.Hydrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkShard(t, s, w, w.ends())
}

// Whatever is wrong with any byte of any table, no shard is proved that is not right.
func TestInPlaceFindsDamage(t *testing.T) {
	w := smallWorld(0)
	rapid.Check(t, func(rt *rapid.T) {
		fs, e := vfs.NewMem(), newElsewhere()
		layer, states := e.put(rt, "backup-1", w, 1000)
		name := rapid.SampledFrom(layer.Tables).Draw(rt, "table").Name
		harm := rapid.SampledFrom([]string{"flip", "swap", "lose"}).Draw(rt, "how")
		cfg := config(fs)
		cfg.Outside = e
		damage := func() {
			key := "backup-1/" + name
			switch harm {
			case "flip":
				b := slices.Clone(e.tables[key])
				b[rapid.IntRange(0, len(b)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "mask"))
				e.tables[key] = b
			case "swap":
				other := rapid.SampledFrom(layer.Tables).Draw(rt, "other").Name
				e.tables[key] = e.tables["backup-1/"+other]
				harm = map[bool]string{true: "nothing", false: harm}[other == name]
			case "lose":
				delete(e.tables, key)
			}
		}
		early := rapid.Bool().Draw(rt, "before it is taken in")
		if early {
			damage()
		}
		err := projections.RestoreInPlace(rt.Context(), cfg, "backup-1", []projections.Layer{layer}, states)
		if err != nil && early {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		s, err := projections.Open(cfg)
		if err != nil && early {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if !early {
			damage()
		}
		err = s.Hydrate(rt.Context())
		if err == nil {
			// Bytes that say nothing, or were read before, may be others.
			checkShard(rt, s, w, w.ends())
			if found, err := s.Verify(); err != nil || !slices.Equal(found, states) {
				rt.Fatalf("%s of %s was proved: %v", harm, name, err)
			}
			return
		}
		if events.KindOf(err) != events.KindInconsistent || s.InPlace() == nil {
			rt.Fatalf("%s of %s: %v", harm, name, err)
		}
	})
}

// Whenever the disk crashes, what is there is in place still, or here and proved.
func TestInPlaceCrashes(t *testing.T) {
	w := smallWorld(0)
	rapid.Check(t, func(rt *rapid.T) {
		fs, e := vfs.NewCrashableMem(), newElsewhere()
		cfg := inPlace(rt, fs, e, w, 300)
		if d, err := fs.OpenDir("/"); err != nil || d.Sync() != nil { // as whoever restores does
			rt.Fatal(err)
		}
		s := open(rt, cfg)
		e.after = rapid.IntRange(1, 150).Draw(rt, "readings")
		_ = s.Hydrate(rt.Context())
		after := crashed(rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 5)), fs)
		_ = s.Close()
		e.after = 0
		e.set(nil, false)
		cfg.FS = after
		s = open(rt, cfg)
		defer closeShard(rt, s)
		checkShard(rt, s, w, w.ends())
		if err := s.Hydrate(rt.Context()); err != nil || s.InPlace() != nil {
			rt.Fatal(err)
		}
		checkShard(rt, s, w, w.ends())
	})
}

// What cannot be right is refused before anything is read.
func TestInPlaceRefuses(t *testing.T) {
	w, e := smallWorld(0), newElsewhere()
	layer, states := e.put(t, "backup-1", w, 300)
	restore := func(change func(*projections.Config, *projections.Layer, []events.LogState)) error {
		cfg, l, st := config(vfs.NewMem()), layer, slices.Clone(states)
		l.Tables = slices.Clone(l.Tables)
		cfg.Outside = e
		change(&cfg, &l, st)
		return projections.RestoreInPlace(t.Context(), cfg, "backup-1", []projections.Layer{l}, st)
	}
	for name, change := range map[string]func(*projections.Config, *projections.Layer, []events.LogState){
		"states of another backup": func(_ *projections.Config, _ *projections.Layer, st []events.LogState) { st[0].Next++ },
		"keys that do not ascend": func(_ *projections.Config, l *projections.Layer, _ []events.LogState) {
			l.Tables[1].First = l.Tables[0].First
		},
	} {
		if err := restore(change); events.KindOf(err) != events.KindInconsistent {
			t.Errorf("%s: %v", name, err)
		}
	}
	fs := vfs.NewMem()
	cfg := inPlace(t, fs, e, w, 300)
	if err := projections.RestoreInPlace(t.Context(), cfg, "backup-1", []projections.Layer{layer}, states); events.KindOf(err) != events.KindRefused {
		t.Errorf("a directory that is not empty: %v", err)
	}
	cfg.Outside = nil
	if _, err := projections.Open(cfg); events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "backup-1") {
		t.Errorf("without what is outside: %v", err)
	}
}
