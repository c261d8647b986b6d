package linkbench

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel/evenkeel/pipeline/lab/report"
)

const (
	pollInterval = 20 * time.Millisecond
	// stallMax is for how long a mirror may stand still, start-up included, before
	// the measurement is given up.
	stallMax = 60 * time.Second
	// Clock and counters run from when one share of the log has arrived to when
	// another has. What is left out at the end is more than any system reads ahead:
	// at both moments each is about as far ahead as it ever is, so none
	// has part of the measured work done before the start.
	beginShare, endShare = 0.25, 0.80
	// A case is over in a second or two for a fast system, and then tells more of that
	// second than of the system: it is mirrored again, until so much was measured.
	measuredSecondsMin, runsMost = 8.0, 3
)

// Row is one case mirrored by one system.
type Row struct {
	System        string  `json:"system"`
	Codec         string  `json:"codec"`
	RecordBytes   int     `json:"record_bytes"` // key and value, uncompressed
	Batch         string  `json:"batch"`        // large or tiny
	Partitions    int32   `json:"partitions"`
	RTTMs         int64   `json:"rtt_ms"`
	Records       int64   `json:"records"`        // in the log
	RecordsInCopy int64   `json:"records_mirror"` // in the mirror afterwards
	Runs          int     `json:"runs"`           // that were measured, one after the other; the figures are of all of them together
	Seconds       float64 `json:"seconds"`        // that were measured
	RecordsPerS   float64 `json:"records_per_s"`
	MBPerS        float64 `json:"mb_per_s"`     // of uncompressed keys and values; 1 MB is 1,000,000 bytes
	CPUSPerGB     float64 `json:"cpu_s_per_gb"` // of the mirroring process, per 10⁹ such bytes
	PeakMB        float64 `json:"peak_mb"`      // resident memory of the mirroring process since its start
}

// sample is what is known of a mirror and its process at one moment.
type sample struct {
	at      time.Time
	records int64
	cpu     time.Duration
}

// row computes a row from the two ends of what was measured.
func row(c Case, system string, total int64, from, to sample, peakBytes int64) Row {
	r := Row{
		System: system, Codec: c.Codec, RecordBytes: c.RecordBytes, Batch: c.batch(), Partitions: c.Partitions,
		RTTMs: c.RTT.Milliseconds(), Records: total, Runs: 1, Seconds: to.at.Sub(from.at).Seconds(),
		PeakMB: float64(peakBytes) / megabyte,
	}
	records := float64(to.records - from.records)
	payloadBytes := records * float64(c.RecordBytes)
	r.RecordsPerS = records / r.Seconds
	r.MBPerS = payloadBytes / megabyte / r.Seconds
	r.CPUSPerGB = (to.cpu - from.cpu).Seconds() / (payloadBytes / 1e9)
	return r
}

// and is what two rows of one case and system say together.
func (r Row) and(next Row) Row {
	records, more := r.RecordsPerS*r.Seconds, next.RecordsPerS*next.Seconds
	both := next
	both.Runs, both.Seconds, both.PeakMB = r.Runs+next.Runs, r.Seconds+next.Seconds, max(r.PeakMB, next.PeakMB)
	both.RecordsPerS = (records + more) / both.Seconds
	both.MBPerS = (r.MBPerS*r.Seconds + next.MBPerS*next.Seconds) / both.Seconds
	both.CPUSPerGB = (r.CPUSPerGB*records + next.CPUSPerGB*more) / (records + more)
	return both
}

// mirrorCase has one system mirror a log that is complete, and measures it.
func (b *bench) mirrorCase(ctx context.Context, c Case, system, topic string, total int64) (_ Row, err error) {
	p, err := b.startMirror(ctx, MirrorConfig{System: system, Topic: topic, Partitions: c.Partitions, Codec: c.Codec}, c.RTT, c.Name())
	if err != nil {
		return Row{}, err
	}
	defer p.stop()
	mirror := mirrorTopic(topic)
	end := share(total, endShare)
	from, err := b.await(ctx, p.process, mirror, c.Partitions, share(total, beginShare))
	if err != nil {
		return Row{}, err
	}
	if from.records >= end {
		return Row{}, fmt.Errorf("%d of %d records arrived within one look at the mirror: too few to be measured", from.records, total)
	}
	to, err := b.await(ctx, p.process, mirror, c.Partitions, end)
	if err != nil {
		return Row{}, err
	}
	if _, err := b.await(ctx, p.process, mirror, c.Partitions, total); err != nil {
		return Row{}, err
	}
	peakBytes, err := report.PeakMemoryBytes(p.pid())
	if err != nil {
		return Row{}, err
	}
	p.stop()
	r := row(c, system, total, from, to, peakBytes)
	r.RecordsInCopy, err = b.clusters.dest.records(ctx, mirror, c.Partitions)
	return r, err
}

func share(total int64, of float64) int64 { return int64(float64(total) * of) }

// await polls until a mirror holds so many records.
func (b *bench) await(ctx context.Context, p *process, mirror string, partitions int32, records int64) (sample, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	progressed, last := time.Now(), int64(0)
	for {
		n, err := b.clusters.dest.records(ctx, mirror, partitions)
		if err != nil {
			return sample{}, err
		}
		if n >= records {
			cpu, err := report.CPUTime(p.pid())
			return sample{time.Now(), n, cpu}, err
		}
		if n > last {
			progressed, last = time.Now(), n
		}
		if time.Since(progressed) > stallMax {
			return sample{}, fmt.Errorf("the mirror has stood at %d records for %v, wants %d; %s", n, stallMax, records, p.lastWords())
		}
		select {
		case <-ctx.Done():
			return sample{}, ctx.Err()
		case <-p.ended:
			return sample{}, fmt.Errorf("the mirroring process ended: %v; %s", p.cmd.ProcessState, p.lastWords())
		case <-tick.C:
		}
	}
}
