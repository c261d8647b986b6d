package backupbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/config"
	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

const (
	replayShards = 4
	replayBytes  = 250     // of a value
	replayKeys   = 100_000 // written again and again
	segmentBytes = 8 << 20 // of records, in one segment
)

// replays measures how fast archived events become a state again: fetched, opened,
// verified, folded, and proved at the end of every segment and at rest.
func replays(ctx context.Context, e *env) (err error) {
	count := 2_000_000
	if e.Short {
		count = 200_000
	}
	s, err := e.newStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	e.logf("%d events of %d bytes are archived", count, replayBytes)
	stored, err := archiveEvents(ctx, e, s, count)
	if err != nil {
		return err
	}
	cfg := config.Default()
	cfg.Region, cfg.Partitions, cfg.DataDir, cfg.Limits.MinFreeBytes = region, replayShards, filepath.Join(e.dir, "data"), 0
	cfg.Streams = map[events.Stream]config.Stream{stream: {Topic: string(stream), Merge: "lww"}}
	const rounds = 3
	for round := range rounds {
		dir := filepath.Join(e.dir, fmt.Sprint("replayed-", round))
		took, cpu, err := timed(func() error {
			restored, err := pipeline.Restore(ctx, pipeline.RestoreJob{Config: &cfg, Bucket: s.bucket, Opener: s.opener, Log: slog.New(slog.DiscardHandler), Dir: dir})
			if err == nil && restored.Replayed.Records != int64(count) {
				err = fmt.Errorf("%d events were replayed, want %d", restored.Replayed.Records, count)
			}
			return err
		})
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return err
		}
		name := fmt.Sprint("replay, round ", round+1)
		e.add(name, "replay, proved", float64(count)/took.Seconds(), "events/s")
		e.add(name, "replay of segments", float64(stored)/megabyte/took.Seconds(), "MB/s stored")
		e.add(name, "replay, CPU (server's too)", cpu.Seconds()/float64(count)*1e6, "µs/event")
	}
	return nil
}

// archiveEvents archives events of three origins, spread over all shards.
func archiveEvents(ctx context.Context, e *env, s *store, count int) (stored int64, err error) {
	values := payload.New(e.Seed)
	for p := range int32(replayShards) {
		b := segment.NewBuilder(segment.Config{
			Region: region, Shard: p, Software: "bench", Sealer: s.sealer, Chain: digest.NewChain(),
		}, nil)
		var logs []events.Log
		for _, o := range origins {
			l := events.Log{Origin: events.FirstOrigin(o), Stream: stream, Partition: p}
			if err := b.Begin(format.LogEnd{Log: l}); err != nil {
				return 0, err
			}
			logs = append(logs, l)
		}
		for i := range count / replayShards {
			l := logs[i%len(logs)]
			next, _ := b.Next(l)
			r := &kgo.Record{Offset: next, Timestamp: time.Now(), Key: fmt.Appendf(nil, "key-%d-%08d", p, i*7919%(replayKeys/replayShards)), Value: values.Record(replayBytes).Value}
			if err := b.Add(l, r); err != nil {
				return 0, err
			}
			if b.Bytes() < segmentBytes && i < count/replayShards-1 {
				continue
			}
			seg, object, err := b.Close(time.Now(), 1, func(events.Log, int64) (events.Mark, bool) { return events.Mark{}, false })
			if err == nil {
				err = segment.Append(ctx, s.bucket, seg, object)
			}
			if err != nil {
				return 0, err
			}
			stored += int64(len(object))
		}
	}
	return stored, nil
}
