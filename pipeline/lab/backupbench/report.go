package backupbench

import (
	"fmt"
	"io"
	"strconv"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
	"github.com/evenkeel/evenkeel/pipeline/term"
)

// Report is what a run has found out, as far as it has come.
type Report struct {
	Machine report.Machine `json:"machine"`
	Short   bool           `json:"short"`
	Seed    uint64         `json:"seed"`
	Rows    []Row          `json:"rows"`
	Summary Summary        `json:"summary"`

	fullRequests, deltaRequests float64 // to the bucket, for one backup of four shards; 0: not measured
}

// Row is one figure.
type Row struct {
	Section string  `json:"section"`
	Case    string  `json:"case"`
	Measure string  `json:"measure"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
}

func (r Row) String() string {
	return fmt.Sprintf("%s, %s: %s %s %s", r.Section, r.Case, r.Measure, number(r.Value), r.Unit)
}

// Summary is what is held against what is aimed at; nil: not measured.
type Summary struct {
	DeltaTimeRatio10x  *float64 `json:"delta_time_ratio_10x"`  // time of a delta at ten times the state, in parts of that at one time
	DeltaBytesRatio10x *float64 `json:"delta_bytes_ratio_10x"` // its bytes, likewise
	FirstReadS         *float64 `json:"first_read_s"`          // from the beginning of an instant restore, where that takes longest
	RestoreVsCopy      *float64 `json:"restore_vs_copy"`       // MB/s of a restore, in parts of those of copying the same objects to the disk
	SegmentP999S       *float64 `json:"segment_p999_s"`        // from an event's acknowledgement until it can be read in the bucket, 99.9th percentile
}

// aim is what a figure of the summary is to be.
type aim struct {
	name    string
	value   *float64
	bound   float64
	atLeast bool // else at most
}

func (s Summary) aims() []aim {
	return []aim{
		{"delta_time_ratio_10x", s.DeltaTimeRatio10x, 1.2, false},
		{"delta_bytes_ratio_10x", s.DeltaBytesRatio10x, 1.2, false},
		{"first_read_s", s.FirstReadS, 1, false},
		{"restore_vs_copy", s.RestoreVsCopy, 0.7, true},
		{"segment_p999_s", s.SegmentP999S, 5, false},
	}
}

func (a aim) verdict() string {
	switch {
	case a.value == nil:
		return "not measured"
	case a.atLeast && *a.value >= a.bound, !a.atLeast && *a.value <= a.bound:
		return "reached"
	}
	return "missed"
}

// WriteTables writes all rows, and how the summary stands to what is aimed at.
func (r *Report) WriteTables(w io.Writer) error {
	var rows [][]string
	for _, row := range r.Rows {
		rows = append(rows, []string{row.Section, row.Case, row.Measure, number(row.Value), row.Unit})
	}
	if err := term.Table(w, []string{"SECTION", "CASE", "MEASURE", "VALUE", "UNIT"}, rows); err != nil {
		return err
	}
	var aims [][]string
	for _, a := range r.Summary.aims() {
		value, sign := "-", "≤"
		if a.value != nil {
			value = number(*a.value)
		}
		if a.atLeast {
			sign = "≥"
		}
		aims = append(aims, []string{a.name, value, sign + " " + number(a.bound), a.verdict()})
	}
	fmt.Fprintln(w)
	return term.Table(w, []string{"SUMMARY", "VALUE", "AIM", ""}, aims)
}

// number has three digits that count, and no exponent.
func number(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10 || v <= -10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
