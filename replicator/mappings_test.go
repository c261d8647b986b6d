package replicator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

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

// The same of a log that is being compacted, where records may be in the mirror a
// moment before it is known which ones they are.
func TestMappingsOfCompactedLogs(t *testing.T) {
	two(t, func(w *world, source, dest *cluster) {
		s := &sim{world: w, rng: rand.New(rand.NewPCG(1, 3)), codecs: everyCodec}
		source.create(compacted, "cleanup.policy", "compact", "segment.bytes", "2000")
		once := &kgo.Record{Topic: compacted, Key: []byte("written once")}
		source.produce(once)
		source.note(once)
		r := &rivals{world: w, rng: s.rng, source: source, dest: dest}
		r.rival()
		r.rival()
		ctx := context.Background()
		m, err := replicator.OpenMappings(ctx, dest.opts(), events.FirstOrigin(us), eu)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		reader := dest.dial(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{mirror(us, compacted): {0: kgo.NewOffset().At(0)}}))
		defer reader.Close()
		seen := 0
		for range 40 {
			s.produceTo(source, compacted, 0)
			source.Compact()
			bounded, cancel := context.WithTimeout(ctx, time.Second)
			records := reader.PollFetches(bounded).Records()
			cancel()
			for _, r := range records {
				w.await("it is known which record it is", func() error {
					if err := m.Refresh(ctx); err != nil {
						return err
					}
					if bound := m.Bound(compacted, 0); r.Offset >= bound {
						return fmt.Errorf("offset %d, the bound is %d", r.Offset, bound)
					}
					return nil
				})
				at, _ := m.Map(compacted, 0).Source(r.Offset)
				if was := source.journal[spot{compacted, 0, at}]; was == nil || compareParts(was, r) != nil {
					t.Fatalf("offset %d of the mirror, %q, is said to be %d of the log, where %v was written", r.Offset, r.Value, at, was)
				}
				seen++
			}
		}
		if seen < 50 {
			t.Fatalf("only %d records", seen)
		}
	})
}
