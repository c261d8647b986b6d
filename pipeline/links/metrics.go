package links

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/replicator"
)

// Gauges show what links are doing whenever they are asked. What is not known
// has no value: an alert on lag needs one on its absence beside it.
type Gauges struct {
	links      *Links
	up         *prometheus.Desc
	configured *prometheus.Desc
	state      *prometheus.Desc

	lagRecords, lagBytes, lagSeconds *prometheus.Desc
	fetchAge, ackAge                 *prometheus.Desc
}

// NewGauges makes the gauges of links; the caller registers them.
func NewGauges(links *Links) *Gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("evenkeel_link_"+name, help, append([]string{"origin"}, labels...), nil)
	}
	return &Gauges{
		links:      links,
		up:         desc("up", "1 if everything that is not stopped or paused is being mirrored, else 0. Only of links that run on this node."),
		configured: prometheus.NewDesc("evenkeel_links_configured", "Links that the region's nodes have to run, all of them together, whether or not any does.", nil, nil),
		state:      desc("state", "1 for the state that the mirroring of the partition is in.", "topic", "partition", "state"),
		lagRecords: desc("lag_records", "Offsets that the mirror is behind the last stable one of its log. Absent if unknown.", "topic", "partition"),
		lagBytes:   desc("lag_bytes", "Estimated bytes that the mirror is behind, as produced. Absent if unknown.", "topic", "partition"),
		lagSeconds: desc("lag_seconds", "Seconds between the last record of the log and the last one mirrored, measured every 5 s. Absent if unknown.", "topic", "partition"),
		fetchAge:   desc("fetch_age_seconds", "Seconds since the last good fetch from the source. Absent before the first.", "topic", "partition"),
		ackAge:     desc("ack_age_seconds", "Seconds since a batch was last acknowledged. Absent if none was.", "topic", "partition"),
	}
}

// Describe implements prometheus.Collector.
func (g *Gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.up, g.configured, g.state, g.lagRecords, g.lagBytes, g.lagSeconds, g.fetchAge, g.ackAge} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *Gauges) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(g.configured, prometheus.GaugeValue, float64(len(g.links.kept)))
	for _, l := range g.links.Running() {
		g.collect(ch, Details(l))
	}
}

func (g *Gauges) collect(ch chan<- prometheus.Metric, d replicator.Details) {
	origin := d.Origin.String()
	show := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{origin}, labels...)...)
	}
	up := 0.0
	if d.Running {
		up = 1
	}
	show(g.up, up)
	for _, p := range d.Partitions {
		num := strconv.Itoa(int(p.Partition))
		show(g.state, 1, p.Topic, num, string(p.State))
		if n := p.Lag.Records; n != nil {
			show(g.lagRecords, float64(*n), p.Topic, num)
		}
		if n := p.Lag.Bytes; n != nil {
			show(g.lagBytes, float64(*n), p.Topic, num)
		}
		for desc, seconds := range map[*prometheus.Desc]*float64{g.lagSeconds: p.Lag.Seconds, g.fetchAge: p.FetchAge, g.ackAge: p.AckAge} {
			if seconds != nil {
				show(desc, *seconds, p.Topic, num)
			}
		}
	}
}
