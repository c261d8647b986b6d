package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// logNode has ten events of every key in a log.
type logNode struct {
	api.Node
	start int64
	gaps  []api.HistoryGap
}

func (n logNode) History(context.Context, api.HistoryParams) (*api.HistoryPart, error) {
	log := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session"}
	part := &api.HistoryPart{Logs: []api.HistoryLog{{Log: log, Start: n.start, From: n.start, Next: 100, End: 100, Gaps: n.gaps}}, Done: true}
	for i := range int64(10) {
		part.Events = append(part.Events, api.HistoryEvent{Position: log.At(90 + i), Op: "put", Clock: events.HLC(i + 1), Effective: events.HLC(i + 1)})
	}
	return part, nil
}

// What is missing is told by the exit code, whatever the limit leaves out besides; what the
// limit leaves out alone is not missing.
func TestHistoryLacks(t *testing.T) {
	gap := []api.HistoryGap{{From: 95, To: 97, Why: "expired"}}
	for _, c := range []struct {
		node  logNode
		limit int
		code  int
	}{
		{logNode{}, 10, 0},
		{logNode{}, 3, 0},
		{logNode{start: 5}, 10, 3},
		{logNode{start: 5}, 3, 0}, // older than all that is asked for
		{logNode{gaps: gap}, 10, 3},
		{logNode{gaps: gap}, 3, 3},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			server := httptest.NewServer(api.NewHandler(c.node, 1<<20, slog.New(slog.DiscardHandler)))
			defer server.Close()
			t.Setenv("EVENKEEL_SERVER", server.URL)
			s := step{args: []string{"history", "session", "k", "--limit", fmt.Sprint(c.limit)}, code: c.code, stdout: []string{"us-east-1/session/0@99"}}
			if c.code != 0 {
				s.stderr = []string{"may be missing"}
			}
			s.run(t)
		})
	}
}

// Times are told alike by all commands.
func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2h": now.Add(-2 * time.Hour), "7d": now.AddDate(0, 0, -7), "1d12h": now.Add(-36 * time.Hour), "0s": now, "2026-11-26T10:00:00.5Z": now.Add(500*time.Millisecond - 2*time.Hour),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-2h", "d", "7", "soon", "-1d", "99999d"} {
		if got, err := parseTime(text, now); events.KindOf(err) != events.KindInvalid {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
