package schemas

import (
	controlv1 "github.com/evenkeel/evenkeel/schemas/control/v1"
)

func controlTypes() []Type {
	return []Type{
		define("evenkeel.control.attested.v1", "control", 1, OpPut, validateAttested),
		define("evenkeel.control.region_started.v1", "control", 1, OpPut, validateRegionStarted),
	}
}

const (
	hashBytes    = 16           // chain and digest: 128 bits
	maxPartition = 1<<20 - 1    // inclusive
	dashes       = "-"          // what a region's name has beside letters and digits
	dashesUnders = dashes + "_" // and a stream's
)

func validateAttested(m *controlv1.Attested, r *rules) {
	r.label("region", m.GetRegion(), dashes)
	r.positive("incarnation", uint64(m.GetIncarnation()))
	r.label("stream", m.GetStream(), dashesUnders)
	r.that(m.GetPartition() <= maxPartition, "partition", "must be at most %d", maxPartition)
	r.that(m.GetOffset() >= 0, "offset", "must not be negative")
	r.exactly("chain", m.GetChain(), hashBytes)
	r.exactly("digest", m.GetDigest(), hashBytes)
	r.positive("format_version", uint64(m.GetFormatVersion()))
	r.millis("attested_at_ms", m.GetAttestedAtMs())
}

func validateRegionStarted(m *controlv1.RegionStarted, r *rules) {
	r.label("region", m.GetRegion(), dashes)
	r.positive("incarnation", uint64(m.GetIncarnation()))
	r.name("node", m.GetNode())
	r.name("software_version", m.GetSoftwareVersion())
	r.millis("started_at_ms", m.GetStartedAtMs())
}
