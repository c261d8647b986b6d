package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Bounds of one stretch of a history. It ends at the first that is reached.
const (
	historyBudget      = 2 * time.Second // if there was any progress
	historyTimeout     = 30 * time.Second
	historyScanBytes   = 256 << 20
	historyEventsBytes = 4 << 20
	historyEventsMost  = 10_000
	historyPollRecords = 1_000
)

// History implements api.Node: it reads the logs and mirrors of the partitions that
// a key is in, and in the archive what these do not have any more.
func (r *Region) History(ctx context.Context, p api.HistoryParams) (*api.HistoryPart, error) {
	if err := r.cfg.CheckStream(p.Stream); err != nil {
		return nil, err
	}
	if err := checkHistory(p); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	part := &api.HistoryPart{Events: []api.HistoryEvent{}, Logs: slices.Clone(p.Logs)}
	var err error
	if len(part.Logs) == 0 {
		part.Logs, err = r.historyLogs(ctx, p)
	} else {
		err = r.checkHistoryLogs(p)
	}
	if err != nil {
		return nil, err
	}
	h := historian{key: string(p.Key), part: part, begun: time.Now()}
	if r.parts.Bucket != nil {
		if err := h.readArchive(ctx, Backups{Config: r.cfg, Bucket: r.parts.Bucket}); err != nil {
			return nil, err
		}
	}
	if !h.isEnough() {
		if err := (&logReader{historian: &h, region: r}).read(ctx); err != nil {
			return nil, err
		}
	}
	if err := h.judge(func(positions []events.Position) ([]string, error) { return r.parkedAt(ctx, positions, nil) }); err != nil {
		return nil, err
	}
	part.Done = len(h.left()) == 0
	return part, nil
}

func checkHistory(p api.HistoryParams) error {
	switch {
	case len(p.Key) == 0 || len(p.Key) > events.MaxKeyBytes:
		return events.Errorf(events.KindInvalid, "history: want a key of 1 to %d bytes", events.MaxKeyBytes)
	case p.Since != nil && p.Until != nil && p.Until.Before(*p.Since):
		return events.Errorf(events.KindInvalid, "history: from %s until %s: that is no time", p.Since.Format(time.RFC3339Nano), p.Until.Format(time.RFC3339Nano))
	}
	return nil
}

func (r *Region) checkHistoryLogs(p api.HistoryParams) error {
	known := r.cfg.Routes()
	for _, l := range p.Logs {
		rt, ok := known[r.cfg.TopicOf(l.Log)]
		if !ok || rt.Log(l.Log.Partition) != l.Log || l.Log.Stream != p.Stream || l.Log.Partition < 0 || l.Log.Partition >= r.cfg.Partitions {
			return events.Errorf(events.KindInvalid, "history: %s is no log of stream %s in %s; give back the logs of the answer before", l.Log, p.Stream, r.cfg.Region)
		}
		if l.Start < 0 || l.From < l.Start || l.Next < l.From || l.Segment < 0 {
			return events.Errorf(events.KindInvalid, "history: %s: offsets %d, %d, %d: want them ascending", l.Log, l.Start, l.From, l.Next)
		}
	}
	return nil
}

// historyLogs finds the logs that a key is in, and how far they reach.
func (r *Region) historyLogs(ctx context.Context, p api.HistoryParams) ([]api.HistoryLog, error) {
	partitions, err := r.partitionsWith(ctx, p.Stream, p.Key)
	if err != nil {
		return nil, err
	}
	admin, err := r.adminOf(ctx, r.cfg.Region)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	var topics []string
	known := r.cfg.Routes()
	for topic, rt := range known {
		if rt.Stream == p.Stream {
			topics = append(topics, topic)
		}
	}
	offsets, err := listHistory(ctx, admin, p, topics)
	if err != nil {
		return nil, events.Errorf(events.KindNotReady, "history: where the topics of stream %s of %s begin and end: %w", p.Stream, r.cfg.Region, err)
	}
	var logs []api.HistoryLog
	for _, topic := range topics {
		for _, n := range partitions {
			l, err := r.historyLog(ctx, known[topic].Log(n), topic, offsets)
			if err != nil {
				return nil, err
			}
			logs = append(logs, l)
		}
	}
	slices.SortFunc(logs, func(a, b api.HistoryLog) int { return a.Log.Compare(b.Log) })
	r.addArchive(ctx, p, logs)
	return logs, nil
}

