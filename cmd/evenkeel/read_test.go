package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// Several values of a key are shown with their positions, and with the command that
// settles it, ready to be used.
func TestSiblingsTable(t *testing.T) {
	log := events.Log{Origin: events.FirstOrigin("us-east-1"), Stream: "session", Partition: 2}
	other := events.Log{Origin: events.FirstOrigin("eu-central-1"), Stream: "session", Partition: 2}
	var out bytes.Buffer
	err := siblingsTable(&out, &api.Entry{
		Stream: "session", Key: api.Bytes("s-1"), Value: api.Bytes("one"),
		Siblings: []api.Sibling{
			{Value: api.Bytes("two\n\x1b[2J"), Position: other.At(7)},
			{Value: api.Bytes(strings.Repeat("x", 500)), Position: log.At(4)},
		},
		Context: events.Vector{log: 5, other: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{
		"eu-central-1/session/2@7", "us-east-1/session/2@4", `"two\n\x1b[2J"`, "xxx…", "500 B", "2 writers did not know of each other",
		"evenkeel resolve session s-1 VALUE --context eu-central-1/session/2@8,us-east-1/session/2@5\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Count(text, "x") > 100 {
		t.Errorf("the whole value:\n%s", text)
	}
}
