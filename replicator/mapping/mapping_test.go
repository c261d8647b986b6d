package mapping_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// model is the source offset of every record of a mirror that begins at first.
type model struct {
	first   int64
	sources []int64
}

// runs are the runs of the model, found the slow way.
func (m model) runs() (runs []mapping.Run) {
	for i, source := range m.sources {
		if i == 0 || source != m.sources[i-1]+1 {
			runs = append(runs, mapping.Run{Source: source, Dest: m.first + int64(i)})
		}
	}
	return runs
}

func (m model) end() int64 { return m.first + int64(len(m.sources)) }

// dest is Dest by looking at every record.
func (m model) dest(source, end int64) (int64, bool) {
	for i, s := range m.sources {
		if d := m.first + int64(i); d < end && s >= source {
			return d, true
		}
	}
	return end, false
}

func drawModel(t *rapid.T) model {
	hole := rapid.SampledFrom([]int64{0, 0, 0, 0, 1, 1, 2, 7, 1 << 33})
	m := model{first: rapid.SampledFrom([]int64{0, 0, 0, 1, 50}).Draw(t, "first")}
	// A log that was begun anew may be behind its mirror.
	next := rapid.SampledFrom([]int64{0, m.first, m.first + 7, 1 << 33}).Draw(t, "begin")
	for range rapid.IntRange(1, 60).Draw(t, "records") {
		next += hole.Draw(t, "hole")
		m.sources = append(m.sources, next)
		next++
	}
	return m
}

// build appends the runs of a model, and before each of them runs that merely
// continue the last one.
func build(t *rapid.T, m model) *mapping.Map {
	var built mapping.Map
	next := 0
	runs := m.runs()
	for i, source := range m.sources {
		r := mapping.Run{Source: source, Dest: m.first + int64(i)}
		begins := next < len(runs) && runs[next] == r
		if !begins && !rapid.Bool().Draw(t, "continue") {
			continue
		}
		if begins {
			next++
		}
		if err := built.Append(r); err != nil {
			t.Fatalf("append %s: %v", r, err)
		}
	}
	return &built
}

func TestMapIsTheRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		built := build(t, m)
		if !slices.Equal(built.Runs(), m.runs()) {
			t.Fatalf("runs %v, want %v", built.Runs(), m.runs())
		}
		dense := m.first == 0 && m.sources[0] == 0 && len(m.runs()) == 1
		if built.Identity() != dense {
			t.Fatalf("identity %v of %v", built.Identity(), m.runs())
		}
		for i, source := range m.sources {
			d := m.first + int64(i)
			if got, ok := built.Source(d); !ok || got != source {
				t.Fatalf("source of %d: %d, %v, want %d", d, got, ok, source)
			}
			if got, ok := built.Dest(source, m.end()); !ok || got != d {
				t.Fatalf("dest of %d: %d, %v, want %d", source, got, ok, d)
			}
		}
		if got, ok := built.Source(m.first - 1); ok {
			t.Fatalf("source before the first run: %d", got)
		}
		last := m.sources[len(m.sources)-1]
		if got, ok := built.Source(m.end()); !ok || got != last+1 {
			t.Fatalf("where to go on: %d, %v, want %d", got, ok, last+1)
		}
	})
}

// Any source offset, and any end of the mirror: runs may have been written for
// records that it does not have yet.
func TestDestOfAnyOffset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		built := build(t, m)
		end := m.first + rapid.Int64Range(0, int64(len(m.sources))).Draw(t, "end")
		around := rapid.SampledFrom(m.sources).Draw(t, "around")
		source := max(0, around+rapid.Int64Range(-9, 9).Draw(t, "by"))
		got, ok := built.Dest(source, end)
		want, held := m.dest(source, end)
		if got != want {
			t.Fatalf("dest of %d before %d: %d, want %d", source, end, got, want)
		}
		next, known := built.Source(end)
		if wantOK := held || known && source <= next; ok != wantOK {
			t.Fatalf("dest of %d before %d known: %v, want %v", source, end, ok, wantOK)
		}
	})
}

