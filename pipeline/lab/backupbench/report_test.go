package backupbench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestVerdicts(t *testing.T) {
	good, bad := 0.9, 7.0
	var s Summary
	s.FirstReadS, s.RestoreVsCopy, s.SegmentP999S = &good, &good, &bad
	want := []string{"not measured", "not measured", "reached", "reached", "missed"}
	for i, a := range s.aims() {
		if got := a.verdict(); got != want[i] {
			t.Errorf("%s: %s, want %s", a.name, got, want[i])
		}
	}
	low := 0.69
	s.RestoreVsCopy = &low
	if got := s.aims()[3].verdict(); got != "missed" {
		t.Errorf("restore at 69 %% of a copy: %s", got)
	}
}

func TestReport(t *testing.T) {
	value := 1.05
	r := &Report{Rows: []Row{{"deltas", "1x", "time", 12.345, "ms"}}, Summary: Summary{DeltaTimeRatio10x: &value}}
	var b bytes.Buffer
	if err := r.WriteTables(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"deltas", "12.3", "delta_time_ratio_10x", "1.05", "≤ 1.2", "reached", "≥ 0.7", "not measured"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, b.String())
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"rows":[{`, `"summary":{"delta_time_ratio_10x":1.05,"delta_bytes_ratio_10x":null,"first_read_s":null,"restore_vs_copy":null,"segment_p999_s":null}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// Each section has a directory of its own, which is gone afterwards; one that fails
// ends the run, and what was measured before stays.
func TestSections(t *testing.T) {
	defer func(old []section) { sections = old }(sections)
	broken := errors.New("broken")
	var ran []string
	made := func(name string, err error) section {
		return section{name, func(_ context.Context, e *env) error {
			ran = append(ran, name)
			if err := os.WriteFile(e.dir+"/file", nil, 0o600); err != nil {
				return err
			}
			e.add("case", "time", 1, "s")
			return err
		}}
	}
	sections = []section{made("one", nil), made("two", nil), made("bad", broken), made("never", nil)}
	dir := t.TempDir()
	saved := 0
	cfg := Config{Dir: dir, Out: &bytes.Buffer{}, Only: regexp.MustCompile("one|bad|never"), Save: func(*Report) error { saved++; return nil }}
	r, err := Run(t.Context(), cfg)
	if !errors.Is(err, broken) || strings.Join(ran, " ") != "one bad" || len(r.Rows) != 2 || saved != 1 {
		t.Errorf("ran %q, %d rows, saved %d times, %v", ran, len(r.Rows), saved, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left over: %v, %v", names, err)
	}
}
