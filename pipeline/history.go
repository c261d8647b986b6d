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
// a key is in.
func (r *Region) History(ctx context.Context, p api.HistoryParams) (*api.HistoryPart, error) {
	if _, ok := r.cfg.Streams[p.Stream]; !ok {
		return nil, r.noStream(p.Stream)
	}
	if len(p.Key) == 0 || len(p.Key) > events.MaxKeyBytes {
		return nil, events.Errorf(events.KindInvalid, "history: want a key of 1 to %d bytes", events.MaxKeyBytes)
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
	h := historian{region: r, key: string(p.Key), part: part, left: map[topicPartition]*api.HistoryLog{}}
	for i := range part.Logs {
		if l := &part.Logs[i]; l.Next < l.End {
			h.left[topicPartition{topicOf(r.cfg, l.Log), l.Log.Partition}] = l
		}
	}
	if err := h.read(ctx); err != nil {
		return nil, err
	}
	part.Done = len(h.left) == 0
	return part, nil
}

func (r *Region) checkHistoryLogs(p api.HistoryParams) error {
	known := routes(r.cfg)
	for _, l := range p.Logs {
		rt, ok := known[topicOf(r.cfg, l.Log)]
		if !ok || rt.log(l.Log.Partition) != l.Log || l.Log.Stream != p.Stream || l.Log.Partition < 0 || l.Log.Partition >= r.cfg.Partitions {
			return events.Errorf(events.KindInvalid, "history: %s is no log of stream %s in %s; give back the logs of the answer before", l.Log, p.Stream, r.cfg.Region)
		}
		if l.Start < 0 || l.From < l.Start || l.Next < l.From {
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
	known := routes(r.cfg)
	for topic, rt := range known {
		if rt.stream == p.Stream {
			topics = append(topics, topic)
		}
	}
	starts, err1 := admin.ListStartOffsets(ctx, topics...)
	ends, err2 := admin.ListCommittedOffsets(ctx, topics...)
	from, err3 := starts, error(nil)
	if p.Since != nil {
		from, err3 = admin.ListOffsetsAfterMilli(ctx, p.Since.UnixMilli(), topics...)
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, events.Errorf(events.KindNotReady, "history: where the topics of stream %s of %s begin and end: %w", p.Stream, r.cfg.Region, err)
	}
	var logs []api.HistoryLog
	for _, topic := range topics {
		for _, n := range partitions {
			l, err := historyLog(known[topic].log(n), topic, starts, from, ends)
			if err != nil {
				return nil, err
			}
			logs = append(logs, l)
		}
	}
	slices.SortFunc(logs, func(a, b api.HistoryLog) int { return a.Log.Compare(b.Log) })
	return logs, nil
}

func historyLog(log events.Log, topic string, starts, from, ends kadm.ListedOffsets) (l api.HistoryLog, err error) {
	l.Log = log
	for _, o := range []struct {
		listed kadm.ListedOffsets
		into   *int64
	}{{starts, &l.Start}, {from, &l.From}, {ends, &l.End}} {
		found, ok := o.listed.Lookup(topic, log.Partition)
		if !ok || found.Err != nil {
			return l, events.Errorf(events.KindNotReady, "history: topic %s, partition %d: %w", topic, log.Partition, errors.Join(found.Err, errIf(!ok, "it is not there")))
		}
		*o.into = found.Offset
	}
	l.From = min(max(l.From, l.Start), max(l.End, l.Start))
	l.Next = l.From
	return l, nil
}

func errIf(is bool, text string) error {
	if !is {
		return nil
	}
	return errors.New(text)
}

// historian reads logs for the events of one key.
type historian struct {
	region  *Region
	key     string
	part    *api.HistoryPart
	left    map[topicPartition]*api.HistoryLog // that have more
	scanned int
	bytes   int
}

func (h *historian) read(ctx context.Context) error {
	if len(h.left) == 0 {
		return nil
	}
	client, err := h.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	begun := time.Now()
	for len(h.left) > 0 && !h.isEnough(time.Since(begun)) {
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
		fetches.EachRecord(func(record *kgo.Record) {
			if failed == nil {
				failed = h.take(ctx, record)
			}
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

func (h *historian) isEnough(took time.Duration) bool {
	return h.scanned > 0 && took > historyBudget || h.scanned > historyScanBytes || h.bytes > historyEventsBytes || len(h.part.Events) > historyEventsMost
}

func (h *historian) client(ctx context.Context) (*kgo.Client, error) {
	opts, err := h.region.kafkaOpts(h.region.cfg.Region)
	if err != nil {
		return nil, err
	}
	from := map[string]map[int32]kgo.Offset{}
	for tp, l := range h.left {
		if from[tp.topic] == nil {
			from[tp.topic] = map[int32]kgo.Offset{}
		}
		from[tp.topic][tp.partition] = kgo.NewOffset().At(l.Next)
	}
	return kgo.NewClient(append(opts,
		kgo.WithContext(ctx),
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(8<<20),
		kgo.MaxConcurrentFetches(2),
		kgo.KeepControlRecords())...) // a log may end with one
}

// take looks at a record.
func (h *historian) take(ctx context.Context, record *kgo.Record) error {
	tp := topicPartition{record.Topic, record.Partition}
	l, ok := h.left[tp]
	if !ok || record.Offset >= l.End {
		delete(h.left, tp)
		return nil
	}
	h.scanned += len(record.Key) + len(record.Value) + 1
	if !record.Attrs.IsControl() && string(record.Key) == h.key {
		e, err := h.event(ctx, l.Log, record)
		if err != nil {
			return err
		}
		h.part.Events, h.bytes = append(h.part.Events, e), h.bytes+len(e.Value)
	}
	l.Next = record.Offset + 1
	if l.Next >= l.End {
		delete(h.left, tp)
	}
	return nil
}

// event tells of a record of the key what folds make of it. Of what is parked it
// says why, never what.
func (h *historian) event(ctx context.Context, log events.Log, record *kgo.Record) (api.HistoryEvent, error) {
	inLog := *record // the reading goes on by the mirror's offsets
	if err := h.region.worker.mirrors.toLog(ctx, log, []*kgo.Record{&inLog}, 0); err != nil {
		return api.HistoryEvent{}, fmt.Errorf("history: %w", err)
	}
	found := api.HistoryEvent{Position: log.At(inLog.Offset), Written: record.Timestamp.UTC()}
	e, wrong := readEvent(record)
	if wrong != "" {
		found.Op, found.Parked = "none", wrong
		found.Clock = events.HLCAt(record.Timestamp)
		found.Effective = found.Clock
		return found, nil
	}
	found.Op, found.Type, found.ID, found.Source = e.Op.String(), e.Type, e.ID, e.Source
	found.Clock, found.Effective, found.Context = e.Clock, e.Clock, e.Deps.String()
	reason, err := h.region.parkedAt(ctx, found.Position)
	if err != nil {
		return found, fmt.Errorf("history: %w", err)
	}
	if found.Parked = reason; reason == "" {
		found.ContentType, found.Value = e.ContentType, e.Value
	}
	return found, nil
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
