package linkbench

import (
	"fmt"
	"path/filepath"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
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
	report.Machine
	Kafka string `json:"kafka"` // brokers' and MirrorMaker's
}

// WriteFile writes the report as JSON.
func (r *Report) WriteFile(path string) error { return report.WriteFile(path, r) }

// version is that of the jars in use.
func (k *clusters) version() (string, error) {
	dir, err := k.libs()
	return filepath.Base(dir), err
}

func (r Row) String() string {
	return fmt.Sprintf("%9.0f records/s %8.1f MB/s %7.2f CPU s/GB %6.0f MB", r.RecordsPerS, r.MBPerS, r.CPUSPerGB, r.PeakMB)
}

func (l Latency) String() string { return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", l.P50Ms, l.P99Ms) }
