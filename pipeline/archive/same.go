package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/inflate"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	lastPatience  = 10 * time.Second // for the last archived records
	lastBytesMost = 1 << 20          // of what is fetched with them
	lastsAtOnce   = 4                // shards; each may have two of the largest batches of each broker in memory
)

// others finds the logs that are not those that were archived, and says of each why: topics that
// were made anew, and have grown past where the archive ends. It compares the last record
// that is archived. What cannot be compared (it is not known, has expired, was compacted away, or is in a batch that
// is too large) is taken to be the same.
func (s *shard) others(ctx context.Context, b *segment.Builder, bounds map[string]bounds) (map[events.Log]error, error) {
	from, want := map[string]map[int32]kgo.Offset{}, map[string]int64{}
	for topic, t := range s.a.cfg.Topics {
		l := t.Log(s.number)
		end, _ := b.End(l)
		if end.Last == (events.Digest{}) {
			continue
		}
		at, err := s.a.offsets.Begin(ctx, l, end.Next-1)
		if err != nil {
			return nil, err
		}
		if here := bounds[topic]; at >= here.start && at < here.end {
			from[topic], want[topic] = map[int32]kgo.Offset{s.number: kgo.NewOffset().At(at)}, end.Next-1
		}
	}
	found, err := s.a.firsts(ctx, from)
	if err != nil {
		return nil, err
	}
	others, chain := map[events.Log]error{}, s.a.cfg.NewChain()
	for topic, offset := range want {
		l := s.a.cfg.Topics[topic].Log(s.number)
		end, _ := b.End(l)
		r := found[topic]
		if r == nil || r.Attrs.IsControl() {
			s.log.Warn("the last archived record of a log could not be compared with the log's", "log", l.String(), "offset", offset)
			continue
		}
		if err := s.a.offsets.ToLog(ctx, l, []*kgo.Record{r}, r.Offset+1); err != nil {
			return nil, err
		}
		if r.Offset == offset && chain(events.Digest{}, r) != end.Last {
			others[l] = fmt.Errorf("topic %s holds another record at offset %d of the log than was archived: it was made anew, or truncated and written again; give the region a new incarnation", topic, offset)
		}
	}
	return others, nil
}

// firsts reads the first record that each of some topics has from an offset on, as far as they
// come soon.
func (a *Archiver) firsts(ctx context.Context, from map[string]map[int32]kgo.Offset) (map[string]*kgo.Record, error) {
	found := map[string]*kgo.Record{}
	if len(from) == 0 {
		return found, nil
	}
	select {
	case a.lasts <- struct{}{}:
		defer func() { <-a.lasts }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	client, err := kgo.NewClient(append(append(slices.Clip(a.opts), inflate.Opts(lastBytesMost, a.cfg.BatchBytesMost)...),
		kgo.ConsumePartitions(maps.Clone(from)), kgo.FetchMaxPartitionBytes(64<<10), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client of %s: %w", a.cfg.Region, err)
	}
	defer client.Close()
	short, cancel := context.WithTimeout(ctx, lastPatience)
	defer cancel()
	for len(found) < len(from) && short.Err() == nil {
		fetches := client.PollFetches(short)
		fetches.EachRecord(func(r *kgo.Record) {
			if _, known := found[r.Topic]; !known {
				found[r.Topic] = r
			}
		})
		var errs []error
		fetches.EachError(func(topic string, _ int32, err error) {
			switch {
			case !isTooLarge(err):
				errs = append(errs, err)
			case found[topic] == nil:
				found[topic] = nil // with a limit that was lowered; what is behind it may be another one
			}
		})
		if err := errors.Join(errs...); err != nil && short.Err() == nil {
			return nil, fmt.Errorf("the last archived records of shard logs in %s: %w", a.cfg.Region, err)
		}
	}
	return found, ctx.Err()
}
