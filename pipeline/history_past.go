package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/digest"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/restore"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
)

// historyRun bounds the segments that one stretch of a history looks through, and so
// what it lists.
const historyRun = 2_000

// addArchive adds to logs what the archive has of the time before they begin. That it
// cannot be asked is told as a gap: what the logs have is of use without it.
func (r *Region) addArchive(ctx context.Context, p api.HistoryParams, logs []api.HistoryLog) {
	var begun []*api.HistoryLog // later than they did once
	var shards []int32
	for i := range logs {
		if l := &logs[i]; l.Start > 0 && l.From == l.Start {
			begun = append(begun, l)
			shards = append(shards, l.Log.Partition)
		}
	}
	if r.parts.Bucket == nil || len(begun) == 0 {
		return
	}
	b := Backups{Config: r.cfg, Bucket: r.parts.Bucket}
	t, err := b.timeline(ctx, shards)
	for _, l := range begun {
		if err == nil {
			err = extendBack(ctx, t, p, l)
		}
		if err != nil {
			l.Gaps = []api.HistoryGap{{To: l.Start, Why: "the archive cannot be read: " + err.Error()}}
		}
	}
}

// timeline is what the bucket has of some shards.
func (b Backups) timeline(ctx context.Context, shards []int32) (*timeline.Timeline, error) {
	src, err := newSource(b.Config, b.Bucket, b.Opener)
	if err != nil {
		return nil, err
	}
	return timeline.ReadShards(ctx, b.Bucket, src.Opener, b.Config.Region, b.Config.Partitions, shards)
}

// extendBack adds to a log what is archived of it from before its start. A log that is
// not there at all starts, and ends, where its archive ends.
func extendBack(ctx context.Context, t *timeline.Timeline, p api.HistoryParams, l *api.HistoryLog) error {
	reach, is, err := t.Reach(ctx, l.Log)
	if err != nil || !is || reach.From >= l.Start {
		return err
	}
	from, end := reach.From, l.End
	if p.Since != nil {
		if from, err = came(ctx, t, l.Log, p.Since.Add(-1), func(m *timeline.MissingError) int64 { return m.From }); err != nil {
			return err
		}
	}
	if p.Until != nil && end == l.Start { // else the log itself has what came at that time
		if end, err = came(ctx, t, l.Log, *p.Until, func(m *timeline.MissingError) int64 { return m.To }); err != nil {
			return err
		}
	}
	l.Archived, l.Start = l.Start, reach.From
	l.End = min(end, max(l.End, l.Archived))
	l.From = min(max(from, reach.From), l.End)
	l.Next = l.From
	if l.Segment, err = t.SegmentOf(ctx, l.Log, l.From); err != nil {
		return err
	}
	if behind := max(reach.Next, l.From); behind < min(l.Archived, l.End) {
		l.Gaps = append(l.Gaps, api.HistoryGap{From: behind, To: min(l.Archived, l.End), Why: "the log does not have them any more, and they were not archived"})
	}
	return nil
}

// came is where a time is in the archive of a log; where that is not archived, what is
// made of what is missing.
func came(ctx context.Context, t *timeline.Timeline, l events.Log, at time.Time, instead func(*timeline.MissingError) int64) (int64, error) {
	offset, err := t.Came(ctx, l, at)
	var missing *timeline.MissingError
	if errors.As(err, &missing) {
		return instead(missing), nil
	}
	return offset, err
}

