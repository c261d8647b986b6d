package projections_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
)

// writeTables writes a cut as tables of a directory and lists their paths.
func writeTables(t tb, fs vfs.FS, cut *projections.Cut, to string, tableBytes int64) (paths []string) {
	t.Helper()
	if err := fs.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	err := cut.WriteTables(t.Context(), tableBytes, func([]byte) (io.WriteCloser, error) {
		paths = append(paths, fs.PathJoin(to, fmt.Sprintf("%06d.sst", len(paths))))
		f, err := fs.Create(paths[len(paths)-1], vfs.WriteCategoryUnspecified)
		return syncedFile{f}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// syncedFile is on disk once it is closed, as Restore wants its tables.
type syncedFile struct{ vfs.File }

func (f syncedFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// backup is a shard of w as tables.
func backup(t tb, fs vfs.FS, partition int32, w world, tableBytes int64) (tables []string, states []events.LogState) {
	t.Helper()
	cfg := config(fs)
	cfg.Partition, cfg.Dir = partition, fmt.Sprintf("source-%d", partition)
	s := open(t, cfg)
	defer closeShard(t, s)
	apply(t, s, w.everything()...)
	cut, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	tables = writeTables(t, fs, cut, fmt.Sprintf("tables-%d", partition), tableBytes)
	if err := cut.Close(); err != nil {
		t.Fatal(err)
	}
	return tables, cut.States()
}

// A cut is exact, whatever is applied while it is taken and after.
func TestCutIsExactWhileApplying(t *testing.T) {
	const most = 200 // cuts
	w, fs := smallWorld(0), vfs.NewMem()
	for range 20 {
		for l, records := range smallWorld(0) {
			for _, r := range records {
				w.write(l, r)
			}
		}
	}
	s := open(t, config(fs))
	defer closeShard(t, s)
	begun, applied := make(chan bool), make(chan error, 1)
	go func() { applied <- applyOneByOne(s, w, begun) }()
	<-begun
	var taken []*projections.Cut
	for len(applied) == 0 && len(taken) < most {
		cut, err := s.Freeze()
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, cut)
	}
	if err := <-applied; err != nil {
		t.Fatal(err)
	}
	for i, cut := range taken {
		checkCut(t, fs, cut, w, fmt.Sprintf("cut-%d", i))
	}
	checkShard(t, s, w, w.ends())
}

func applyOneByOne(s *projections.Shard, w world, begun chan<- bool) error {
	for offset := range slices.Max(slices.Collect(maps.Values(w.ends()))) {
		for _, l := range logsOf(0) {
			if _, err := s.Apply([]projections.Run{w.from(l, offset, 1)}); err != nil {
				return err
			}
		}
		if offset == 0 {
			close(begun)
		}
	}
	return nil
}

// checkCut closes a cut, which must be what the world says, and restores it.
func checkCut(t *testing.T, fs vfs.FS, cut *projections.Cut, w world, name string) {
	t.Helper()
	tables := writeTables(t, fs, cut, name+"-tables", 1000)
	at := events.VectorOf(cut.States())
	if want := w.states(at); !slices.Equal(cut.States(), want) {
		t.Errorf("cut at %s:\n%+v, want\n%+v", at, cut.States(), want)
	}
	if err := cut.Close(); err != nil {
		t.Error(err)
	}
	cfg := config(fs)
	cfg.Dir = name
	if err := projections.Restore(t.Context(), cfg, tables, cut.States()); err != nil {
		t.Error(err)
	}
}

func TestWriteTablesAreSmallAndDisjoint(t *testing.T) {
	w := smallWorld(0)
	const parts = 2 // what is before the facts, and what is behind them
	for tableBytes, least := range map[int64]int{0: 40, 1: 40, 300: 5, 1 << 20: parts} {
		fs := vfs.NewMem()
		tables, states := backup(t, fs, 0, w, tableBytes)
		if len(tables) < least || least == parts && len(tables) != parts {
			t.Errorf("tables of %d bytes: there are %d", tableBytes, len(tables))
		}
		// Pebble takes in only tables that are in order and disjoint.
		slices.Reverse(tables)
		if err := projections.Restore(t.Context(), config(fs), tables, states); err != nil {
			t.Errorf("tables of %d bytes: %v", tableBytes, err)
		}
	}
}

func TestCutOfNothing(t *testing.T) {
	fs := vfs.NewMem()
	tables, states := backup(t, fs, 0, world{}, 1)
	if len(tables) != 0 || len(states) != 0 {
		t.Fatalf("an empty shard has tables %v and states %v", tables, states)
	}
	if err := projections.Restore(t.Context(), config(fs), tables, states); err != nil {
		t.Fatal(err)
	}
}

func TestCutKnowsItsShard(t *testing.T) {
	cfg := config(vfs.NewMem())
	cfg.Partition, cfg.Lineage = 3, projections.Lineage{ID: "l", Parent: "p"}
	s := open(t, cfg)
	defer closeShard(t, s)
	cut, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	if cut.Partition() != 3 || cut.Lineage() != cfg.Lineage || s.Lineage() != cfg.Lineage {
		t.Errorf("cut of partition %d, lineage %+v", cut.Partition(), cut.Lineage())
	}
	if err := cut.Close(); err != nil {
		t.Fatal(err)
	}
}

// tally is a writer that counts, and fails when it is told to.
type tally struct {
	closed, written int
	failWrite       bool
	failClose       bool
}

var errTable = errors.New("no room for tables")

func (w *tally) Write(p []byte) (int, error) {
	w.written += len(p)
	if w.failWrite {
		return 0, errTable
	}
	return len(p), nil
}

func (w *tally) Close() error {
	w.closed++
	if w.failClose {
		return errTable
	}
	return nil
}

func TestWriteTablesFails(t *testing.T) {
	w := smallWorld(0)
	s := openNew(t)
	apply(t, s, w.everything()...)
	cut, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	for name, c := range map[string]struct {
		tableBytes int64
		at         int // the table that something happens to
		create     error
		cancel     bool
		writer     tally
	}{
		"at creating the first table":  {300, 0, errTable, false, tally{}},
		"at creating a later table":    {300, 2, errTable, false, tally{}},
		"at writing":                   {300, 1, nil, false, tally{failWrite: true}},
		"at writing the only table":    {1 << 20, 0, nil, false, tally{failWrite: true}},
		"at closing":                   {300, 1, nil, false, tally{failClose: true}},
		"because nobody wants it more": {300, 1, nil, true, tally{}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var writers []*tally
			err := cut.WriteTables(ctx, c.tableBytes, func([]byte) (io.WriteCloser, error) {
				writers = append(writers, &tally{})
				if len(writers) == c.at+1 {
					if c.create != nil {
						return nil, c.create
					}
					if c.cancel {
						cancel()
					}
					*writers[c.at] = c.writer
				}
				return writers[len(writers)-1], nil
			})
			want := errTable
			if c.cancel {
				want = context.Canceled
			}
			if !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
			if len(writers) != c.at+1 {
				t.Errorf("went on to table %d", len(writers)-1)
			}
			for i, w := range writers {
				if wantClosed := 1; w.closed != wantClosed && !(c.create != nil && i == c.at) {
					t.Errorf("table %d was closed %d times", i, w.closed)
				}
			}
		})
	}
}
