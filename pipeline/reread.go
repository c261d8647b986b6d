package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/mirrors"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/seal"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

const (
	rereadPollRecords = 5_000
	rereadFetchBytes  = 8 << 20
	rereadRoomBytes   = 32 << 20
)

// rereader reads logs of the region again, for read models that are made of events: in
// Kafka what it has, and what it does not have any more in the archive. What a compacted topic has
// lost nobody can tell, so of such a log there is nothing.
type rereader struct {
	cfg       *config.Config
	opts      []kgo.Opt // of the region's own cluster
	admin     *kadm.Client
	mirrors   *mirrors.Offsets
	compacted func(topic string) bool
	bucket    objstore.Bucket // nil: no archive
	opener    *seal.Opener
}

var _ projections.History = (*rereader)(nil)

func (r *Region) newRereader(own []kgo.Opt) (*rereader, error) {
	src, err := newSource(r.cfg, r.parts.Bucket, nil)
	return &rereader{
		cfg: r.cfg, opts: own, admin: r.claims.Admin(), mirrors: r.worker.mirrors, compacted: r.worker.isCompacted,
		bucket: r.parts.Bucket, opener: src.Opener,
	}, err
}

// First implements projections.History.
func (r *rereader) First(ctx context.Context, l events.Log, to int64) (int64, error) {
	if r.compacted(r.cfg.TopicOf(l)) {
		return to, nil
	}
	start, err := r.start(ctx, l)
	if err != nil || start == 0 || r.bucket == nil {
		return min(start, to), err
	}
	archive, err := r.archive(ctx, l)
	if err != nil {
		return 0, err
	}
	reach, _, err := archive.Reach(ctx, l)
	if err != nil {
		return 0, fmt.Errorf("what is archived of %s: %w", l, err)
	}
	if reach.From < reach.Next && reach.Next >= min(start, to) {
		start = min(start, reach.From)
	}
	return min(start, to), nil
}

// archive is what is archived of a log's shard.
func (r *rereader) archive(ctx context.Context, l events.Log) (*timeline.Timeline, error) {
	t, err := timeline.ReadShards(ctx, r.bucket, r.opener, r.cfg.Region, r.cfg.Partitions, []int32{l.Partition})
	if err != nil {
		return nil, fmt.Errorf("what is archived of %s: %w", l, err)
	}
	return t, nil
}

// start is the first offset of a log that Kafka has.
func (r *rereader) start(ctx context.Context, l events.Log) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	topic := r.cfg.TopicOf(l)
	listed, err := r.admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	o, ok := listed.Lookup(topic, l.Partition)
	if err != nil || !ok {
		return 0, events.Errorf(events.KindNotReady, "where %s begins in topic %s of %s: %w", l, topic, r.cfg.Region, errors.Join(err, errIf(!ok, "it is not there")))
	}
	return r.mirrors.InLog(ctx, l, o.Offset)
}

// Records implements projections.History.
func (r *rereader) Records(ctx context.Context, l events.Log, from, to int64) iter.Seq2[projections.Piece, error] {
	return func(yield func(projections.Piece, error) bool) {
		for from < to {
			start, err := r.start(ctx, l)
			if err == nil {
				read := r.fromKafka
				if from < start {
					read = r.fromArchive
				}
				err = read(ctx, l, from, to, start, func(p projections.Piece) bool {
					from = p.Next
					return yield(p, nil)
				})
			}
			switch {
			case errors.Is(err, errEnough):
				return
			case errors.Is(err, kerr.OffsetOutOfRange): // expired meanwhile: it may be archived
			case err != nil:
				yield(projections.Piece{}, err)
				return
			}
		}
	}
}

// errEnough says that no more pieces are wanted.
var errEnough = errors.New("enough")

func (r *rereader) fromKafka(ctx context.Context, l events.Log, from, to, _ int64, give func(projections.Piece) bool) error {
	topic := r.cfg.TopicOf(l)
	begin, err := r.mirrors.Begin(ctx, l, from)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(append(r.opts[:len(r.opts):len(r.opts)], r.cfg.RoomOpts(rereadRoomBytes)...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {l.Partition: kgo.NewOffset().At(begin)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(rereadFetchBytes),
		kgo.MaxConcurrentFetches(1),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client of %s: %w", r.cfg.Region, err)
	}
	defer client.Close()
	for from < to {
		fetches := client.PollRecords(ctx, rereadPollRecords)
		for _, fe := range fetches.Errors() {
			if errors.Is(fe.Err, kerr.OffsetOutOfRange) {
				return fe.Err
			}
		}
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return events.Errorf(events.KindNotReady, "read topic %s, partition %d of %s again: %w", topic, l.Partition, r.cfg.Region, err)
		}
		records, err := r.mirrors.KnownToLog(ctx, l, fetches.Records(), 0)
		if len(records) > 0 {
			if from = records[len(records)-1].Offset + 1; !give(projections.Piece{Records: records, Next: from}) {
				return errEnough
			}
		}
		if err != nil && from < to {
			return err
		}
	}
	return nil
}

// fromArchive reads segments until Kafka has what follows.
func (r *rereader) fromArchive(ctx context.Context, l events.Log, from, to, start int64, give func(projections.Piece) bool) error {
	gone := &projections.GapError{Log: l, Want: from, Got: start}
	if r.bucket == nil {
		return gone
	}
	archive, err := r.archive(ctx, l)
	if err != nil {
		return err
	}
	number, err := archive.SegmentOf(ctx, l, from)
	if err != nil {
		return fmt.Errorf("what is archived of %s: %w", l, err)
	}
	if number == 0 {
		return gone
	}
	for s, err := range segment.Walk(ctx, r.bucket, r.opener, r.cfg.Region, l.Partition, number-1) {
		if err != nil {
			return fmt.Errorf("what is archived of %s: %w", l, err)
		}
		p := s.Part(l)
		end, _ := s.End(l)
		if p == nil && end.Next <= from {
			continue
		}
		if p == nil || p.From > from {
			if gone.Got = min(start, end.Next); p != nil {
				gone.Got = min(start, p.From)
			}
			return gone
		}
		piece := projections.Piece{Next: p.To}
		for record, err := range s.Records(l, from) {
			if err != nil {
				return err
			}
			piece.Records = append(piece.Records, record)
		}
		if from = p.To; !give(piece) {
			return errEnough
		}
		if from >= min(start, to) {
			return nil
		}
		gone.Want = from
	}
	return gone
}
