package replicator_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
)

// Whoever reads a mirror while the log is being written, and asks for the mapping
// after each record, is told the offset that the record has in its log.
func TestMappingsOfWhatHasBeenRead(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		l := w.link(us, eu)
		ctx := context.Background()
		m, err := replicator.OpenMappings(ctx, dest.opts(), events.FirstOrigin(us), eu)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		reader := dest.dial(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{mirror(us, topic): {0: kgo.NewOffset().At(0)}}))
		defer reader.Close()
		var read []*kgo.Record
		translated := map[int64]int64{} // offsets of the mirror to those of the log
		follow := func() {
			for _, r := range reader.PollFetches(ctx).Records() {
				if err := m.Refresh(ctx); err != nil {
					t.Fatal(err)
				}
				offset, ok := m.Map(topic, 0).Source(r.Offset)
				if !ok {
					t.Fatalf("offset %d of the mirror has no place in the log", r.Offset)
				}
				read, translated[r.Offset] = append(read, r), offset
			}
		}
		for _, h := range holes[:9] { // those that leave holes
			h.make(source, int(source.end(topic, 0)))
			source.writeTo(0, 3)
			follow()
		}
		l.awaitView(topic)
		for int64(len(read)) < dest.end(mirror(us, topic), 0) {
			follow()
		}
		if len(read) < 50 {
			t.Fatalf("only %d records", len(read))
		}
		originals := map[int64]*kgo.Record{}
		for _, r := range source.read(topic, 0) {
			originals[r.Offset] = r
		}
		for _, r := range read {
			original := originals[translated[r.Offset]]
			if original == nil || fmt.Sprint(original.Key, original.Value) != fmt.Sprint(r.Key, r.Value) {
				t.Fatalf("offset %d of the mirror is said to be %d of the log; the records differ", r.Offset, translated[r.Offset])
			}
		}
	})
}
