// Package report is what the benchmarks' reports have in common: the machine, what
// a process has used of it, and the file. Linux tells all of it, other systems a
// part.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
)

// Machine is where it was measured, and with what.
type Machine struct {
	CPUs        int    `json:"cpus"`
	CPU         string `json:"cpu"`
	MemoryTotal string `json:"memory_total"`
	Kernel      string `json:"kernel"`
	Go          string `json:"go"`
	// Load is how many threads others kept running in the minute before: what is
	// measured beside them is too slow, though its processor time is about right.
	Load     float64 `json:"load"`
	Revision string  `json:"revision,omitempty"`
}

// ThisMachine describes the one that it runs on; what cannot be found out is left empty.
func ThisMachine() Machine {
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

// busyShare of the processors in use by others spoils the figures.
const busyShare = 0.25

// IsBusy reports whether others used so much of the machine that figures are
// spoilt.
func (m Machine) IsBusy() bool { return m.Load > busyShare*float64(m.CPUs) }

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

// WriteFile writes a report as JSON. The file is replaced at once, so that
// whoever reads it meanwhile sees a whole one.
func WriteFile(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
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
