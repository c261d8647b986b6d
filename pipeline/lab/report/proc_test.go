package report

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const tail = " S 1 2 3 0 -1 4194560 100 200 300 400 1234 766 5 6 20 0 1 0 999 1000 10"
	for name, c := range map[string]struct {
		text string
		want time.Duration
		ok   bool
	}{
		"plain":                  {"42 (java)" + tail, 20 * time.Second, true},
		"a name that is no name": {"42 (a) b (c 1 2 3)" + tail, 20 * time.Second, true},
		"nothing used yet":       {"42 (x) R 1 2 3 0 -1 0 0 0 0 0 0 0 0 0", 0, true},
		"cut off":                {"42 (x) R 1 2 3 0 -1 0 0 0 0 0 7", 0, false},
		"no number":              {"42 (x) R 1 2 3 0 -1 0 0 0 0 0 x 0 0 0", 0, false},
		"negative":               {"42 (x) R 1 2 3 0 -1 0 0 0 0 0 -5 0 0 0", 0, false},
		"no command":             {"42 x R 1 2 3 0 -1 0 0 0 0 0 1 1 0 0", 0, false},
		"empty":                  {"", 0, false},
	} {
		got, err := parseStat([]byte(c.text))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestParseStatus(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want int64
		ok   bool
	}{
		"as it is":  {"Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t  1234 kB\nVmRSS:\t  1 kB\n", 1234 * 1024, true},
		"a zombie":  {"Name:\tx\nState:\tZ (zombie)\n", 0, false},
		"no number": {"VmHWM:\t  lots kB\n", 0, false},
		"empty":     {"", 0, false},
	} {
		got, err := parseStatus([]byte(c.text))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// This very process uses time and memory.
func TestOwnProcess(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		after, err := CPUTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a busy process has used no processor time for ten seconds")
		}
	}
	if n, err := PeakMemoryBytes(os.Getpid()); err != nil || n < 1e6 || n > 100e9 {
		t.Errorf("peak memory %d, %v", n, err)
	}
	if _, err := CPUTime(1 << 30); err == nil {
		t.Error("a process that cannot be has used processor time")
	}
}
