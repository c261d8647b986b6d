package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// segmentEvery is how long an event waits for its segment to be closed.
const segmentEvery = 3 * time.Second

// checkArchives: every region has archived every log, its own and the mirrors', record
// for record; where old backups are pruned, from some record on.
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
			if w.shape.Keep != nil {
				want = want[max(0, len(want)-len(got[log])):]
			}
			if len(got[log]) != len(want) {
				return fmt.Errorf("%s: archive of %s has %d records, the log %d", r.Name, log, len(got[log]), len(want))
			}
			for i := range want {
				if err := sameRecord(want[i], got[log][i]); err != nil {
					return fmt.Errorf("%s: archive of %s, offset %d: %w", r.Name, log, want[i].Offset, err)
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
