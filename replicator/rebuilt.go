package replicator

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// NoteRebuilt writes to the link topic which records of an origin's logs lie where in
// mirrors that were made anew while no link ran: of each topic, by partition, runs from
// the mirror's offset 0 on. The link goes on behind what is there, and needs the origin no
// more for it than for any other record; who reads the mirrors finds their offsets
// translated. A topic that a link has mirrored already is refused: its link topic was not
// lost, and knows of a mirror that was. It may be called again.
func NoteRebuilt(ctx context.Context, opts []kgo.Opt, origin events.Origin, region events.Region, mirrors map[string]map[int32]*mapping.Map) (err error) {
	book, err := ledger.Open(ctx, append(slices.Clone(opts), kgo.MetadataMinAge(metadataMinAge)), ledger.Config{
		Topic: LinkTopic, Link: linkName(origin, region), Instance: newInstance(), Replication: -1,
	})
	if err != nil {
		return fmt.Errorf("link topic %s of %s: %w", LinkTopic, region, err)
	}
	defer book.Close()
	for _, topic := range slices.Sorted(maps.Keys(mirrors)) {
		if _, known := book.Mirror(topic); known {
			return events.Errorf(events.KindRefused, "link topic %s of %s knows a mirror of topic %s of %s: it was not lost with the mirror; "+
				"let the link mirror that anew instead: evenkeel links resume %s --topic %s --from earliest", LinkTopic, region, topic, origin, origin, topic)
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(mirrors)) {
		for _, num := range slices.Sorted(maps.Keys(mirrors[topic])) {
			if err := noteRuns(ctx, book, partition{topic, num}.ledger(), mirrors[topic][num]); err != nil {
				return fmt.Errorf("link topic %s of %s: %w", LinkTopic, region, err)
			}
		}
	}
	return nil
}

// noteRuns gives a partition its runs.
func noteRuns(ctx context.Context, book *ledger.Ledger, p ledger.Partition, runs *mapping.Map) error {
	first, err := mapping.New(runs.Runs()[0])
	if err != nil {
		return err
	}
	if err := book.Reset(ctx, p, first); err != nil {
		return err
	}
	if more := runs.Runs()[1:]; len(more) > 0 {
		return book.AppendRuns(ctx, p, first.Len(), more)
	}
	return nil
}