// historyOffsets are where topics begin, where a time begins and ends in them, and where
// they end.
type historyOffsets struct{ starts, from, until, ends kadm.ListedOffsets }

func listHistory(ctx context.Context, admin *kadm.Client, p api.HistoryParams, topics []string) (o historyOffsets, err error) {
	var errs [4]error
	o.starts, errs[0] = admin.ListStartOffsets(ctx, topics...)
	o.ends, errs[1] = admin.ListCommittedOffsets(ctx, topics...)
	o.from, o.until = o.starts, o.ends
	if p.Since != nil {
		o.from, errs[2] = admin.ListOffsetsAfterMilli(ctx, ceilMillis(*p.Since), topics...)
	}
	if p.Until != nil {
		o.until, errs[3] = admin.ListOffsetsAfterMilli(ctx, p.Until.UnixMilli()+1, topics...)
	}
	return o, errors.Join(errs[:]...)
}

// ceilMillis is the first millisecond that is not before a time.
func ceilMillis(t time.Time) int64 { return t.Add(time.Millisecond - 1).UnixMilli() }

// historyLog is how far a log reaches, in its own offsets, which those of its mirror need
// not be.
func (r *Region) historyLog(ctx context.Context, log events.Log, topic string, offsets historyOffsets) (l api.HistoryLog, err error) {
	var at [4]int64
	for i, listed := range []kadm.ListedOffsets{offsets.starts, offsets.from, offsets.until, offsets.ends} {
		found, ok := listed.Lookup(topic, log.Partition)
		if !ok || found.Err != nil {
			return l, events.Errorf(events.KindNotReady, "history: topic %s, partition %d: %w", topic, log.Partition, errors.Join(found.Err, errIf(!ok, "it is not there")))
		}
		at[i] = found.Offset
	}
	start, end := at[0], max(at[0], at[3])
	// Records of which the link has not said yet where they are in the log are still to come, as those
	// that it has not mirrored yet.
	if end, err = r.worker.mirrors.Known(ctx, log, min(max(start, at[2]), end)); err != nil {
		return l, err
	}
	end = max(start, end)
	from := min(max(start, at[1]), end)
	l.Log = log
	if l.Start, err = r.worker.mirrors.InLog(ctx, log, start); err != nil {
		return l, err
	}
	l.From, l.End = l.Start, l.Start
	if end > start { // what lies behind the last record may have another place by now
		l.End, err = r.worker.mirrors.InLog(ctx, log, end-1)
		l.End++
	}
	if err == nil && from == end {
		l.From = l.End
	} else if err == nil && from > start {
		l.From, err = r.worker.mirrors.InLog(ctx, log, from)
	}
	l.Next = l.From
	return l, err
}

func errIf(is bool, text string) error {
	if !is {
		return nil
	}
	return errors.New(text)
}

// historian looks for the events of one key.
type historian struct {
	key     string
	part    *api.HistoryPart
	begun   time.Time
	scanned int // bytes
	bytes   int // of events
}

// left are the logs that have more.
func (h *historian) left() (left []*api.HistoryLog) {
	for i := range h.part.Logs {
		if l := &h.part.Logs[i]; l.Next < l.End {
			left = append(left, l)
		}
	}
	return left
}

// isEnough says whether a stretch ends here.
func (h *historian) isEnough() bool {
	return h.scanned > 0 && time.Since(h.begun) > historyBudget || h.scanned > historyScanBytes || h.bytes > historyEventsBytes || len(h.part.Events) > historyEventsMost
}

// is says whether a record is of the key, which is all that is known of others.
func (h *historian) is(record *kgo.Record) bool { return string(record.Key) == h.key }

// add tells of a record of the key what folds make of it.
func (h *historian) add(log events.Log, record *kgo.Record) {
	found := api.HistoryEvent{Position: log.At(record.Offset), Written: record.Timestamp.UTC()}
	e, wrong := readEvent(record)
	if wrong != "" {
		found.Op, found.Parked = "none", wrong
		found.Clock = events.HLCAt(record.Timestamp)
		found.Effective = found.Clock
	} else {
		found.Op, found.Type, found.ID, found.Source = e.Op.String(), e.Type, e.ID, e.Source
		found.Clock, found.Effective, found.Context = e.Clock, e.Clock, e.Deps.String()
		found.ContentType, found.Value = e.ContentType, e.Value
	}
	h.part.Events, h.bytes = append(h.part.Events, found), h.bytes+len(found.Value)
}

