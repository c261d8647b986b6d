package replicator

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
)

// Metrics counts what the links of one region do.
type Metrics struct {
	records *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	batches *prometheus.CounterVec
	stopped *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_link_records_total", Help: "Records written to mirrors.",
		}, []string{"origin", "topic"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_link_bytes_total", Help: "Bytes of batches written to mirrors, as they were produced.",
		}, []string{"origin", "topic"}),
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_link_batches_total",
			Help: "Batches of the source by what became of them: passed as they are, merged with others, framed anew (split, trimmed, holes, " +
				"append-time, old-format), left out (control, aborted, empty), or corrupt.",
		}, []string{"origin", "fate"}),
		stopped: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evenkeel_link_partitions_stopped", Help: "Partitions whose mirroring has stopped for good and needs an operator.",
		}, []string{"origin"}),
	}
	r.MustRegister(m.records, m.bytes, m.batches, m.stopped)
	return m
}

func (m *Metrics) add(o events.Origin, topic string, records, bytes int64) {
	m.records.WithLabelValues(o.String(), topic).Add(float64(records))
	m.bytes.WithLabelValues(o.String(), topic).Add(float64(bytes))
}

func (m *Metrics) stop(o events.Origin) { m.stopped.WithLabelValues(o.String()).Inc() }

// begin shows that nothing has stopped before anything does.
func (m *Metrics) begin(o events.Origin) { m.stopped.WithLabelValues(o.String()) }

func (m *Metrics) batch(o events.Origin, fate string, n int) {
	m.batches.WithLabelValues(o.String(), fate).Add(float64(n))
}

func (m *Metrics) clear(o events.Origin) { m.stopped.WithLabelValues(o.String()).Set(0) }

func (m *Metrics) resume(o events.Origin) { m.stopped.WithLabelValues(o.String()).Dec() }
