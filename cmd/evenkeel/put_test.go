package main

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// writtenNode has written an event, of which there is an outcome.
type writtenNode struct {
	api.Node
	outcome *api.Outcome
	err     error
}

func (n writtenNode) Put(context.Context, api.PutParams) (*api.PutResult, error) {
	log := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session"}
	return &api.PutResult{Position: log.At(7), AtLeast: events.Vector{log: 8}}, nil
}

func (n writtenNode) Outcome(_ context.Context, p api.OutcomeParams) (*api.Outcome, error) {
	if p.Position.Offset != 7 || p.TimeoutSeconds != foldPatience.Seconds() {
		return nil, events.Errorf(events.KindFailed, "asked for %s within %g s", p.Position, p.TimeoutSeconds)
	}
	return n.outcome, n.err
}

func (n writtenNode) Get(_ context.Context, p api.GetParams) (*api.Entry, error) {
	if p.AtLeast.String() != "us-east-1/session/0@8" {
		return nil, events.Errorf(events.KindFailed, "read at %s", p.AtLeast)
	}
	return nil, events.Errorf(events.KindNotFound, "it was deleted")
}

// Who writes is told what has become of it: where it is in any case, whether it is parked, and
// whether that is not known.
func TestPutTellsTheOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		node   writtenNode
		code   int
		stderr string
	}{
		"folded":                                {node: writtenNode{outcome: &api.Outcome{}}},
		"parked":                                {node: writtenNode{outcome: &api.Outcome{Parked: "64 values are enough"}}, code: 4, stderr: "written to us-east-1/session/0@7, but parked there, and without effect in any region: 64 values are enough"},
		"not folded yet":                        {node: writtenNode{err: events.Errorf(events.KindNotReady, "us-east-1 is behind")}, stderr: "written, but not seen yet by readers of the region: us-east-1 is behind"},
		"asked of a node of an earlier version": {node: writtenNode{err: events.Errorf(events.KindInvalid, "no such method")}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(api.NewHandler(c.node, 1<<20, slog.New(slog.DiscardHandler)))
			defer server.Close()
			t.Setenv("EVENKEEL_SERVER", server.URL)
			for _, args := range [][]string{{"put", "session", "k", "v"}, {"delete", "session", "k"}, {"patch", "session", "k", "{}"}} {
				r := command("", args...)
				if r.code != c.code || !strings.Contains(r.stdout, "us-east-1/session/0@7") || c.stderr == "" && r.stderr != "" || !strings.Contains(r.stderr, c.stderr) {
					t.Errorf("%v: exit %d, want %d\n%s%s", args, r.code, c.code, r.stdout, r.stderr)
				}
			}
		})
	}
}
