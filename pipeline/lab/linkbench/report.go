package linkbench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
)

// Report is what a run has found out, as far as it has come.
type Report struct {
	Machine  Machine   `json:"machine"`
	Short    bool      `json:"short"`
	Seed     uint64    `json:"seed"`
	Rows     []Row     `json:"rows"`
	Latency  []Latency `json:"latency"`
	Failures []string  `json:"failures,omitempty"`
}

// Machine is where it was measured, and with what.
type Machine struct {
	CPUs        int    `json:"cpus"`
	CPU         string `json:"cpu"`
	MemoryTotal string `json:"memory_total"`
	Kernel      string `json:"kernel"`
	Go          string `json:"go"`
	Kafka       string `json:"kafka"` // brokers' and MirrorMaker's
	// Load is how many threads others kept running in the minute before: what is
	// measured beside them is too slow, though its processor time is about right.
	Load     float64 `json:"load"`
	Revision string  `json:"revision,omitempty"`
}

// machine describes this one; what cannot be found out is left empty.
func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = fieldOf(string(text), "model name")
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.MemoryTotal = fieldOf(string(text), "MemTotal")
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &m.Load) // the first of several
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		m.Revision = revision(build.Settings)
	}
	return m
}

// fieldOf finds the first "name : value" line.
func fieldOf(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func revision(settings []debug.BuildSetting) (text string) {
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			text = s.Value + text
		case s.Key == "vcs.modified" && s.Value == "true":
			text += "+changes"
		}
	}
	return text
}

// WriteFile writes the report as JSON. The file is replaced at once, so that
// whoever reads it meanwhile sees a whole one.
func (r *Report) WriteFile(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// version is that of the jars in use.
func (k *clusters) version() (string, error) {
	dir, err := k.libs()
	return filepath.Base(dir), err
}

func (r Row) String() string {
	return fmt.Sprintf("%9.0f records/s %8.1f MB/s %7.2f CPU s/GB %6.0f MB", r.RecordsPerS, r.MBPerS, r.CPUSPerGB, r.PeakMB)
}

func (l Latency) String() string { return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", l.P50Ms, l.P99Ms) }
