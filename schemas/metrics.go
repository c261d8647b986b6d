package schemas

import (
	"math"

	metricsv1 "github.com/evenkeel/evenkeel/schemas/metrics/v1"
)

func metricsTypes() []Type {
	return []Type{
		define("erlmcp.metrics.sampled.v1", "metrics", 1, OpPut, validateMetricSampled),
	}
}

func validateMetricSampled(m *metricsv1.MetricSampled, r *rules) {
	r.name("name", m.GetName())
	r.pairs("labels", m.GetLabels(), 32)
	r.enum("kind", int32(m.GetKind()), metricsv1.Kind_name)
	r.that(finite(m.GetValue()), "value", "must be finite")
	r.that(m.GetKind() != metricsv1.Kind_KIND_COUNTER || m.GetValue() >= 0, "value", "must not be negative for a counter")
	if m.GetKind() == metricsv1.Kind_KIND_HISTOGRAM {
		validateBuckets(m, r)
	} else {
		const reason = "must be empty for anything but a histogram"
		r.that(m.GetCount() == 0, "count", reason)
		r.that(len(m.GetBucketBounds()) == 0, "bucket_bounds", reason)
		r.that(len(m.GetBucketCounts()) == 0, "bucket_counts", reason)
	}
	r.millis("window_start_ms", m.GetWindowStartMs())
	r.millis("window_end_ms", m.GetWindowEndMs())
	r.that(m.GetWindowEndMs() >= m.GetWindowStartMs(), "window_end_ms", "must not be before window_start_ms")
	r.that(m.GetKind() != metricsv1.Kind_KIND_GAUGE || m.GetWindowEndMs() == m.GetWindowStartMs(), "window_start_ms",
		"must equal window_end_ms for a gauge")
	r.name("node", m.GetNode())
}

func validateBuckets(m *metricsv1.MetricSampled, r *rules) {
	bounds, counts := m.GetBucketBounds(), m.GetBucketCounts()
	r.that(len(bounds) <= 128, "bucket_bounds", "must be at most 128")
	for i, b := range bounds {
		r.that(finite(b) && (i == 0 || b > bounds[i-1]), "bucket_bounds", "must be finite and strictly ascending")
	}
	r.that(len(counts) == len(bounds)+1, "bucket_counts", "must be one more than bucket_bounds")
	var sum uint64
	for _, c := range counts {
		r.that(c <= math.MaxUint64-sum, "bucket_counts", "must not overflow in sum")
		sum += c
	}
	r.that(sum == m.GetCount(), "count", "must be the sum of bucket_counts")
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
