package pipeline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
)

// collectMetrics counts what goes wrong with collecting.
type collectMetrics struct{ failures prometheus.Counter }

func newCollectMetrics(r prometheus.Registerer) *collectMetrics {
	m := &collectMetrics{failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "evenkeel_collect_failures_total", Help: "Times that tombstones of a log of the region could not be collected. It is tried again."})}
	r.MustRegister(m.failures)
	return m
}

var (
	tombstonesDesc = prometheus.NewDesc("evenkeel_collect_tombstones",
		"Tombstones of the region's own logs in the shards that this node holds, as counted when it last went round them.", nil, nil)
	stuckDesc = prometheus.NewDesc("evenkeel_collect_tombstones_stuck",
		"Those of them that hide what a former incarnation, or a region that was taken out, has written: nobody can take that away, so they stay.", nil, nil)
	stalledDesc = prometheus.NewDesc("evenkeel_collect_stalled_seconds",
		"Seconds since tombstones could be looked for and all regions had attested that they had folded more of the log, or all of it; of the log of this node's shards where that is longest ago.", nil, nil)
	collectBehindDesc = prometheus.NewDesc("evenkeel_collect_behind_records",
		"Records of the region's own logs, in the shards that this node holds, that an origin has not attested to have folded.", []string{"origin"}, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tombstonesDesc, stuckDesc, stalledDesc, collectBehindDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	show := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	var counted tombstones
	stalled := time.Duration(0)
	c.mu.Lock()
	for _, s := range c.sweeps {
		counted.all, counted.stuck = counted.all+s.counted.all, counted.stuck+s.counted.stuck
		stalled = max(stalled, time.Since(s.moved))
	}
	c.mu.Unlock()
	show(tombstonesDesc, float64(counted.all))
	show(stuckDesc, float64(counted.stuck))
	show(stalledDesc, stalled.Seconds())
	for origin, records := range c.behind() {
		show(collectBehindDesc, float64(records), origin.String())
	}
}

// behind is what holds collecting up: how many records of the region's own logs each origin has not said to have
// folded.
func (c *collector) behind() map[events.Origin]int64 {
	behind := map[events.Origin]int64{}
	for region := range c.cfg.Regions {
		behind[c.cfg.Origin(region)] = 0 // also of a node that holds nothing
	}
	for p := range c.cfg.Partitions {
		shard, release := c.held(p)
		for stream := range c.cfg.Streams {
			if shard == nil {
				break
			}
			log := events.Log{Origin: c.origin, Stream: stream, Partition: p}
			applied, next := c.checks.Applied(log), shard.Next(log)
			for origin := range behind {
				behind[origin] += max(0, next-applied[origin])
			}
		}
		release()
	}
	return behind
}
