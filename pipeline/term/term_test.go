package term_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/term"
)

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1_000: "1,000", 18_543: "18,543", 999_999: "999,999", 1_000_000: "1,000,000",
		-1: "-1", -999: "-999", -1_000: "-1,000", -123_456: "-123,456",
		math.MaxInt64: "9,223,372,036,854,775,807", math.MinInt64: "-9,223,372,036,854,775,808",
	} {
		if got := term.Count(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	if got := term.Count(int32(12_345)); got != "12,345" {
		t.Error(got)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1_023: "1023 B", 1_024: "1.0 KiB", 1_536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB",
		1<<20 - 100: "1023.9 KiB", 12_897_485: "12.3 MiB", 1 << 30: "1.0 GiB", 1<<40 - 1: "1.0 TiB", 1 << 50: "1.0 PiB",
		math.MaxInt64: "8.0 EiB",
	} {
		if got := term.Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	for name, c := range map[string]struct {
		header []string
		rows   [][]string
		want   string
	}{
		"columns":        {[]string{"KEY", "SIZE"}, [][]string{{"a", "1 B"}, {"longer", "20 KiB"}}, "KEY     SIZE\na       1 B\nlonger  20 KiB\n"},
		"no rows":        {[]string{"KEY", "SIZE"}, nil, "KEY  SIZE\n"},
		"empty cells":    {[]string{"A", "B", "C"}, [][]string{{"", "x", ""}}, "A  B  C\n   x  \n"},
		"wide letters":   {[]string{"A", "B"}, [][]string{{"äöü", "x"}, {"→", "y"}}, "A    B\näöü  x\n→    y\n"},
		"line ends":      {[]string{"A", "B"}, [][]string{{"one\ntwo\tthree", "x\r\ny"}}, "A              B\none two three  x  y\n"},
		"no header":      {nil, [][]string{{"x"}}, "\nx\n"},
		"short rows":     {[]string{"A", "B"}, [][]string{{"x"}}, "A  B\nx\n"},
		"nothing at all": {nil, nil, "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := term.Table(&b, c.header, c.rows); err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != c.want {
				t.Errorf("got\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

// brokenWriter is the end of a pipe that nobody reads.
type brokenWriter struct{}

var errBroken = errors.New("broken pipe")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestTableToNobody(t *testing.T) {
	if err := term.Table(brokenWriter{}, []string{"A"}, nil); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

// Without a terminal progress is told in plain lines, and not too often.
func TestProgressPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := term.NewProgress(&b, "events", 100_000, 1_000)
		for range 100 {
			p.Add(100)
			time.Sleep(100 * time.Millisecond)
		}
		p.End()
		p.End()
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		want := []string{"events 3,100 / 100,000", "events 5,100 / 100,000", "events 7,100 / 100,000", "events 9,100 / 100,000"}
		if strings.Join(lines, "\n") != strings.Join(want, "\n") {
			t.Errorf("got  %q\nwant %q", lines, want)
		}
		if strings.ContainsAny(b.String(), "\r\x1b") {
			t.Errorf("control characters in %q", b.String())
		}
	})
}

// Work of nothing, more than was promised, and unknown sizes are no trouble.
func TestProgressOddTotals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for total, want := range map[int64]string{0: "bytes 10 / 0\n", 5: "bytes 10 / 5\n", -1: "bytes 10 / -1\n"} {
			var b bytes.Buffer
			p := term.NewProgress(&b, "bytes", total, 0)
			time.Sleep(3 * time.Second)
			p.Add(10)
			p.End()
			if got := b.String(); got != want {
				t.Errorf("total %d: %q, want %q", total, got, want)
			}
		}
	})
}

// A file is no terminal.
func TestProgressToFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := term.NewProgress(f, "events", 10, 0)
	p.Add(10)
	p.End()
	if text, err := os.ReadFile(f.Name()); err != nil || len(text) > 0 {
		t.Errorf("%q, %v", text, err)
	}
}

func TestProgressFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := term.NewProgress(&b, "events", 800, 0)
		time.Sleep(3 * time.Second)
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for range 100 {
					p.Add(1)
				}
			})
		}
		workers.Wait()
		time.Sleep(3 * time.Second)
		p.Add(0)
		p.End()
		if got := b.String(); !strings.HasSuffix(got, "\nevents 800 / 800\n") || strings.Count(got, "\n") != 2 {
			t.Errorf("got %q", got)
		}
	})
}

// At a terminal it is said for how long something is under way, and the line is free again at its end. What is over
// soon is no reason to say anything, nor is it where nobody watches.
func TestWaiting(t *testing.T) {
	for took, want := range map[time.Duration]string{
		1500 * time.Millisecond: "",
		3500 * time.Millisecond: "\rthe backup is under way, for 2s so far\x1b[K\rthe backup is under way, for 3s so far\x1b[K\r\x1b[K",
	} {
		synctest.Test(t, func(t *testing.T) {
			var terminal, file bytes.Buffer
			end, endNone := term.WaitingAtTerminal(&terminal, "the backup"), term.Waiting(&file, "the backup")
			time.Sleep(took)
			end()
			endNone()
			if terminal.String() != want || file.Len() > 0 {
				t.Errorf("%s: %q and %q", took, terminal.String(), file.String())
			}
		})
	}
}