func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		built := build(t, m)
		from := rapid.Int64Range(0, m.end()).Draw(t, "from")
		to := rapid.Int64Range(0, m.end()).Draw(t, "to")
		begin := max(from, m.first)
		var want mapping.Runs
		if begin < to {
			want = model{first: begin, sources: m.sources[begin-m.first : to-m.first]}.runs()
		}
		if got := built.Cut(from, to); !slices.Equal(got, want) {
			t.Fatalf("cut of [%d,%d): %v, want %v; all %v", from, to, got, want, m.runs())
		}
	})
}

func TestAppend(t *testing.T) {
	for name, c := range map[string]struct {
		before []mapping.Run
		run    mapping.Run
		err    string // in it
		runs   int    // afterwards
	}{
		"identity":            {run: mapping.Run{}, runs: 1},
		"first expired":       {run: mapping.Run{Source: 700}, runs: 1},
		"mirror ahead":        {run: mapping.Run{Dest: 1}, runs: 1},
		"negative":            {run: mapping.Run{Source: -1, Dest: -1}, err: "-1→-1"},
		"hole":                {before: []mapping.Run{{}}, run: mapping.Run{Source: 6, Dest: 5}, runs: 2},
		"continues":           {before: []mapping.Run{{}}, run: mapping.Run{Source: 5, Dest: 5}, runs: 1},
		"same":                {before: []mapping.Run{{Source: 3}}, run: mapping.Run{Source: 3}, runs: 1},
		"same dest":           {before: []mapping.Run{{Source: 3}}, run: mapping.Run{Source: 4}, err: "4→0 does not come after the last one, 3→0"},
		"same source":         {before: []mapping.Run{{Source: 3}}, run: mapping.Run{Source: 3, Dest: 1}, err: "3→1 does not come after the last one, 3→0"},
		"before":              {before: []mapping.Run{{Source: 9, Dest: 9}}, run: mapping.Run{Source: 8, Dest: 8}, err: "8→8 does not come after the last one, 9→9"},
		"hole becomes less":   {before: []mapping.Run{{Source: 3}}, run: mapping.Run{Source: 9, Dest: 8}, err: "9→8 after 3→0"},
		"ends of the numbers": {before: []mapping.Run{{}}, run: mapping.Run{Source: math.MaxInt64, Dest: 1}, runs: 2},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := mapping.New(c.before...)
			if err != nil {
				t.Fatal(err)
			}
			err = m.Append(c.run)
			switch {
			case c.err == "" && err != nil:
				t.Fatal(err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Fatalf("error %v, want one with %q", err, c.err)
			case c.err != "" && !slices.Equal(m.Runs(), c.before):
				t.Fatalf("a refused run has changed the map: %v", m.Runs())
			case c.err == "" && m.Len() != c.runs:
				t.Fatalf("runs %v, want %d", m.Runs(), c.runs)
			}
		})
	}
}

func TestEmptyIsTheIdentity(t *testing.T) {
	var m mapping.Map
	if !m.Identity() || m.Len() != 0 {
		t.Fatal("the zero map is not the identity")
	}
	for _, offset := range []int64{0, 1, 99, 100} {
		if d, ok := m.Dest(offset, 100); d != offset || !ok {
			t.Errorf("dest of %d: %d, %v", offset, d, ok)
		}
		if s, ok := m.Source(offset); s != offset || !ok {
			t.Errorf("source of %d: %d, %v", offset, s, ok)
		}
	}
	if d, ok := m.Dest(101, 100); d != 100 || ok {
		t.Errorf("dest past the end: %d, %v", d, ok)
	}
	if d, ok := m.Dest(math.MaxInt64, math.MaxInt64); d != math.MaxInt64 || !ok {
		t.Errorf("dest of the largest: %d, %v", d, ok)
	}
}

