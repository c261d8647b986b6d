package applybench

import (
	"fmt"
	"slices"

	"github.com/evenkeel/evenkeel/projections"
)

// Case is one thing to be measured. It is passed to the processes as JSON.
type Case struct {
	Rule         string `json:"rule"`
	ValueBytes   int    `json:"value_bytes"`
	Keys         int    `json:"keys"`
	BatchRecords int    `json:"batch_records"`
	Order        string `json:"order"`    // of keys: uniform or skewed
	CatchUp      bool   `json:"catch_up"` // begins with nothing, in place of all keys
	Events       int    `json:"events"`   // that are measured
	Seed         uint64 `json:"seed"`
}

const (
	uniform = "uniform"
	skewed  = "skewed" // Zipf's law with exponent 1.1: the first of a million keys has a tenth of all events

	workerBatch = 10_000 // records, as the pipeline's worker polls them
	smallBatch  = 100
	million     = 1_000_000
	shortKeys   = 400_000

	// sliceEvents are applied in one turn: about a second.
	sliceEvents = 100_000
)

// Name tells a case from all others of a run: lww-256B-1000000-b10000-uniform.
func (c Case) Name() string {
	name := fmt.Sprintf("%s-%dB-%d-b%d-%s", c.Rule, c.ValueBytes, c.Keys, c.BatchRecords, c.Order)
	if c.CatchUp {
		name = "catchup-" + name
	}
	return name
}

// Cases lists what is measured: all of it, or what ends within four minutes.
func Cases(short bool, seed uint64) []Case {
	var cases []Case
	add := func(c Case) {
		c.Seed = seed
		if c.Order == "" {
			c.Order = uniform
		}
		if c.BatchRecords == 0 {
			c.BatchRecords = workerBatch
		}
		cases = append(cases, c)
	}
	if short {
		for _, rule := range rules() {
			add(Case{Rule: rule, ValueBytes: 256, Keys: shortKeys, Events: 400_000})
		}
		add(Case{Rule: "lww", ValueBytes: 1024, Keys: shortKeys, Events: 300_000})
		add(Case{Rule: "lww", ValueBytes: 256, Keys: shortKeys, BatchRecords: smallBatch, Events: 200_000})
		add(Case{Rule: "lww", ValueBytes: 256, Keys: shortKeys, CatchUp: true, Events: million})
		return cases
	}
	for _, rule := range rules() {
		for _, keys := range []int{million, 10 * million} {
			for _, valueBytes := range []int{256, 1024} {
				add(Case{Rule: rule, ValueBytes: valueBytes, Keys: keys, Events: 2 * million})
			}
		}
	}
	add(Case{Rule: "lww", ValueBytes: 256, Keys: million, BatchRecords: smallBatch, Events: million})
	add(Case{Rule: "lww", ValueBytes: 256, Keys: million, Order: skewed, Events: 2 * million})
	add(Case{Rule: "lww", ValueBytes: 256, Keys: million, CatchUp: true, Events: 10 * million})
	return cases
}

func rules() (names []string) {
	for _, r := range projections.Rules() {
		names = append(names, r.Name())
	}
	slices.Sort(names)
	return names
}

// diskBytes is what a case may need: two databases, each with as much again for
// compactions under way and what they have not yet deleted.
func (c Case) diskBytes() uint64 {
	const entryBytes = 100 // key, clock, offset, types
	entries := min(c.Keys, c.Events)
	if !c.CatchUp {
		entries = c.Keys
	}
	return 2*2*uint64(entries)*uint64(c.ValueBytes+entryBytes) + reserveBytes
}

const reserveBytes = 2 << 30 // is left free
