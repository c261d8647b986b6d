package pipeline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/projections/derived"
)

// modelGauges shows what the read models are doing whenever it is asked.
type modelGauges struct {
	region                         *Region
	shards, progress, stale, since *prometheus.Desc
	failures                       *prometheus.Desc
}

func newModelGauges(r *Region) *modelGauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("evenkeel_model_"+name, help, append([]string{"model"}, labels...), nil)
	}
	return &modelGauges{
		region:   r,
		shards:   desc("shards", "Shards in which the read model is in a state.", "state"),
		progress: desc("build_progress_ratio", "How much of what is being built is done, about. Absent if nothing is."),
		stale:    desc("stale_shards", "Shards whose entries are not kept up to date."),
		since:    desc("since_timestamp_seconds", "When a model of events began to gather them. Absent if it did with the first."),
		failures: desc("failures_total", "How often the read model failed and was stopped, since the shards were opened."),
	}
}

// Describe implements prometheus.Collector.
func (g *modelGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.shards, g.progress, g.stale, g.since, g.failures} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *modelGauges) Collect(ch chan<- prometheus.Metric) {
	for _, d := range g.region.ownModels() {
		show := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, kind, value, append([]string{d.Name}, labels...)...)
		}
		for _, state := range []derived.State{derived.Running, derived.Building, derived.Stopped} {
			show(g.shards, prometheus.GaugeValue, float64(d.States[state]), string(state))
		}
		if d.Total > 0 {
			show(g.progress, prometheus.GaugeValue, float64(d.Done)/float64(d.Total))
		}
		show(g.stale, prometheus.GaugeValue, float64(d.Stale))
		if d.Since != nil {
			show(g.since, prometheus.GaugeValue, float64(d.Since.UnixMilli())/float64(time.Second/time.Millisecond))
		}
		show(g.failures, prometheus.CounterValue, float64(d.Failures))
	}
}