// A clone and its origin grow apart, although they share memory.
func TestCloneStaysAsItIs(t *testing.T) {
	m, err := mapping.New(mapping.Run{}, mapping.Run{Source: 6, Dest: 5})
	if err != nil {
		t.Fatal(err)
	}
	clone := m.Clone()
	for i := range int64(20) {
		if err := m.Append(mapping.Run{Source: 100 + 10*i, Dest: 50 + i}); err != nil {
			t.Fatal(err)
		}
		if err := clone.Append(mapping.Run{Source: 1000 + 10*i, Dest: 50 + i}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(20) {
		if r := m.Runs()[2+i]; r.Source != 100+10*i {
			t.Fatalf("run %d of the origin is %s", 2+i, r)
		}
		if r := clone.Runs()[2+i]; r.Source != 1000+10*i {
			t.Fatalf("run %d of the clone is %s", 2+i, r)
		}
	}
}

func TestTruncateAndDrop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		built := build(t, m)
		all := built.Clone()
		n := rapid.IntRange(0, all.Len()).Draw(t, "n")
		if err := built.Truncate(n); err != nil || !slices.Equal(built.Runs(), m.runs()[:n]) {
			t.Fatalf("truncated to %d: %v, %v", n, built.Runs(), err)
		}
		for _, bad := range []int{-1, n + 1} {
			if built.Truncate(bad) == nil {
				t.Fatalf("truncated %d runs to %d", n, bad)
			}
		}
		end := rapid.Int64Range(m.first, m.end()).Draw(t, "end")
		dropped := all.Clone()
		dropped.Drop(end)
		kept := slices.DeleteFunc(slices.Clone(m.runs()), func(r mapping.Run) bool { return r.Dest > end })
		if !slices.Equal(dropped.Runs(), kept) || !slices.Equal(all.Runs(), m.runs()) {
			t.Fatalf("dropped after %d: %v, want %v; the origin has %v", end, dropped.Runs(), kept, all.Runs())
		}
	})
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(mapping.Runs{{Source: 0, Dest: 0}, {Source: 1_234_567_890_123, Dest: 17}})
	if err != nil || string(b) != "[[0,0],[1234567890123,17]]" {
		t.Fatalf("%s, %v", b, err)
	}
	if b, err := json.Marshal(mapping.Runs(nil)); err != nil || string(b) != "[]" {
		t.Fatalf("no runs: %s, %v", b, err)
	}
	for _, bad := range []string{`[[1]]`, `[[1,2,3]]`, `[null]`, `{}`, `[["1",2]]`, `[[1.5,2]]`, `[[1,99999999999999999999]]`} {
		var rs mapping.Runs
		if err := json.Unmarshal([]byte(bad), &rs); err == nil {
			t.Errorf("%s was read as %v", bad, rs)
		}
	}
}

// What is read and makes a map is written as the same again, and is exact in both
// directions.
func FuzzRuns(f *testing.F) {
	f.Add([]byte(`[[0,0],[6,5],[9223372036854775807,6]]`), int64(7))
	f.Add([]byte(`[[700,0]]`), int64(-1))
	f.Fuzz(func(t *testing.T, b []byte, at int64) {
		var rs mapping.Runs
		if json.Unmarshal(b, &rs) != nil {
			return
		}
		m, err := mapping.New(rs...)
		if err != nil {
			return
		}
		again, err := json.Marshal(m.Runs())
		if err != nil {
			t.Fatal(err)
		}
		var reread mapping.Runs
		if err := json.Unmarshal(again, &reread); err != nil || !slices.Equal(reread, m.Runs()) {
			t.Fatalf("%s was read as %v: %v", again, reread, err)
		}
		for _, r := range m.Runs() {
			if d, ok := m.Dest(r.Source, math.MaxInt64); !ok || d != r.Dest {
				t.Fatalf("dest of %d: %d, %v, want %d", r.Source, d, ok, r.Dest)
			}
			if s, ok := m.Source(r.Dest); !ok || s != r.Source {
				t.Fatalf("source of %d: %d, %v, want %d", r.Dest, s, ok, r.Source)
			}
		}
		m.Dest(at, math.MaxInt64)
		m.Source(at)
		m.Cut(at, math.MaxInt64)
	})
}
