package replicator

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
)

// Metrics counts what the links of one region do.
type Metrics struct {
	records *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	stopped *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_link_records_total", Help: "Records written to mirrors.",
		}, []string{"origin", "topic"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_link_bytes_total", Help: "Bytes of keys and values written to mirrors, uncompressed.",
		}, []string{"origin", "topic"}),
		stopped: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "evenkeel_link_partitions_stopped", Help: "Partitions whose mirroring has stopped for good and needs an operator.",
		}, []string{"origin"}),
	}
	r.MustRegister(m.records, m.bytes, m.stopped)
	return m
}

func (m *Metrics) add(o events.Origin, topic string, records, bytes int64) {
	m.records.WithLabelValues(o.String(), topic).Add(float64(records))
	m.bytes.WithLabelValues(o.String(), topic).Add(float64(bytes))
}

func (m *Metrics) stop(o events.Origin) { m.stopped.WithLabelValues(o.String()).Inc() }
