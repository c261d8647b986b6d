package archive

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what an archiver does.
type Metrics struct {
	segments, bytes, records, errors, taken, gaps, void prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "evenkeel_archive_" + name, Help: help})
		r.MustRegister(c)
		return c
	}
	return &Metrics{
		segments: counter("segments_total", "Segments that this node has appended to the archive."),
		bytes:    counter("bytes_total", "Bytes of the segments that this node has appended."),
		records:  counter("records_total", "Records in the segments that this node has appended."),
		errors:   counter("errors_total", "Tries to find out where the archive ends, or to append to it, that have failed."),
		taken:    counter("taken_total", "Segments that were not appended because another archiver had gone on there."),
		void:     counter("void_total", "Times that the archive has gone on behind a newest segment that is damaged. What was in it was taken from the logs again."),
		gaps:     counter("gap_records_total", "Offsets that logs had lost before they were archived. Not 0: points in time within are lost."),
	}
}