// judge finds out which events were set aside. Of these it says why, never what they
// hold.
func (h *historian) judge(parked func([]events.Position) ([]string, error)) error {
	var places []int
	var positions []events.Position
	for i, e := range h.part.Events {
		if e.Parked == "" {
			places, positions = append(places, i), append(positions, e.Position)
		}
	}
	if len(positions) == 0 {
		return nil
	}
	reasons, err := parked(positions)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	for n, i := range places {
		if e := &h.part.Events[i]; reasons[n] != "" {
			e.Parked, e.ContentType, e.Value = reasons[n], "", nil
		}
	}
	return nil
}

// logReader looks through the logs and mirrors of a region.
type logReader struct {
	*historian
	region *Region
	open   map[topicPartition]*api.HistoryLog // that have more
}

func (h *logReader) read(ctx context.Context) error {
	h.open = map[topicPartition]*api.HistoryLog{}
	for _, l := range h.left() {
		if l.Next >= l.Archived {
			h.open[topicPartition{h.region.cfg.TopicOf(l.Log), l.Log.Partition}] = l
		}
	}
	if len(h.open) == 0 {
		return nil
	}
	client, err := h.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	for len(h.open) > 0 && !h.isEnough() {
		fetches := client.PollRecords(ctx, historyPollRecords)
		for _, fe := range fetches.Errors() {
			if errors.Is(fe.Err, kerr.OffsetOutOfRange) {
				return events.Errorf(events.KindNotReady, "history: topic %s of %s, partition %d: records have expired while they were read; begin again", fe.Topic, h.region.cfg.Region, fe.Partition)
			}
		}
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return events.Errorf(events.KindNotReady, "history: read the logs of %s: %w", h.region.cfg.Region, err)
		}
		var failed error
		fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
			if failed == nil {
				failed = h.take(ctx, ftp)
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

func (h *logReader) client(ctx context.Context) (*kgo.Client, error) {
	opts, err := h.region.kafkaOpts(h.region.cfg.Region)
	if err != nil {
		return nil, err
	}
	from := map[string]map[int32]kgo.Offset{}
	for tp, l := range h.open {
		if from[tp.topic] == nil {
			from[tp.topic] = map[int32]kgo.Offset{}
		}
		at, err := h.region.worker.mirrors.Begin(ctx, l.Log, l.Next)
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		from[tp.topic][tp.partition] = kgo.NewOffset().At(at)
	}
	return kgo.NewClient(append(append(opts, h.region.cfg.RoomOpts(searchRoomBytes)...),
		kgo.WithContext(ctx),
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(8<<20),
		kgo.MaxConcurrentFetches(2),
		kgo.KeepControlRecords())...) // a log may end with one
}

// take looks at records of a log, or of its mirror.
func (h *logReader) take(ctx context.Context, ftp kgo.FetchTopicPartition) error {
	tp := topicPartition{ftp.Topic, ftp.Partition}
	l, ok := h.open[tp]
	if !ok {
		return nil
	}
	records, err := h.region.worker.mirrors.KnownToLog(ctx, l.Log, ftp.Records, ftp.HighWatermark)
	for _, record := range records {
		if record.Offset < l.Next {
			continue
		}
		if record.Offset >= l.End {
			l.Next = l.End
			break
		}
		h.scanned += len(record.Key) + len(record.Value) + 1
		if !record.Attrs.IsControl() && h.is(record) {
			h.add(l.Log, record)
		}
		l.Next = record.Offset + 1
	}
	switch {
	case l.Next >= l.End:
		delete(h.open, tp)
	case err != nil:
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// readEvent decodes a record, or says why it is no event.
func readEvent(record *kgo.Record) (e events.Event, reason string) {
	e, err := events.Decode(record)
	if err == nil {
		err = events.CheckClock(&e, record)
	}
	if err != nil {
		return e, err.Error()
	}
	return e, ""
}

// topicPartition is a partition of a topic.
type topicPartition struct {
	topic     string
	partition int32
}
