package replicator

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator/inflate"
	"github.com/evenkeel/evenkeel/replicator/ledger"
	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// Stretch is a partition of a topic that holds records of a log: of a peer's mirror, as far
// as the peer's link has written it, or of the log's own topic.
type Stretch struct {
	Region    events.Region // whose cluster it is
	Opts      []kgo.Opt     // reach it
	Topic     string
	Partition int32
	Start     int64        // offset of the topic's first record
	End       int64        // offset behind the last
	Runs      *mapping.Map // where the log's offsets are in the topic
	Next      int64        // offset of the log up to which the topic has it
	Compacted bool         // it may lack any record but the last

	// BatchBytesMost is how many bytes a batch may have decompressed.
	BatchBytesMost int64
}

// From is the offset of the log from which on the topic has it.
func (s Stretch) From() int64 {
	start := s.Start
	if runs := s.Runs.Runs(); len(runs) > 0 {
		start = max(start, runs[0].Dest)
	}
	from, _ := s.Runs.Source(start)
	return from
}

func (s Stretch) String() string {
	return fmt.Sprintf("topic %s of %s, partition %d", s.Topic, s.Region, s.Partition)
}

// readPatience is how long a cluster may say nothing while a stretch is read from it.
const readPatience = time.Minute

// mirroredRoomBytes is how much memory what has been fetched of a stretch has, and is not read yet.
const mirroredRoomBytes = 32 << 20

// Records reads records from an offset of the log up to another, in order and with their
// offsets of the log.
func (s Stretch) Records(ctx context.Context, from, to int64) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		fail := func(err error) { yield(nil, fmt.Errorf("read %s: %w", s, err)) }
		at, _ := s.Runs.Dest(from, s.End)
		end, _ := s.Runs.Dest(to, s.End)
		if at = max(at, s.Start); at >= end {
			return
		}
		client, err := kgo.NewClient(append(append(slices.Clone(s.Opts), inflate.Opts(mirroredRoomBytes, s.BatchBytesMost)...),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.Topic: {s.Partition: kgo.NewOffset().At(at)}}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
		if err != nil {
			fail(err)
			return
		}
		defer client.Close()
		for at < end {
			records, err := poll(ctx, client)
			if err != nil {
				fail(fmt.Errorf("at offset %d: %w", at, err))
				return
			}
			for _, r := range records {
				if r.Offset >= end {
					return
				}
				at = r.Offset + 1
				r.Offset, _ = s.Runs.Source(r.Offset)
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

func poll(ctx context.Context, client *kgo.Client) ([]*kgo.Record, error) {
	waiting, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	fetches := client.PollFetches(waiting)
	if ctx.Err() == nil && waiting.Err() != nil {
		return nil, events.Errorf(events.KindNotReady, "nothing has come for %s", readPatience)
	}
	return fetches.Records(), fetches.Err()
}

// Mirrors finds out what the peer has of some topics of an origin, by topic and partition.
// Topics that it does not mirror are left out.
func (r Relay) Mirrors(ctx context.Context, origin events.Origin, topics []string) (map[string]map[int32]Stretch, error) {
	peer, err := newCluster(r.Region.String(), r.Opts)
	if err != nil {
		return nil, err
	}
	defer peer.close()
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	found, err := r.listMirrors(ctx, peer.admin, origin, topics)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	// After the ends of the mirrors: then it tells of all that they have.
	book, err := openLedger(ctx, r.Opts, origin, r.Region)
	if err != nil {
		return nil, err
	}
	defer book.Close()
	set := kadm.TopicsSet{}
	for topic := range found {
		for num := range found[topic] {
			set.Add(origin.MirrorTopic(topic), num)
		}
	}
	described, err := peer.admin.DescribeProducers(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("producers of %s: %w", r.Region, err)
	}
	for topic, mirrors := range found {
		if _, known := book.Mirror(topic); !known {
			delete(found, topic)
			continue
		}
		for num, s := range mirrors {
			d := described[s.Topic].Partitions[num]
			if d.Err != nil {
				return nil, fmt.Errorf("producers of %s: %w", s, d.Err)
			}
			key := partition{topic, num}.ledger()
			s.End = written(book, key, s.End, d.ActiveProducers)
			s.Runs = book.Map(key)
			s.Next = upTo(book, key, s.Runs, s.End)
			mirrors[num] = s
		}
	}
	return found, nil
}

// listMirrors finds the peer's mirrors, and where they begin and end.
func (r Relay) listMirrors(ctx context.Context, admin *kadm.Client, origin events.Origin, topics []string) (map[string]map[int32]Stretch, error) {
	found := map[string]map[int32]Stretch{}
	for _, topic := range topics {
		mirror := origin.MirrorTopic(topic)
		meta, err := admin.Metadata(ctx, mirror)
		if err != nil {
			return nil, err
		}
		if !meta.Topics.Has(mirror) || meta.Topics[mirror].Err != nil {
			continue
		}
		starts, err := admin.ListStartOffsets(ctx, mirror)
		if err == nil {
			err = starts.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("where topic %s of %s begins: %w", mirror, r.Region, err)
		}
		ends, err := admin.ListEndOffsets(ctx, mirror)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("where topic %s of %s ends: %w", mirror, r.Region, err)
		}
		compacted := false
		if configs, err := admin.DescribeTopicConfigs(ctx, mirror); err == nil && len(configs) == 1 && configs[0].Err == nil {
			for _, c := range configs[0].Configs {
				compacted = compacted || c.Key == "cleanup.policy" && strings.Contains(c.MaybeValue(), "compact")
			}
		}
		found[topic] = map[int32]Stretch{}
		ends.Each(func(end kadm.ListedOffset) {
			start, _ := starts.Lookup(mirror, end.Partition)
			found[topic][end.Partition] = Stretch{Region: r.Region, Opts: r.Opts, Topic: mirror, Partition: end.Partition, Start: start.Offset, End: end.Offset, Compacted: compacted}
		})
	}
	return found, nil
}

// written is the offset up to which a mirror is what its link wrote, and known to be where it
// is: what comes behind is not the origin's, or its offsets do not count yet.
func written(book *ledger.Ledger, key ledger.Partition, end int64, active kadm.DescribedProducers) int64 {
	producer, proposed := book.Producer(key)
	if state, ok := active[producer.ID]; ok && proposed && state.LastSequence >= 0 {
		link := findings{mirrorEnd: end, lastSequence: state.LastSequence}
		if !link.ahead(end) {
			end -= link.extra()
		}
	}
	for _, plan := range book.Plans(key) {
		end = min(end, plan.Dest)
	}
	return end
}

// upTo is the offset of the log up to which a mirror has it that ends at an offset.
func upTo(book *ledger.Ledger, key ledger.Partition, runs *mapping.Map, end int64) int64 {
	next := origin(runs, end)
	if r := book.Reached(key); r.Dest == end {
		next = max(next, r.Source)
	}
	return next
}
