package main

import (
	"bytes"
	"encoding/hex"
	"os/exec"
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

// What a page says at its end goes on behind exactly the key that was its last, whatever a shell
// makes of what is in it.
func TestScanGoesOn(t *testing.T) {
	for _, key := range []string{
		"plain", "two words", `"quoted"`, `a"b`, `back\slash`, `\n`, "$HOME", "`date`", "it's", "*", "~", "#", "-x", "ümläut", "日本", "", "!x", "a=b", "a;b",
		"line\nend", "tab\t", "bell\a", "\x00", "\xff\xfe", "esc\x1b[2J", "\u202e",
	} {
		var out bytes.Buffer
		if err := scanTable(&out, &api.ScanResult{Entries: []api.Entry{{Key: []byte(key)}}, More: true}); err != nil {
			t.Fatal(err)
		}
		_, flags, ok := strings.Cut(out.String(), "go on with ")
		if !ok || strings.Count(flags, "\n") != 1 {
			t.Fatalf("%q: %q", key, out.String())
		}
		// As a shell splits it, to a command that shows what it was given.
		given, err := exec.Command("sh", "-c", `show() { printf '%s' "$1 $2"; }; show `+strings.TrimSuffix(flags, "\n")).Output()
		if err != nil {
			t.Fatalf("%q: %v", flags, err)
		}
		if hexed, is := strings.CutPrefix(string(given), "--after-hex "); is {
			got, err := hex.DecodeString(hexed)
			if err != nil || string(got) != key {
				t.Errorf("%q: goes on behind %q, %v", key, got, err)
			}
		} else if string(given) != "--after "+key {
			t.Errorf("%q: goes on with %q", key, given)
		}
	}
}

// A key that no command line would take as it is stands beside the command.
func TestSiblingsOfOddKeys(t *testing.T) {
	for key, want := range map[string]string{
		"it's $1": `evenkeel resolve session 'it'\''s $1' VALUE --context `,
		"\x00a":   "evenkeel resolve session KEY VALUE --context ",
		"-x":      "KEY are the bytes 2d78.\n",
	} {
		var out bytes.Buffer
		if err := siblingsTable(&out, &api.Entry{Stream: "session", Key: []byte(key), Siblings: []api.Sibling{{}, {}}}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q: no %q in\n%s", key, want, out.String())
		}
	}
}
