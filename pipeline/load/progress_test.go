package load_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/load"
)

// A progress file that cannot be relied on is refused, and nothing is sent.
func TestProgressRefused(t *testing.T) {
	items := makeItems(newRand(1), 5, us)
	source := "evenkeel-load/session/0123"
	for name, c := range map[string]struct {
		text string
		kind events.Kind
		part string
	}{
		"empty":           {``, events.KindFailed, "damaged"},
		"no JSON":         {`hello`, events.KindFailed, "damaged"},
		"cut off":         {`{"input":"x","source":"` + source + `","reg`, events.KindFailed, "damaged"},
		"no regions":      {`{"source":"` + source + `"}`, events.KindFailed, "damaged"},
		"an empty region": {`{"source":"` + source + `","regions":{"us-east-1":null}}`, events.KindFailed, "us-east-1"},
		"a bad cut":       {`{"source":"` + source + `","regions":{"us-east-1":{"ends":"x"}}}`, events.KindFailed, "damaged"},
		"another load":    {`{"input":"other.jsonl","source":"evenkeel-load/session/9999","regions":{}}`, events.KindRefused, "other.jsonl"},
		"another stream":  {`{"input":"test.jsonl","source":"evenkeel-load/config/0123","regions":{}}`, events.KindRefused, "another load"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegion(us)
			cfg := configFor(t)
			if err := os.WriteFile(cfg.Progress, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg)
			wantKind(t, err, c.kind, c.part, cfg.Progress)
			if len(r.turn) != 0 {
				t.Error("the node was asked")
			}
			if text, _ := os.ReadFile(cfg.Progress); string(text) != c.text {
				t.Errorf("the file was changed: %s", text)
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		cfg := configFor(t)
		cfg.Progress = t.TempDir()
		_, err := load.Run(t.Context(), inputOf(items), nodesOf(newRegion(us)), cfg)
		wantKind(t, err, events.KindFailed, "progress of the load")
	})
	t.Run("below a file", func(t *testing.T) {
		cfg := configFor(t)
		if err := os.WriteFile(cfg.Progress, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Progress = filepath.Join(cfg.Progress, "p")
		r := newRegion(us)
		_, err := load.Run(t.Context(), inputOf(items), nodesOf(r), cfg)
		wantKind(t, err, events.KindFailed, "progress of the load")
		if r.calls != 0 {
			t.Error("events were sent that no file tells of")
		}
	})
}

// Lines without a region go to the default; by another default they would be
// written a second time, in another region.
func TestAnotherDefault(t *testing.T) {
	items := makeItems(newRand(1), 10, us)
	items[3].Region = ""
	a, b := newRegion(us), newRegion(eu)
	cfg := configFor(t)
	if _, err := load.Run(t.Context(), inputOf(items), nodesOf(a, b), cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Default = eu
	_, err := load.Run(t.Context(), inputOf(items), nodesOf(a, b), cfg)
	wantKind(t, err, events.KindRefused, "another load", cfg.Progress)
	items[3].Region = us
	cfg.Progress += ".2"
	for _, region := range []events.Region{us, eu} { // the default does not matter
		cfg.Default = region
		_, err := load.Run(t.Context(), inputOf(items), nodesOf(a, b), cfg)
		if region == eu {
			wantKind(t, err, events.KindRefused, "loaded", "before")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if a.count()+b.count() != 20 || b.count() != 0 {
		t.Errorf("%d and %d events", a.count(), b.count())
	}
}

// The directory of the progress file is made, and nothing else is left in it.
func TestProgressDirectory(t *testing.T) {
	cfg := configFor(t)
	dir := filepath.Join(filepath.Dir(cfg.Progress), "a", "b")
	cfg.Progress = filepath.Join(dir, "progress.json")
	cfg.SetBatchEvents(2)
	if _, err := load.Run(t.Context(), inputOf(makeItems(newRand(1), 20, us)), nodesOf(newRegion(us)), cfg); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	text, err := os.ReadFile(cfg.Progress)
	if err != nil || !strings.Contains(string(text), `"done": true`) {
		t.Errorf("%s, %v", text, err)
	}
}
