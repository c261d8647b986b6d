package pipeline

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/pipeline/api"
)

// loadGauges shows what holds a region's shards up whenever it is asked.
type loadGauges struct {
	region                                            *Region
	seconds, behind, sublevels, debt, keepingUp, open *prometheus.Desc
}

func newLoadGauges(r *Region) *loadGauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"shard"}, labels...), nil)
	}
	return &loadGauges{
		region:    r,
		seconds:   desc("evenkeel_shard_seconds_total", "What a shard's time went into: wait (for records), fold, commit, stall (of Pebble).", "phase"),
		behind:    desc("evenkeel_shard_behind_records", "Records that were not fetched yet, as of the last fetches."),
		sublevels: desc("evenkeel_shard_l0_sublevels", "Sublevels of Pebble's level 0; at 100 writes stop."),
		debt:      desc("evenkeel_shard_compaction_debt_bytes", "What Pebble has to compact."),
		keepingUp: desc("evenkeel_shard_pace", "1 for the word that says what holds the shard up, keeping-up if nothing does.", "pace"),
		open:      desc("evenkeel_shard_open", "1 for a shard that is open on this node, 0 for any other of the region. Of one that is 0 on all nodes no other metric tells."),
	}
}

// Describe implements prometheus.Collector.
func (g *loadGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.seconds, g.behind, g.sublevels, g.debt, g.keepingUp, g.open} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *loadGauges) Collect(ch chan<- prometheus.Metric) {
	open, release := g.region.shards.use(g.region.cfg.Shards())
	defer release()
	for _, n := range g.region.cfg.Shards() {
		name, here := strconv.Itoa(int(n)), 0.0
		if shard := open[n]; shard != nil {
			here = 1
			g.collect(ch, name, g.region.load(n, shard))
		}
		ch <- prometheus.MustNewConstMetric(g.open, prometheus.GaugeValue, here, name)
	}
}

func (g *loadGauges) collect(ch chan<- prometheus.Metric, shard string, l api.ShardLoad) {
	for phase, seconds := range map[string]float64{
		"wait": l.WaitSeconds, "fold": l.FoldSeconds, "commit": l.CommitSeconds, "stall": l.StallSeconds,
	} {
		ch <- prometheus.MustNewConstMetric(g.seconds, prometheus.CounterValue, seconds, shard, phase)
	}
	ch <- prometheus.MustNewConstMetric(g.behind, prometheus.GaugeValue, float64(l.Behind), shard)
	ch <- prometheus.MustNewConstMetric(g.sublevels, prometheus.GaugeValue, float64(l.L0Sublevels), shard)
	ch <- prometheus.MustNewConstMetric(g.debt, prometheus.GaugeValue, float64(l.CompactionDebtBytes), shard)
	ch <- prometheus.MustNewConstMetric(g.keepingUp, prometheus.GaugeValue, 1, shard, l.Pace)
}

// admissionGauges shows how many calls an API has whenever it is asked.
type admissionGauges struct {
	handler        *api.Handler
	calls, refused *prometheus.Desc
}

func newAdmissionGauges(h *api.Handler) *admissionGauges {
	return &admissionGauges{
		handler: h,
		calls:   prometheus.NewDesc("evenkeel_api_calls", "Calls of a class that run or wait.", []string{"class", "state"}, nil),
		refused: prometheus.NewDesc("evenkeel_api_turned_away_total", "Calls that were turned away because there were too many.", []string{"class"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (g *admissionGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.calls
	ch <- g.refused
}

// Collect implements prometheus.Collector.
func (g *admissionGauges) Collect(ch chan<- prometheus.Metric) {
	for _, a := range g.handler.Admissions() {
		ch <- prometheus.MustNewConstMetric(g.calls, prometheus.GaugeValue, float64(a.Running), a.Class, "running")
		ch <- prometheus.MustNewConstMetric(g.calls, prometheus.GaugeValue, float64(a.Waiting), a.Class, "waiting")
		ch <- prometheus.MustNewConstMetric(g.refused, prometheus.CounterValue, float64(a.TurnedAway), a.Class)
	}
}
