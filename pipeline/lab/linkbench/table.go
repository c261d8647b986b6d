package linkbench

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/term"
)

// WriteTables writes all rows, and below them how they compare with MirrorMaker 2
// and with what is aimed at.
func (r *Report) WriteTables(w io.Writer) error {
	var cells [][]string
	for _, row := range r.Rows {
		cells = append(cells, []string{
			row.System, row.Codec, strconv.Itoa(row.RecordBytes), row.Batch, strconv.Itoa(int(row.Partitions)),
			fmt.Sprintf("%d ms", row.RTTMs), term.Count(int(row.RecordsPerS)), fmt.Sprintf("%.1f", row.MBPerS),
			fmt.Sprintf("%.2f", row.CPUSPerGB), fmt.Sprintf("%.0f", row.PeakMB),
		})
	}
	header := []string{"SYSTEM", "CODEC", "RECORD B", "BATCH", "PARTITIONS", "RTT", "RECORDS/S", "MB/S", "CPU S/GB", "PEAK MB"}
	if err := section(w, "", header, cells); err != nil {
		return err
	}
	cells = nil
	for _, l := range r.Latency {
		cells = append(cells, []string{l.System, fmt.Sprintf("%d ms", l.RTTMs), fmt.Sprintf("%.1f ms", l.P50Ms), fmt.Sprintf("%.1f ms", l.P99Ms)})
	}
	if err := section(w, "Single records through an idle link:", []string{"SYSTEM", "RTT", "P50", "P99"}, cells); err != nil {
		return err
	}
	cells = nil
	for _, v := range r.verdicts() {
		cells = append(cells, v.cells())
	}
	return section(w, "Compared with MirrorMaker 2, and with what is aimed at:",
		[]string{"CASE", "SYSTEM", "MEASURE", "VALUE", "AIM", ""}, cells)
}

// section writes a table under a title; nothing if it has no rows.
func section(w io.Writer, title string, header []string, cells [][]string) error {
	if len(cells) == 0 {
		return nil
	}
	if title != "" {
		fmt.Fprintf(w, "\n%s\n", title)
	}
	return term.Table(w, header, cells)
}

// verdict is one comparison.
type verdict struct {
	name    string // of the case
	system  string
	measure string
	value   float64
	unit    string
	aim     float64 // 0: none
	atMost  bool    // the aim is an upper bound, not a lower one
}

func (v verdict) reached() bool {
	if v.atMost {
		return v.value <= v.aim
	}
	return v.value >= v.aim
}

func (v verdict) cells() []string {
	cells := []string{v.name, v.system, v.measure, fmt.Sprintf("%.2f%s", v.value, v.unit), "", ""}
	if v.aim == 0 {
		return cells
	}
	sign := "≥"
	if v.atMost {
		sign = "≤"
	}
	cells[4] = fmt.Sprintf("%s %.3g%s", sign, v.aim, v.unit)
	cells[5] = "missed"
	if v.reached() {
		cells[5] = "reached"
	}
	return cells
}

const (
	aimNearShare   = 0.70 // of the throughput without distance
	aimP99Ms       = 10.0 // besides the round trip
	aimTinySpeed   = 3.0
	measureSpeed   = "records/s, times MirrorMaker 2's"
	measureCPU     = "CPU s/GB, times MirrorMaker 2's"
	measureNear    = "records/s, times those at 0 ms"
	measureLatency = "p99 latency"
)

// aims of a link, in multiples of MirrorMaker 2's figures: records a second at least, CPU at most.
// Codecs that are not there have none: nobody was promised anything.
var aims = map[string]struct{ speed, cpu float64 }{
	"lz4": {3, 0.1}, "zstd": {3, 0.1}, "none": {1.5, 0.25},
}

// verdicts compares rows of one case with each other. Aims are Evenkeel's alone.
func (r *Report) verdicts() (vs []verdict) {
	for _, row := range r.Rows {
		if row.System == MirrorMaker2 {
			continue
		}
		name := row.caseName()
		speed := verdict{name: name, system: row.System, measure: measureSpeed}
		cpu := verdict{name: name, system: row.System, measure: measureCPU, atMost: true}
		if row.System == Evenkeel && row.RTTMs == 0 {
			speed.aim, cpu.aim = aims[row.Codec].speed, aims[row.Codec].cpu
			if row.Batch != "large" {
				speed.aim, cpu.aim = aimTinySpeed, 0
			}
		}
		if other, ok := r.find(MirrorMaker2, name); ok {
			speed.value, cpu.value = row.RecordsPerS/other.RecordsPerS, row.CPUSPerGB/other.CPUSPerGB
			vs = append(vs, speed, cpu)
		}
		near := row
		near.RTTMs = 0
		if other, ok := r.find(row.System, near.caseName()); ok && row.RTTMs > 0 {
			v := verdict{name: name, system: row.System, measure: measureNear, value: row.RecordsPerS / other.RecordsPerS}
			if row.System == Evenkeel {
				v.aim = aimNearShare
			}
			vs = append(vs, v)
		}
	}
	for _, l := range r.Latency {
		if l.System == Evenkeel {
			vs = append(vs, verdict{
				name: fmt.Sprintf("latency-%dms", l.RTTMs), system: l.System, measure: measureLatency,
				value: l.P99Ms, unit: " ms", aim: aimP99Ms + float64(l.RTTMs), atMost: true,
			})
		}
	}
	return vs
}

func (r *Report) find(system, name string) (Row, bool) {
	for _, row := range r.Rows {
		if row.System == system && row.caseName() == name {
			return row, true
		}
	}
	return Row{}, false
}

// caseName is the Name of the case that the row is of.
func (r Row) caseName() string {
	return Case{
		Codec: r.Codec, RecordBytes: r.RecordBytes, Tiny: r.Batch == "tiny", Partitions: r.Partitions,
		RTT: time.Duration(r.RTTMs) * time.Millisecond,
	}.Name()
}
