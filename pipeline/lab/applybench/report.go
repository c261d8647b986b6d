package applybench

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
	CatchUp []Row          `json:"catch_up"`
}

// Row is one case, measured.
type Row struct {
	Rule              string  `json:"rule"`
	ValueBytes        int     `json:"value_bytes"`
	Keys              int     `json:"keys"`
	BatchRecords      int     `json:"batch_records"`
	Order             string  `json:"order"`
	Events            int     `json:"events"`
	Seconds           float64 `json:"seconds"`
	EventsPerS        float64 `json:"events_per_s"`
	BareEventsPerS    float64 `json:"bare_events_per_s"`
	CPUUsPerEvent     float64 `json:"cpu_us_per_event"` // compactions and garbage collection included
	BareCPUUsPerEvent float64 `json:"bare_cpu_us_per_event"`
	DigestShare       float64 `json:"digest_share"`    // of chain, digests and marks in that
	CallShare         float64 `json:"call_share"`      // of the calls of Apply in that
	ProfileSamples    int64   `json:"profile_samples"` // that the shares are from; both are 0 if these are too few
	PeakMB            float64 `json:"peak_mb"`         // resident memory; 1 MB is 1,000,000 bytes
	BarePeakMB        float64 `json:"bare_peak_mb"`
}

func newRow(c Case, sums [2]answer, peakBytes [2]int64) Row {
	shard, bare := sums[0], sums[1]
	const megabyte = 1e6
	return Row{
		Rule: c.Rule, ValueBytes: c.ValueBytes, Keys: c.Keys, BatchRecords: c.BatchRecords, Order: c.Order,
		Events: shard.Events, Seconds: shard.Seconds,
		EventsPerS: float64(shard.Events) / shard.Seconds, BareEventsPerS: float64(bare.Events) / bare.Seconds,
		CPUUsPerEvent: shard.CPUSeconds / float64(shard.Events) * 1e6, BareCPUUsPerEvent: bare.CPUSeconds / float64(bare.Events) * 1e6,
		DigestShare: shard.Shares.Digest, CallShare: shard.Shares.Call, ProfileSamples: shard.Shares.Samples,
		PeakMB: float64(peakBytes[0]) / megabyte, BarePeakMB: float64(peakBytes[1]) / megabyte,
	}
}

// speed is how fast the shard is, in parts of the bare loop.
func (r Row) speed() float64 { return r.EventsPerS / r.BareEventsPerS }

func (r Row) String() string {
	return fmt.Sprintf("%9.0f events/s, bare %9.0f: %3.0f %%; CPU %5.1f µs, bare %5.1f; digests %4.1f %%; %5.0f MB",
		r.EventsPerS, r.BareEventsPerS, 100*r.speed(), r.CPUUsPerEvent, r.BareCPUUsPerEvent, 100*r.DigestShare, r.PeakMB)
}

// What is aimed at.
const (
	aimSpeed       = 0.70
	aimDigestShare = 0.05
)

// WriteTables writes all rows, each with how it stands to what is aimed at.
func (r *Report) WriteTables(w io.Writer) error {
	for _, part := range []struct {
		title string
		rows  []Row
	}{{"", r.Rows}, {"\nCatching up from nothing:\n", r.CatchUp}} {
		if len(part.rows) == 0 {
			continue
		}
		var cells [][]string
		for _, row := range part.rows {
			cells = append(cells, row.cells())
		}
		fmt.Fprint(w, part.title)
		header := []string{
			"RULE", "VALUE B", "KEYS", "ORDER", "BATCH", "EVENTS/S", "BARE", "OF IT", "AIM ≥ 70 %",
			"CPU µS", "BARE", "DIGESTS", "AIM ≤ 5 %", "PEAK MB", "BARE",
		}
		if err := term.Table(w, header, cells); err != nil {
			return err
		}
	}
	return nil
}

func (r Row) cells() []string {
	share, digests := "unknown", "unknown"
	if r.DigestShare > 0 {
		share, digests = percent(r.DigestShare), verdict(r.DigestShare <= aimDigestShare)
	}
	return []string{
		r.Rule, strconv.Itoa(r.ValueBytes), term.Count(r.Keys), r.Order, term.Count(r.BatchRecords),
		term.Count(int(r.EventsPerS)), term.Count(int(r.BareEventsPerS)), percent(r.speed()), verdict(r.speed() >= aimSpeed),
		fmt.Sprintf("%.1f", r.CPUUsPerEvent), fmt.Sprintf("%.1f", r.BareCPUUsPerEvent),
		share, digests,
		fmt.Sprintf("%.0f", r.PeakMB), fmt.Sprintf("%.0f", r.BarePeakMB),
	}
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func verdict(reached bool) string {
	if reached {
		return "reached"
	}
	return "missed"
}
