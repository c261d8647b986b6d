package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/lab"
	"github.com/evenkeel/evenkeel/replicator/divergence"
)

// awaitCheck waits until check ends with an exit code.
func awaitCheck(t *testing.T, code int, args ...string) result {
	t.Helper()
	return awaitCode(t, code, append([]string{"check"}, args...)...)
}

// awaitCode waits until a command ends with an exit code.
func awaitCode(t *testing.T, code int, args ...string) result {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		r := command("", args...)
		if r.code == code {
			return r
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("%s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
		}
	}
}

func TestCheck(t *testing.T) {
	l, err := lab.Up(t.Context(), lab.Config{Dir: t.TempDir(), Regions: []events.Region{here, there}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("EVENKEEL_SERVER", l.Addresses()[0].API)
	r := awaitCheck(t, 0)
	if !strings.Contains(r.stdout, " logs in 2 regions: ") || strings.Contains(r.stdout, "AT OFFSET") {
		t.Error(r.stdout)
	}
	r = awaitCheck(t, 0, "--stream", "session", "--region", there, "-o", "json")
	var c checked
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil || len(c.Regions) != 1 || c.Regions[0].Region != there || c.logs() != c.count(divergence.Consistent) {
		t.Errorf("%v\n%s", err, r.stdout)
	}
	if r = awaitCheck(t, 0, "--all"); !strings.Contains(r.stdout, "us-west-1/session/0   consistent  -") {
		t.Error(r.stdout)
	}
	awaitCheck(t, int(events.KindNotFound), "--stream", "nonsense")
	awaitCheck(t, int(events.KindNotFound), "--region", "nonsense")
	if r := command("", "check", "acknowledge", here, "us-west-1/session/0"); r.code != int(events.KindRefused) || !strings.Contains(r.stderr, "has not diverged") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if r := command("", "check", "acknowledge", "", "us-west-1/session/0"); r.code != int(events.KindInvalid) || !strings.Contains(r.stderr, "region") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if r := command("", "check", "acknowledge", here, "nonsense"); r.code != int(events.KindInvalid) {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if err := l.StopRegion(there); err != nil {
		t.Fatal(err)
	}
	if r = awaitCheck(t, int(events.KindPartial)); !strings.Contains(r.stdout, "! us-west-1: ") || !strings.Contains(r.stderr, "1 of 2 regions could not be asked") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
}

// Exit code and table of every result.
func TestCheckVerdict(t *testing.T) {
	now := time.UnixMilli(1_750_000_000_000)
	compared := now.Add(-5 * time.Second)
	finding := func(partition int32, result divergence.Result) divergence.Finding {
		f := divergence.Finding{Log: events.Log{Origin: events.FirstOrigin(there), Stream: "session", Partition: partition}, Result: result}
		switch result {
		case divergence.Consistent:
			f.At, f.Compared = new(int64(7)), &compared
		case divergence.Diverged:
			f.At, f.Compared, f.Layer = new(int64(9)), &compared, divergence.LayerFold
		case divergence.Indeterminate:
			f.Blocked = "the link is paused"
		case divergence.Skipped:
			f.Formats = &divergence.Skew{Theirs: 1, Ours: 2}
		}
		return f
	}
	for _, test := range []struct {
		results []divergence.Result
		silent  bool
		kind    events.Kind
		says    []string
	}{
		{[]divergence.Result{divergence.Consistent, divergence.Consistent}, false, 0, []string{"2 logs in 1 regions: 2 consistent, 0 diverged"}},
		{[]divergence.Result{divergence.Consistent}, true, events.KindPartial, []string{"! us-west-1: gone"}},
		{[]divergence.Result{divergence.Consistent, divergence.Indeterminate, divergence.Indeterminate}, false, events.KindPartial,
			[]string{"! us-west-1/session/1 in us-east-1 and 1 more: the link is paused", "us-west-1/session/1  indeterminate  -      ?          ?"}},
		{[]divergence.Result{divergence.Consistent, divergence.Skipped}, false, events.KindPartial, []string{"format 00000001 there, 00000002 here"}},
		{[]divergence.Result{divergence.Indeterminate, divergence.Skipped}, false, events.KindNotReady, nil},
		{nil, true, events.KindNotReady, nil},
		{[]divergence.Result{divergence.Indeterminate, divergence.Diverged}, true, events.KindInconsistent,
			[]string{"us-west-1/session/1  diverged       fold   9          ?         us-west-1      5s", "the state made of them is not"}},
	} {
		c := &checked{Silent: map[events.Region]string{}}
		if test.silent {
			c.Silent[there] = "gone"
		}
		if test.results != nil {
			answer := &api.Check{Region: here, At: now}
			for i, result := range test.results {
				answer.Logs = append(answer.Logs, finding(int32(i), result))
			}
			c.Regions = append(c.Regions, answer)
		}
		if kind := events.KindOf(c.verdict()); kind != test.kind {
			t.Errorf("%v: %v, want %s", test.results, c.verdict(), test.kind)
		}
		var b bytes.Buffer
		if err := checkTable(&b, c, false); err != nil {
			t.Fatal(err)
		}
		for _, text := range test.says {
			if !strings.Contains(b.String(), text) {
				t.Errorf("%v does not say %q:\n%s", test.results, text, b.String())
			}
		}
	}
}
