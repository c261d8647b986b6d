package applybench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// TestMain lets the test binary be a measured process, as the lab's is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == subjectCommand {
		var cfg SubjectConfig
		err := json.Unmarshal([]byte(os.Args[2]), &cfg)
		if err == nil {
			err = Subject(cfg, os.Stdin, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func smallCase(rule string) Case {
	return Case{Rule: rule, ValueBytes: 256, Keys: 900, BatchRecords: 100, Order: uniform, Events: 3000, Seed: 7}
}

// Two processes take turns and end with as many keys and bytes, whatever the rule,
// the order of keys and what is there at the beginning.
func TestRunCase(t *testing.T) {
	cases := []Case{}
	for _, rule := range rules() {
		cases = append(cases, smallCase(rule))
	}
	catchUp, zipf := smallCase("lww"), smallCase("lww")
	catchUp.CatchUp, zipf.Order = true, skewed
	for _, c := range append(cases, catchUp, zipf) {
		dir := t.TempDir()
		r, err := runCase(context.Background(), Config{Dir: dir}, c)
		if err != nil {
			t.Errorf("%s: %v", c.Name(), err)
			continue
		}
		if r.Events != c.Events || r.EventsPerS <= 0 || r.BareEventsPerS <= 0 || r.PeakMB < 1 || r.BarePeakMB < 1 {
			t.Errorf("%s: %+v", c.Name(), r)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v are left, %v", c.Name(), left, err)
		}
	}
}

func TestFailureOfAProcessIsTold(t *testing.T) {
	c := smallCase("lww")
	c.Rule = "no-rule"
	_, err := runCase(context.Background(), Config{Dir: t.TempDir()}, c)
	if err == nil || !strings.Contains(err.Error(), "no-rule") {
		t.Errorf("error %v, want one that names the rule", err)
	}
}

// What the bare loop is given to write is what the shard makes of the events, byte
// for byte: its digest is the shard's.
func TestBareWritesAreTheShards(t *testing.T) {
	w, err := newWorkload(smallCase("lww"))
	if err != nil {
		t.Fatal(err)
	}
	sys, err := openSystem(systemShard, t.TempDir(), w.rule)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.close()
	written := map[string][]byte{}
	for range 20 {
		b, err := w.batch(100, w.draw)
		if err != nil {
			t.Fatal(err)
		}
		if err := sys.apply(b); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, wr := range b.touched {
			if seen[string(wr.key)] {
				t.Fatalf("key %q is written twice in a batch", wr.key)
			}
			seen[string(wr.key)], written[string(wr.key)] = true, wr.value
		}
	}
	var h digest.Hasher
	var sum digest.Sum
	var bytes int64
	for dbKey, value := range written {
		key := dbKey[strings.Index(dbKey, "entity-"):][:keyBytes]
		sum, bytes = sum.Add(h.Slice(stream, key, value)), bytes+int64(len(key)+len(value))
	}
	s := (*projections.Shard)(sys.(*shard))
	if got := s.Digest(); got != sum.Digest() {
		t.Errorf("the shard's digest is %s, that of the bare writes %s", got, sum.Digest())
	}
	if got, err := sys.totals(); err != nil || got != (totals{int64(len(written)), bytes}) {
		t.Errorf("totals %+v, %v; want %d keys, %d bytes", got, err, len(written), bytes)
	}
}

func TestTotalsAreCompared(t *testing.T) {
	a := totals{Keys: 100, Bytes: 10_000}
	for _, c := range []struct {
		other totals
		want  bool
	}{{a, true}, {totals{100, 10_500}, true}, {totals{100, 9_400}, false}, {totals{100, 10_600}, false}, {totals{101, 10_000}, false}} {
		if got := a.isLike(c.other); got != c.want {
			t.Errorf("%+v and %+v: %v", a, c.other, got)
		}
	}
}

// Values have the size that a case says, whatever the rule.
func TestValuesHaveTheirSize(t *testing.T) {
	for _, rule := range rules() {
		w, err := newWorkload(smallCase(rule))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range w.values[:100] {
			if len(v) != 256 || !json.Valid(v) {
				t.Fatalf("rule %s: %d bytes: %s", rule, len(v), v)
			}
		}
	}
}

func TestWorkloadIsRepeatable(t *testing.T) {
	make2 := func(seed uint64) string {
		c := smallCase("lww")
		c.Seed = seed
		w, err := newWorkload(c)
		if err != nil {
			t.Fatal(err)
		}
		b, err := w.batch(200, w.draw)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%v", b.touched)
	}
	if first, again := make2(1), make2(1); first != again {
		t.Error("the same seed made two batches")
	}
	if make2(1) == make2(2) {
		t.Error("two seeds made one batch")
	}
}

// A key's events are of one origin, and offsets have no holes.
func TestWorkloadLogs(t *testing.T) {
	w, err := newWorkload(smallCase("lww"))
	if err != nil {
		t.Fatal(err)
	}
	next, logOf := map[events.Log]int64{}, map[string]events.Log{}
	for range 5 {
		b, err := w.batch(300, w.draw)
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range b.runs {
			for _, r := range run.Records {
				if r.Offset != next[run.Log] {
					t.Fatalf("%s: offset %d, want %d", run.Log, r.Offset, next[run.Log])
				}
				next[run.Log]++
				if l, known := logOf[string(r.Key)]; known && l != run.Log {
					t.Fatalf("key %s is in %s and %s", r.Key, l, run.Log)
				}
				logOf[string(r.Key)] = run.Log
			}
		}
	}
	if len(next) != 3 {
		t.Errorf("%d logs, want 3", len(next))
	}
}

// Each case's name is its own, the short ones are few, and every rule is there.
func TestCases(t *testing.T) {
	for _, short := range []bool{false, true} {
		seen, names := map[string]bool{}, ""
		for _, c := range Cases(short, 1) {
			if seen[c.Name()] {
				t.Errorf("two cases are named %s", c.Name())
			}
			seen[c.Name()] = true
			names += c.Name() + "\n"
			if _, err := newWorkload(c); err != nil {
				t.Errorf("%s: %v", c.Name(), err)
			}
			if need := c.diskBytes(); need < reserveBytes || need > 60<<30 {
				t.Errorf("%s: needs %d MiB of disk", c.Name(), need>>20)
			}
		}
		for _, rule := range rules() {
			pattern := regexp.MustCompile("(?m)^" + rule + "-256B-[0-9]+-b10000-uniform$")
			if !pattern.MatchString(names) {
				t.Errorf("short %v: nothing measures rule %s in\n%s", short, rule, names)
			}
		}
	}
}

func TestSpaceIsChecked(t *testing.T) {
	c := smallCase("lww")
	if err := checkSpace(t.TempDir(), c); err != nil {
		t.Error(err)
	}
	c.Keys = 1 << 50
	err := checkSpace(t.TempDir(), c)
	if events.KindOf(err) != events.KindRefused || !strings.Contains(err.Error(), "MiB free") {
		t.Errorf("error %v, want a refusal", err)
	}
}

// A process answers what it cannot do, and goes on.
func TestSubjectAnswers(t *testing.T) {
	in, ask := io.Pipe()
	answers, out := io.Pipe()
	ended := make(chan error, 1)
	cfg := SubjectConfig{System: systemBare, Dir: filepath.Join(t.TempDir(), "bare"), Case: smallCase("lww")}
	go func() { ended <- Subject(cfg, in, out) }()
	lines := bufio.NewScanner(answers)
	do := func(word string) (a answer) {
		fmt.Fprintln(ask, word)
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := do("dance"); !strings.Contains(a.Error, "dance") {
		t.Errorf("answer %+v", a)
	}
	if a := do(askSlice); a.Error != "" || a.Events != 3000 || a.Seconds <= 0 {
		t.Errorf("answer %+v", a)
	}
	if a := do(askEnd); a.Error != "" || a.Totals.Keys < 800 {
		t.Errorf("answer %+v", a)
	}
	ask.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The methods by whose names digests are found in a profile are there.
func TestDigestMethodsExist(t *testing.T) {
	packages := token.NewFileSet()
	files, err := filepath.Glob("../../../projections/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	found := map[string]bool{}
	for _, name := range files {
		f, err := parser.ParseFile(packages, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			if star, ok := fn.Recv.List[0].Type.(*ast.StarExpr); ok {
				found[fmt.Sprintf("(*%s).%s", star.X, fn.Name)] = true
			}
		}
	}
	for _, m := range append(slices.Clone(digestMethods), "(*Shard).Apply") {
		if !found[m] {
			t.Errorf("package projections has no method %s", m)
		}
	}
}

func TestShares(t *testing.T) {
	var p profile.Profile
	sample := func(n int64, functions ...string) {
		s := &profile.Sample{Value: []int64{n, 0}}
		for _, f := range functions {
			s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: f}}}})
		}
		p.Sample = append(p.Sample, s)
	}
	const base = "github.com/evenkeel/evenkeel/"
	sample(20, "memmove", base+"projections/digest.(*Hasher).Slice", applyFunction)
	sample(10, base+"projections.(*logTurn).mark", applyFunction)
	sample(270, "pebble.Get", applyFunction)
	sample(300, "compaction")
	sample(900, base+"projections/digest.BucketOf", base+"pipeline/lab/applybench.(*subject).prepare")
	got, err := sharesOf(&p)
	if want := (shares{Digest: 0.05, Call: 0.5, Samples: 600}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	p.Sample = p.Sample[2:]
	if _, err := sharesOf(&p); err == nil {
		t.Error("a profile without digests is believed")
	}
	p.Sample = p.Sample[:1] // of 270
	if got, err := sharesOf(&p); err != nil || got != (shares{Samples: 270}) {
		t.Errorf("too short a profile: %+v, %v", got, err)
	}
}

func TestTables(t *testing.T) {
	var out bytes.Buffer
	if err := (&Report{}).WriteTables(&out); err != nil || out.Len() > 0 {
		t.Errorf("of nothing: %q, %v", out.String(), err)
	}
	good := newRow(smallCase("lww"), [2]answer{
		{Events: 1000, Seconds: 2, CPUSeconds: 0.02, Shares: shares{Digest: 0.05, Call: 0.5, Samples: 600}},
		{Events: 1000, Seconds: 1.4, CPUSeconds: 0.01},
	}, [2]int64{100e6, 50e6})
	bad := good
	bad.EventsPerS, bad.DigestShare = 100, 0.051
	unknown := good
	unknown.DigestShare = 0
	r := &Report{Rows: []Row{good, bad}, CatchUp: []Row{unknown}}
	if err := r.WriteTables(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	var got [][]string
	for _, i := range []int{1, 2, 6} {
		got = append(got, regexp.MustCompile(` {2,}`).Split(lines[i], -1))
	}
	want := [][]string{
		{"lww", "256", "900", "uniform", "100", "500", "714", "70.0 %", "reached", "20.0", "10.0", "5.0 %", "reached", "100", "50"},
		{"lww", "256", "900", "uniform", "100", "100", "714", "14.0 %", "missed", "20.0", "10.0", "5.1 %", "missed", "100", "50"},
		{"lww", "256", "900", "uniform", "100", "500", "714", "70.0 %", "reached", "20.0", "10.0", "unknown", "unknown", "100", "50"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s", out.String())
	}
}
