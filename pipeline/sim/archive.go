package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// segmentEvery is how long an event waits for its segment to be closed.
const segmentEvery = 3 * time.Second

// mortalBucket is a process's way to its region's bucket: what the process writes is held
// back while it is frozen, and does not come there once it is dead.
type mortalBucket struct {
	*objstore.Memory
	card *card
}

func (b mortalBucket) Create(ctx context.Context, name string, body []byte) error {
	n := b.card.node
	if err := n.region.world.net.await(ctx.Done(), n, 0); err != nil {
		return err
	}
	if b.card.isDead() {
		return errDead
	}
	return b.Memory.Create(ctx, name, body)
}

// checkArchives: every region has archived every log, its own and the mirrors', record
// for record.
func (w *World) checkArchives(logs map[events.Log][]*kgo.Record) error {
	for _, r := range w.Regions {
		if !r.hasBackups() {
			continue
		}
		r.await("archived", func() error { return r.archived(logs) })
		got := map[events.Log][]*kgo.Record{}
		for p := range int32(partitions) {
			for s, err := range segment.Walk(context.Background(), r.Bucket, nil, r.Name, p, 0) {
				if err != nil {
					return fmt.Errorf("%s: %w", r.Name, err)
				}
				for _, part := range s.Parts {
					if part.Gap != nil {
						return fmt.Errorf("%s: segment %d of shard %d has a gap in %s: %+v", r.Name, s.Number, p, part.Log, part.Gap)
					}
					for record, err := range s.Records(part.Log, 0) {
						if err != nil {
							return fmt.Errorf("%s: %w", r.Name, err)
						}
						got[part.Log] = append(got[part.Log], record)
					}
				}
			}
		}
		for log, want := range logs {
			if len(got[log]) != len(want) {
				return fmt.Errorf("%s: archive of %s has %d records, the log %d", r.Name, log, len(got[log]), len(want))
			}
			for i := range want {
				if err := sameRecord(want[i], got[log][i]); err != nil {
					return fmt.Errorf("%s: archive of %s, offset %d: %w", r.Name, log, i, err)
				}
			}
		}
	}
	return nil
}

// archived says what the bucket lacks.
func (r *Region) archived(logs map[events.Log][]*kgo.Record) error {
	for log, records := range logs {
		if len(records) == 0 {
			continue
		}
		s, err := segment.Newest(context.Background(), r.Bucket, r.Name, log.Partition)
		if err != nil || s == nil {
			return fmt.Errorf("newest segment %+v: %w", s, err)
		}
		if end, _ := s.End(log); end.Next < int64(len(records)) {
			return fmt.Errorf("%s is archived up to %d of %d", log, end.Next, len(records))
		}
	}
	return nil
}
