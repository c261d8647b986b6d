package pipeline

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/projections"
)

// metrics counts what a region folds and writes.
type metrics struct {
	events    prometheus.Counter
	parked    prometheus.Counter
	tooLarge  prometheus.Counter
	skipped   prometheus.Counter
	collected prometheus.Counter
	buried    prometheus.Counter
	written   prometheus.Counter
	backups   *prometheus.CounterVec

	samples      *prometheus.CounterVec
	samplesBytes prometheus.Counter
}

// Results of backups, and of looking at single objects.
const (
	backupOK     = "ok"
	backupFailed = "failed"

	sampleOK      = "ok"
	sampleDamaged = "damaged"
)

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		events:    counter("evenkeel_fold_events_total", "Events folded into slices, of all origins."),
		parked:    counter("evenkeel_fold_parked_total", "Records set aside because they are no events."),
		tooLarge:  counter("evenkeel_fold_batches_too_large_total", "Batches that are larger decompressed than limits.max_batch_bytes, and stop their log."),
		skipped:   counter("evenkeel_fold_skipped_total", "Records skipped because they had been folded before."),
		collected: counter("evenkeel_fold_collected_total", "Tombstones taken out of the state, of all origins."),
		buried:    counter("evenkeel_fold_buried_total", "Slices that became tombstones because others hide what they held, of all origins."),
		written:   counter("evenkeel_api_events_total", "Events written to the region's logs through its API."),
		backups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_backups_total", Help: "Backups, by result.",
		}, []string{"result"}),
	}
	m.samples = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "evenkeel_backup_sampled_objects_total", Help: "Objects of the bucket that were looked at between drills, by result.",
	}, []string{"result"})
	m.samplesBytes = counter("evenkeel_backup_sampled_bytes_total", "Bytes of these objects.")
	for _, result := range []string{sampleOK, sampleDamaged} {
		m.samples.WithLabelValues(result)
	}
	for _, result := range []string{backupOK, backupFailed} {
		m.backups.WithLabelValues(result) // from the start: the first one that fails is an increase
	}
	r.MustRegister(m.events, m.parked, m.tooLarge, m.skipped, m.collected, m.buried, m.written, m.backups, m.samples, m.samplesBytes)
	return m
}

func (m *metrics) applied(a projections.Applied) {
	m.events.Add(float64(a.Events))
	m.parked.Add(float64(a.Parked))
	m.skipped.Add(float64(a.Skipped))
	m.collected.Add(float64(a.Collected))
	m.buried.Add(float64(a.Buried))
}

func (m *metrics) backup(err error) {
	result := backupOK
	if err != nil {
		result = backupFailed
	}
	m.backups.WithLabelValues(result).Inc()
}

// stateGauges shows the state of a region's shards whenever it is asked.
type stateGauges struct {
	region                      *Region
	keys, parked, blocks, waits *prometheus.Desc
}

func newStateGauges(r *Region) *stateGauges {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	return &stateGauges{
		region: r,
		keys:   desc("evenkeel_state_slices", "Slices that hold something."),
		parked: desc("evenkeel_state_parked", "Records that are parked."),
		blocks: desc("evenkeel_state_logs_blocked", "Logs whose fold has stopped and needs an operator."),
		waits:  desc("evenkeel_state_shards_waiting", "Shards whose folding waits, for the bucket or for room on the disk, and goes on by itself."),
	}
}

// Describe implements prometheus.Collector.
func (g *stateGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.keys
	ch <- g.parked
	ch <- g.blocks
	ch <- g.waits
}

// Collect implements prometheus.Collector.
func (g *stateGauges) Collect(ch chan<- prometheus.Metric) {
	var keys, parked int64
	for _, st := range g.region.shards.states() {
		keys += st.Keys
		parked += st.Parked
	}
	blocked := 0
	for _, p := range g.region.shards.numbers() {
		if s := g.region.shards.get(p); s != nil {
			blocked += len(s.Blocked())
		}
	}
	ch <- prometheus.MustNewConstMetric(g.keys, prometheus.GaugeValue, float64(keys))
	ch <- prometheus.MustNewConstMetric(g.parked, prometheus.GaugeValue, float64(parked))
	ch <- prometheus.MustNewConstMetric(g.blocks, prometheus.GaugeValue, float64(blocked))
	ch <- prometheus.MustNewConstMetric(g.waits, prometheus.GaugeValue, float64(g.region.worker.countWaiting()))
}

func (m *metrics) sampled(bytes int64, err error) {
	result := sampleOK
	if err != nil {
		result = sampleDamaged
	}
	m.samples.WithLabelValues(result).Inc()
	m.samplesBytes.Add(float64(bytes))
}
