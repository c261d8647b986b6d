package replicator

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Mappings tell those who read the mirrors of an origin which offsets the records
// have in its logs. They read the link topic and change nothing, so any number may
// be open, wherever the link itself runs.
type Mappings struct {
	region events.Region // where the mirrors are
	book   *ledger.Ledger
}

// OpenMappings reads what the link topic of the cluster that the options reach
// says of the mirrors of an origin.
func OpenMappings(ctx context.Context, opts []kgo.Opt, origin events.Origin, region events.Region) (*Mappings, error) {
	book, err := ledger.Open(ctx, append(slices.Clone(opts), kgo.MetadataMinAge(metadataMinAge)), ledger.Config{
		Topic: LinkTopic, Link: linkName(origin, region), Instance: "reader",
	})
	if err != nil {
		return nil, fmt.Errorf("mappings of the mirrors of %s in %s: %w", origin, region, err)
	}
	return &Mappings{region: region, book: book}, nil
}

// Refresh reads on. Afterwards Map holds good for every record that could be read
// from a mirror before, and that is before Bound: a link writes down where records go
// before they are there.
func (m *Mappings) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := m.book.Refresh(ctx); err != nil {
		return fmt.Errorf("link topic of %s: %w", m.region, err)
	}
	return nil
}

// Map is the mapping of a log's topic and partition, as of the last Refresh.
func (m *Mappings) Map(topic string, num int32) *mapping.Map {
	return m.book.Map(partition{topic, num}.ledger())
}

// Bound is the offset of the mirror before which Map holds good; math.MaxInt64 for
// all. What is behind it of a log that is being compacted may be a batch of which the
// link topic tells a moment later: Refresh, and look again.
func (m *Mappings) Bound(topic string, num int32) int64 {
	bound := int64(math.MaxInt64)
	for _, plan := range m.book.Plans(partition{topic, num}.ledger()) {
		bound = min(bound, plan.Dest)
	}
	return bound
}

// Close ends the reading.
func (m *Mappings) Close() { m.book.Close() }
