package checks

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// Metrics count what becomes of attestations.
type Metrics struct {
	written  prometheus.Counter
	compared prometheus.Counter
	refused  *prometheus.CounterVec
	found    *prometheus.CounterVec
}

// NewMetrics makes and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evenkeel_attestations_written_total", Help: "Attestations of the region's own logs that were written."}),
		compared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "evenkeel_attestations_compared_total", Help: "Attestations that were compared with the region's state, its own included."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_attestations_refused_total", Help: "Attestations that were not heeded, by reason."}, []string{"reason"}),
		found: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "evenkeel_divergences_found_total", Help: "Divergences found since the node's start, by layer."}, []string{"layer"}),
	}
	for _, reason := range divergence.Refusals() {
		m.refused.WithLabelValues(string(reason))
	}
	for _, layer := range divergence.Layers() {
		m.found.WithLabelValues(string(layer))
	}
	r.MustRegister(m.written, m.compared, m.refused, m.found)
	return m
}

// Gauges show how logs compare whenever they are asked. Only logs that have
// diverged have series of their own.
type Gauges struct{ checks *Checker }

// NewGauges makes the gauges of a checker; the caller registers them.
func NewGauges(c *Checker) *Gauges { return &Gauges{c} }

var (
	logsDesc = prometheus.NewDesc("evenkeel_check_logs",
		"Logs of an origin in the shards that this node holds, by how its fold of them compares with what the origin attests.", []string{"origin", "result"}, nil)
	configuredDesc = prometheus.NewDesc("evenkeel_check_logs_configured",
		"Logs that the region's nodes have to compare, all of them together, whether or not any holds their shards.", nil, nil)
	divergedDesc = prometheus.NewDesc("evenkeel_check_diverged",
		"1 for a log whose fold here is not what its origin attests.", []string{"origin", "stream", "partition", "layer"}, nil)
	attestationAgeDesc = prometheus.NewDesc("evenkeel_attestation_age_seconds",
		"Seconds since the newest attestation came, of the log of an origin of which that is longest ago. Absent while there is none of some log.", []string{"origin"}, nil)
)

// Describe implements prometheus.Collector.
func (g *Gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{logsDesc, configuredDesc, divergedDesc, attestationAgeDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *Gauges) Collect(ch chan<- prometheus.Metric) {
	show := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	type tally struct {
		results map[divergence.Result]int
		oldest  time.Time
		unheard bool
	}
	checks := g.checks
	origins := map[string]*tally{} // also of a node that holds nothing: sums over nodes are of numbers
	for _, origin := range checks.topics {
		origins[origin.String()] = &tally{results: map[divergence.Result]int{}}
	}
	held := map[int32]bool{}
	for p := range checks.cfg.Partitions {
		held[p] = checks.holds(p)
	}
	findings := checks.Findings(nil)
	for _, f := range findings {
		origin := f.Log.Origin.String()
		t := origins[origin]
		// What was found is told until another node owns the shard, or it is over.
		if held[f.Log.Partition] || f.Result == divergence.Diverged {
			t.results[f.Result]++
		}
		switch {
		case f.Heard == nil:
			t.unheard = true
		case t.oldest.IsZero() || f.Heard.Before(t.oldest):
			t.oldest = *f.Heard
		}
		if f.Result == divergence.Diverged {
			show(divergedDesc, 1, origin, f.Log.Stream.String(), strconv.Itoa(int(f.Log.Partition)), string(f.Layer))
		}
	}
	show(configuredDesc, float64(len(findings)))
	for origin, t := range origins {
		for _, result := range divergence.Results() {
			show(logsDesc, float64(t.results[result]), origin, string(result))
		}
		if !t.unheard {
			show(attestationAgeDesc, time.Since(t.oldest).Seconds(), origin)
		}
	}
}
