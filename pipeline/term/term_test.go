package term_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/pipeline/term"
)

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1_000: "1,000", 18_543: "18,543", 1_234_567: "1,234,567", -1_000: "-1,000", -999: "-999"} {
		if got := term.Count(n); got != want {
			t.Errorf("Count(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1_023: "1023 B", 1_024: "1.0 KiB", 1_536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := term.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := term.Table(&out, []string{"A", "LONGER"}, [][]string{{"wide cell", "1"}, {"x", "2"}}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	column := strings.Index(lines[0], "LONGER")
	if len(lines) != 3 || lines[1][column:] != "1" || lines[2][column:] != "2" {
		t.Errorf("columns do not line up:\n%s", out.String())
	}
}

// Where there is no terminal, short work says nothing and no total is odd.
func TestProgressWithoutTerminal(t *testing.T) {
	for _, total := range []int64{0, 10} {
		var out bytes.Buffer
		p := term.NewProgress(&out, "events", total, 0)
		p.Add(total)
		p.End()
		if out.Len() > 0 {
			t.Errorf("total %d: %q", total, out.String())
		}
	}
}
