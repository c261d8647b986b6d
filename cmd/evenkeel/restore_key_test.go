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

// halfNode brings back one page of keys, and is gone then.
type halfNode struct {
	api.Node
	calls int
}

func (n *halfNode) RestoreKeys(_ context.Context, p api.RestoreKeysParams) (*api.RestoredKeys, error) {
	if n.calls++; len(p.After) > 0 {
		return nil, events.Errorf(events.KindNotReady, "shard 3 is moving")
	}
	log := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session", Partition: 2}
	k := api.RestoredKey{Key: api.Bytes("a"), Events: []string{events.TypePut}}
	if p.Write {
		k.Written = []events.Position{log.At(7)}
	}
	return &api.RestoredKeys{Stream: "session", Keys: []api.RestoredKey{k}, Same: 4, More: true, Last: api.Bytes("m"), Vector: events.Vector{log: 5}}, nil
}

// Whoever has keys written is told which were, also if that did not come to its end.
func TestRestoreKeysBrokenOff(t *testing.T) {
	node := &halfNode{}
	server := httptest.NewServer(api.NewHandler(node, 1<<20, slog.New(slog.DiscardHandler)))
	defer server.Close()
	t.Setenv("EVENKEEL_SERVER", server.URL)
	step{
		args: []string{"restore", "key", "session", "--prefix", "", "--yes"}, code: 3,
		stdout: []string{"4 keys are what they were", "us-east-1/session/2@7"}, stderr: []string{"shard 3 is moving", "keys behind m", "goes on"},
	}.run(t)
	step{
		args: []string{"restore", "key", "session", "--prefix", "", "--yes", "-o", "json"}, code: 3,
		stdout: []string{`"us-east-1/session/2@7"`, `"more": true`}, stderr: []string{"shard 3 is moving"},
	}.run(t)
	if node.calls != 4 {
		t.Errorf("%d calls", node.calls)
	}
	r := command("", "restore", "key", "session", "--prefix", "")
	if r.code != 7 || r.stdout != "" || !strings.Contains(r.stderr, "shard 3 is moving") {
		t.Errorf("only asked: %+v", r)
	}
}

func TestWhatIsDoneToKeys(t *testing.T) {
	for want, k := range map[string]api.RestoredKey{
		"refused":                 {Refused: true, Error: "append"},
		"not compared":            {Error: "it was not compared: shard 3 is moving"},
		"none, it is what it was": {},
		"not written":             {Events: []string{events.TypePut}, Error: "no"},
	} {
		if got := whatIsDone(k, true); got != want {
			t.Errorf("%+v: %s, want %s", k, got, want)
		}
	}
}