// readArchive looks through the archive, as far as it is to be, or for as long as a stretch
// lasts.
func (h *historian) readArchive(ctx context.Context, b Backups) error {
	byShard := map[int32][]*api.HistoryLog{}
	var shards []int32
	for _, l := range h.left() {
		if l.Next >= l.Archived {
			continue
		}
		if l.Segment == 0 { // nothing is archived from there on, which is told
			l.Next = min(l.Archived, l.End)
			continue
		}
		p := l.Log.Partition
		if byShard[p] = append(byShard[p], l); !slices.Contains(shards, p) {
			shards = append(shards, p)
		}
	}
	for _, shard := range shards {
		if h.isEnough() {
			return nil
		}
		if err := h.readSegments(ctx, b, shard, byShard[shard]); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	return nil
}

// readSegments looks through segments of a shard.
func (h *historian) readSegments(ctx context.Context, b Backups, shard int32, logs []*api.HistoryLog) error {
	src, err := newSource(b.Config, b.Bucket, b.Opener)
	if err != nil {
		return err
	}
	run, all, err := h.run(ctx, b, shard, logs)
	if err != nil {
		return err
	}
	to := events.Vector{}
	for _, l := range logs {
		to[l.Log] = min(l.Archived, l.End)
	}
	pick := restore.Pick{Region: b.Config.Region, Shard: shard, Run: run, To: to, Anywhere: true, Chain: digest.NewChain(), Want: h.wanted}
	for s, err := range pick.Segments(ctx, src) {
		if err != nil {
			return err
		}
		if over := h.takeSegment(s, logs, to); over || h.isEnough() {
			return nil
		}
	}
	if all {
		for _, l := range logs {
			l.Next = max(l.Next, to[l.Log]) // the rest is a gap, which is known
		}
	}
	return nil
}

// run are the next segments of a shard to look through; all: no others come behind them.
func (h *historian) run(ctx context.Context, b Backups, shard int32, logs []*api.HistoryLog) (run []segment.Listed, all bool, err error) {
	first := logs[0].Segment
	for _, l := range logs {
		first = min(first, l.Segment)
	}
	run, newest, err := segment.ListBehind(ctx, b.Bucket, b.Config.Region, shard, first-1)
	if err != nil {
		return nil, false, err
	}
	if newest != nil {
		run = slices.DeleteFunc(run, func(at segment.Listed) bool { return newest.IsVoid(at.Number) })
	}
	if len(run) > historyRun {
		return run[:historyRun], false, nil
	}
	return run, true, nil
}

// wanted is what is wanted of a record.
func (h *historian) wanted(record *kgo.Record) *kgo.Record {
	h.scanned += len(record.Key) + len(record.Value) + 1
	if h.is(record) {
		return record
	}
	return nil
}

// takeSegment takes in what was found in a segment, and reports whether the logs are at
// their ends in the archive.
func (h *historian) takeSegment(s restore.Picked, logs []*api.HistoryLog, to events.Vector) (over bool) {
	over = true
	for _, l := range logs {
		end := to[l.Log]
		if part := s.Part(l.Log); part != nil && l.Next < end {
			if part.From > l.Next {
				l.Gaps = append(l.Gaps, gapBefore(l.Next, min(part.From, end), part.Gap))
			}
			for _, f := range s.Found {
				for _, record := range f.Records {
					if f.Log == l.Log && record.Offset >= l.Next {
						h.add(l.Log, record)
					}
				}
			}
			l.Next = max(l.Next, min(part.To, end))
		}
		l.Segment = s.Number + 1
		over = over && l.Next >= end
	}
	return over
}

func gapBefore(from, to int64, gap *format.Gap) api.HistoryGap {
	g := api.HistoryGap{From: from, To: to, Why: "they were not archived"}
	if gap != nil {
		g.Why = gap.Reason
	}
	return g
}

// History gathers the newest events of a key, at most limit, from the archive alone. It
// tells progress how many offsets of how many were looked at.
func (b Backups) History(ctx context.Context, p api.HistoryParams, limit int, progress func(done, total int64)) (*api.History, error) {
	if err := checkHistory(p); err != nil {
		return nil, err
	}
	var history *api.History
	asked := false
	gather := func(shards []*projections.Shard) (err error) {
		asked = true
		history, err = b.gatherHistory(ctx, p, limit, progress, shards)
		return err
	}
	newest := func(ctx context.Context, b Backups) (*moment, error) {
		return b.between(ctx, p.Stream, timeline.Target{})
	}
	_, _, err := b.inPast(ctx, p.Stream, newest, func(key string) bool { return key == string(p.Key) }, gather)
	switch kind := events.KindOf(err); {
	case err == nil || asked || kind != events.KindNotFound && kind != events.KindInconsistent:
		return history, err
	case b.Config.Streams[p.Stream].Merge == "":
		return nil, err
	}
	// What there is cannot be folded: then it is not known where the key is, nor what was
	// set aside.
	return history, gather(nil)
}

// gatherHistory gathers events out of the archive. The shards are as they are at its end;
// nil: that is not known.
func (b Backups) gatherHistory(ctx context.Context, p api.HistoryParams, limit int, progress func(done, total int64), shards []*projections.Shard) (*api.History, error) {
	logs, err := b.archivedLogs(ctx, p, shards)
	if err != nil {
		return nil, err
	}
	return api.GatherHistory(ctx, p, limit, progress, func(ctx context.Context, p api.HistoryParams) (*api.HistoryPart, error) {
		part := &api.HistoryPart{Events: []api.HistoryEvent{}, Logs: p.Logs}
		if len(part.Logs) == 0 {
			part.Logs = logs
		}
		h := historian{key: string(p.Key), part: part, begun: time.Now()}
		if err := h.readArchive(ctx, b); err != nil {
			return nil, err
		}
		part.Done = len(h.left()) == 0
		return part, h.judge(func(positions []events.Position) ([]string, error) { return parkedIn(shards, positions) })
	})
}

// archivedLogs are the logs that a key may have events in, as far as they are archived.
func (b Backups) archivedLogs(ctx context.Context, p api.HistoryParams, shards []*projections.Shard) ([]api.HistoryLog, error) {
	partitions := []int32{b.Config.PartitionOf(p.Key)}
	if shards == nil {
		partitions = nil
		for n := range b.Config.Partitions {
			partitions = append(partitions, n)
		}
	}
	for _, s := range shards {
		e, err := projections.EntityOf([]*projections.Shard{s}, p.Stream, string(p.Key))
		if err != nil {
			return nil, err
		}
		if len(e.Slices) > 0 && !slices.Contains(partitions, s.Partition()) {
			partitions = append(partitions, s.Partition())
		}
	}
	t, err := b.timeline(ctx, partitions)
	if err != nil {
		return nil, err
	}
	var logs []api.HistoryLog
	for _, n := range partitions {
		archived, err := t.Logs(ctx, n)
		if err != nil {
			return nil, err
		}
		for _, log := range archived {
			if log.Stream != p.Stream {
				continue
			}
			reach, _, err := t.Reach(ctx, log)
			if err != nil {
				return nil, err
			}
			l := api.HistoryLog{Log: log, Start: reach.Next, From: reach.Next, Next: reach.Next, End: reach.Next}
			if err := extendBack(ctx, t, p, &l); err != nil {
				return nil, err
			}
			logs = append(logs, l)
		}
	}
	if len(logs) == 0 {
		return nil, events.Errorf(events.KindNotFound, "history: nothing of stream %s of %s is archived where key %q would be", p.Stream, b.Config.Region, p.Key)
	}
	return logs, nil
}

// parkedIn tells of records why shards have set them aside.
func parkedIn(shards []*projections.Shard, positions []events.Position) ([]string, error) {
	reasons := make([]string, len(positions))
	for i, p := range positions {
		for _, s := range shards {
			if s.Partition() != p.Partition {
				continue
			}
			var err error
			if reasons[i], err = s.ParkedAt(p); err != nil {
				return nil, err
			}
		}
	}
	return reasons, nil
}
