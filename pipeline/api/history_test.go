package api_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// A client gathers the parts, in the order in which the events count, and keeps the
// newest. Within a log the order is the log's, whatever the clocks say.
func TestHistoryIsGathered(t *testing.T) {
	const each, logs = 300, 3
	ends := make([]api.HistoryLog, logs)
	for i := range ends {
		ends[i] = api.HistoryLog{Log: events.Log{Origin: events.FirstOrigin(events.Region(fmt.Sprint("r", i))), Stream: "s"}, End: each}
	}
	s := serve(t, &fakeNode{do: func(_ context.Context, _ string, params any) (any, error) {
		p := params.(api.HistoryParams)
		part := &api.HistoryPart{Logs: p.Logs, Events: []api.HistoryEvent{}}
		if len(part.Logs) == 0 {
			part.Logs = append(part.Logs, ends...)
		}
		part.Done = true
		for i := range part.Logs {
			l := &part.Logs[i]
			for range min(70, l.End-l.Next) {
				clock := events.HLC(10 * l.Next)
				if l.Next%5 == 0 {
					clock = 0 // behind the one before
				}
				part.Events = append(part.Events, api.HistoryEvent{
					Position: l.Log.At(l.Next), Op: "put", Clock: clock, Effective: clock, Value: api.Bytes("v"),
				})
				l.Next++
			}
			part.Done = part.Done && l.Next == l.End
		}
		return part, nil
	}})
	for limit, want := range map[int]int{1: 1, 10: 10, each: each, each * logs: each * logs, 5_000: each * logs} {
		var said []int64
		h, err := s.History(t.Context(), api.HistoryParams{Stream: "s", Key: api.Bytes("k")}, limit, func(done, total int64) {
			said = append(said, done)
			if total != each*logs {
				t.Errorf("of %d", total)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(h.Events) != want || h.Omitted != each*logs-want || h.Complete != (h.Omitted == 0) {
			t.Errorf("limit %d: %d events, %d omitted, complete: %t", limit, len(h.Events), h.Omitted, h.Complete)
		}
		if fmt.Sprint(said) != "[210 420 630 840 900]" {
			t.Errorf("progress %v", said)
		}
		last, next := events.HLC(0), map[events.Log]int64{}
		for _, e := range h.Events {
			if e.Effective < last {
				t.Fatalf("limit %d: %s counts as %s after %s", limit, e.Position, e.Effective, last)
			}
			last = e.Effective
			if from, seen := next[e.Position.Log]; seen && e.Position.Offset != from {
				t.Fatalf("limit %d: %s, want offset %d", limit, e.Position, from)
			}
			next[e.Position.Log] = e.Position.Offset + 1
		}
	}
	for _, limit := range []int{0, api.MaxHistoryEvents + 1} {
		_, err := s.History(t.Context(), api.HistoryParams{}, limit, func(int64, int64) {})
		wantKind(t, err, events.KindInvalid, "limit")
	}
}
