package replicator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// locate compares logs and mirrors, and says where the mirrors end and are to be
// copied on. Partitions that do not fit together are stopped. waiting names what
// does not exist at the source yet.
func (s *session) locate(ctx context.Context) (next map[partition]int64, waiting, err error) {
	var mirrors []string
	for _, t := range s.cfg.Topics {
		mirrors = append(mirrors, s.cfg.Origin.MirrorTopic(t))
	}
	// Mirrors first: their sources can only have grown by the time that those
	// are asked, so a mirror that seems ahead really is.
	mirrorEnds, missing, err := listOffsets(ctx, kadm.NewClient(s.producer).ListEndOffsets, s.cfg.Destination.String(), mirrors)
	if err != nil {
		return nil, nil, err
	}
	if len(missing) > 0 {
		return nil, nil, fmt.Errorf("mirrors in %s: %w: %s", s.cfg.Destination, kerr.UnknownTopicOrPartition, strings.Join(missing, ", "))
	}
	admin := kadm.NewClient(s.consumer)
	starts, _, err := listOffsets(ctx, admin.ListStartOffsets, s.cfg.Origin.String(), s.cfg.Topics)
	if err != nil {
		return nil, nil, err
	}
	s.starts = starts
	ends, missing, err := listOffsets(ctx, admin.ListEndOffsets, s.cfg.Origin.String(), s.cfg.Topics)
	if err != nil {
		return nil, nil, err
	}
	next = map[partition]int64{}
	for _, t := range s.cfg.Topics {
		for num := range s.cfg.Partitions {
			p := partition{t, num}
			_, known := starts[p]
			end, also := ends[p]
			at, mirrored := mirrorEnds[partition{s.cfg.Origin.MirrorTopic(t), num}]
			switch {
			case s.isStopped(p):
			case !mirrored:
				return nil, nil, fmt.Errorf("mirror of topic %s in %s has no partition %d", t, s.cfg.Destination, num)
			case !known || !also:
				if !slices.Contains(missing, t) {
					missing = append(missing, fmt.Sprintf("%s, partition %d", t, num))
				}
			case at < starts[p]:
				s.stop(p, "offsets %d to %d have expired at the source before they were mirrored", at, starts[p]-1)
			case at > end:
				s.stop(p, "the mirror ends at offset %d, the source at %d: the source was truncated or re-created, or somebody else wrote to the mirror", at, end)
			default:
				next[p] = at
			}
		}
	}
	for p := range ends {
		if p.num >= s.cfg.Partitions {
			s.stop(p, "the log has this partition, the configuration says %d partitions: its records are not mirrored", s.cfg.Partitions)
		}
	}
	if len(missing) > 0 {
		waiting = fmt.Errorf("%s does not have yet: topic %s", s.cfg.Origin, strings.Join(missing, "; topic "))
	}
	return next, waiting, nil
}

// listOffsets asks a cluster for an offset of every partition of the topics, and
// tells which topics it does not have.
func listOffsets(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), cluster string, topics []string) (offsets map[partition]int64, missing []string, err error) {
	listed, err := list(ctx, topics...)
	if err != nil {
		return nil, nil, fmt.Errorf("offsets of %s: %w", cluster, err)
	}
	offsets = map[partition]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		switch {
		case o.Err == nil:
			offsets[partition{o.Topic, o.Partition}] = o.Offset
		case errors.Is(o.Err, kerr.UnknownTopicOrPartition):
			missing = append(missing, o.Topic)
		default:
			err = fmt.Errorf("offsets of %s, topic %s, partition %d: %w", cluster, o.Topic, o.Partition, o.Err)
		}
	})
	slices.Sort(missing)
	return offsets, slices.Compact(missing), err
}

// readTails reads the last record of every mirror that has one. The source must
// have the same record at the same offset; otherwise one of the two is not what
// it was when it was last copied, and nothing may be appended.
func (s *session) readTails(ctx context.Context, ends map[partition]int64) (map[partition]*kgo.Record, error) {
	logs := map[partition]partition{} // by their mirrors
	wanted := map[string]map[int32]kgo.Offset{}
	for p, end := range ends {
		if end > 0 {
			m := partition{s.cfg.Origin.MirrorTopic(p.topic), p.num}
			logs[m] = p
			addOffset(wanted, m.topic, m.num, end-1)
		}
	}
	tails := map[partition]*kgo.Record{}
	if len(logs) == 0 {
		return tails, nil
	}
	reader, err := kgo.NewClient(append(slices.Clone(s.dest),
		kgo.ConsumePartitions(wanted), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.KeepControlRecords())...)
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", s.cfg.Destination, err)
	}
	defer reader.Close()
	for len(logs) > 0 {
		fetches := reader.PollFetches(ctx)
		for _, fe := range fetches.Errors() {
			m := partition{fe.Topic, fe.Partition}
			if _, asked := logs[m]; !asked || !errors.Is(fe.Err, kerr.OffsetOutOfRange) {
				return nil, fmt.Errorf("read the end of mirror %s in %s, partition %d: %w", fe.Topic, s.cfg.Destination, fe.Partition, fe.Err)
			}
			delete(logs, m) // it has expired: nothing to compare
		}
		fetches.EachRecord(func(r *kgo.Record) {
			m := partition{r.Topic, r.Partition}
			if p, asked := logs[m]; asked {
				tails[p] = r
				delete(logs, m)
			}
		})
	}
	return tails, nil
}

// same reports whether a record of a log and one at the same offset of its mirror
// are copies.
func same(a, b *kgo.Record) bool {
	return a.Timestamp.Equal(b.Timestamp) && a.Attrs.IsControl() == b.Attrs.IsControl() &&
		bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) &&
		slices.EqualFunc(a.Headers, b.Headers, func(g, h kgo.RecordHeader) bool { return g.Key == h.Key && bytes.Equal(g.Value, h.Value) })
}
