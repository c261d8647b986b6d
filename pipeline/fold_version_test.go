package pipeline_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/checks"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// What each merge rule makes of one and the same logs, by the version that folds had when they did.
var (
	foldedBy = 3
	foldsTo  = map[string]string{
		"append":     "c7a955aac178294c",
		"fieldmap":   "1fdc409748f14bd6",
		"lww":        "2de54f4dfb326eec",
		"multivalue": "cdf61b98d446ec04",
	}
)

// No fold changes without FoldVersion: regions before and after the change would compare what cannot
// be compared, and find that they have diverged.
func TestFoldVersion(t *testing.T) {
	logs := foldedLogs(t)
	for _, rule := range projections.Rules() {
		if got := foldOf(t, rule, logs); got != foldsTo[rule.Name()] {
			t.Errorf("merge rule %s makes %s of the same logs, not %q: raise FoldVersion in pipeline/checks/attest.go, and write both down here", rule.Name(), got, foldsTo[rule.Name()])
		}
	}
	if checks.FoldVersion != foldedBy {
		t.Errorf("FoldVersion is %d, the folds above are of %d: was it raised for nothing?", checks.FoldVersion, foldedBy)
	}
}

func foldOf(t *testing.T, rule merge.Rule, logs []projections.Run) string {
	t.Helper()
	s, err := projections.Open(projections.Config{Dir: "state", FS: vfs.NewMem(), Rules: map[events.Stream]merge.Rule{"s": rule}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Apply(logs); err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for e, err := range projections.Entities([]*projections.Shard{s}, "s", "", "") {
		if err != nil {
			t.Fatal(err)
		}
		for _, slice := range e.Slices {
			fmt.Fprintf(h, "%s %q %x\n", slice.Log, e.Key, slice.Data)
		}
	}
	for _, st := range s.Logs() {
		fmt.Fprintf(h, "%s %s %d %d\n", st.Log, st.Digest, st.Events, st.Parked)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// foldedLogs are logs of two regions, with all operations, with collections of what is and of what is not
// spent, with burials, and with a record of each type of event that there is.
func foldedLogs(t *testing.T) []projections.Run {
	t.Helper()
	home := events.Log{Origin: events.FirstOrigin(us), Stream: "s"}
	away := events.Log{Origin: events.FirstOrigin(eu), Stream: "s"}
	here := []*kgo.Record{
		written(t, events.TypePut, "a", `{"f":1,"g":"\u00e9"}`, ""),
		written(t, events.TypePatch, "a", `{"set":{"g":2},"increment":{"n":5},"add":{"s":["x","y"]}}`, ""),
		written(t, events.TypeAppend, "a", `1`, ""),
		written(t, events.TypeDelete, "b", "", "eu-central-1@2"),
		written(t, events.TypePut, "c", `{"f":3}`, ""),
		written(t, events.TypePut, "a", `{"h":[1.0,null]}`, "us-east-1@1"),
		written(t, events.TypePatch, "a", `{"unset":["g"],"remove":{"s":["x"]}}`, "eu-central-1@1"),
		written(t, events.TypeResolve, "d", `{"f":4}`, "eu-central-1@1,us-east-1@7"),
		collecting(t, events.Tombstone{Key: "b", Offset: 3}, events.Tombstone{Key: "c", Offset: 4}, events.Tombstone{Key: "a", Offset: 1}),
		burying(t, events.Tombstone{Key: "a", Offset: 6}, events.Tombstone{Key: "d", Offset: 7}, events.Tombstone{Key: "c", Offset: 3}),
		written(t, events.TypePatch, "a", `{"increment":{"n":1}}`, ""),
		{Key: []byte("bare"), Value: []byte(`{"f":5}`)},
		{Value: []byte("no event")},
	}
	there := []*kgo.Record{
		written(t, events.TypePut, "a", `{"f":7}`, ""),
		written(t, events.TypePut, "b", `{"z":1}`, ""),
		written(t, events.TypePatch, "a", `{"increment":{"n":-2},"remove":{"s":["y","z"]}}`, "us-east-1@2"),
		written(t, events.TypeDelete, "a", "", "us-east-1@3"),
		collecting(t, events.Tombstone{Key: "a", Offset: 3}, events.Tombstone{Key: "b", Offset: 1}),
		burying(t, events.Tombstone{Key: "b", Offset: 1}),
		{Key: []byte("bare")},
	}
	files, err := filepath.Glob("../schemas/testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d events, %v", len(files), err)
	}
	for _, file := range files {
		here = append(here, readGolden(t, file))
	}
	runs := []projections.Run{{Log: home, Records: here}, {Log: away, Records: there}}
	for _, run := range runs {
		for i, r := range run.Records {
			r.Offset, r.Timestamp = int64(i), time.UnixMilli(2_000_000_000_000)
		}
	}
	return runs
}

func written(t *testing.T, typ, key, value, deps string) *kgo.Record {
	t.Helper()
	e := events.Event{Key: key, Type: typ, ID: "1", Source: "/test", ContentType: "application/json", Clock: events.HLCFromMillis(1_000)}
	if value != "" {
		e.Value = []byte(value)
	}
	e.Op = events.OpOf(typ, e.Value)
	return encoded(t, e, deps)
}

func collecting(t *testing.T, tombstones ...events.Tombstone) *kgo.Record {
	t.Helper()
	return upkeep(t, events.NewCollection, tombstones)
}

func burying(t *testing.T, slices ...events.Tombstone) *kgo.Record {
	t.Helper()
	return upkeep(t, events.NewBurial, slices)
}

func upkeep(t *testing.T, make func([]events.Tombstone) (events.Event, error), named []events.Tombstone) *kgo.Record {
	t.Helper()
	e, err := make(named)
	if err != nil {
		t.Fatal(err)
	}
	e.ID, e.Source, e.Clock = "1", "/test", events.HLCFromMillis(1_000)
	return encoded(t, e, "")
}

func encoded(t *testing.T, e events.Event, deps string) *kgo.Record {
	t.Helper()
	var err error
	if e.Deps, err = events.ParseContext(deps); err != nil {
		t.Fatal(err)
	}
	r, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readGolden(t *testing.T, file string) *kgo.Record {
	t.Helper()
	var golden struct {
		Key     string
		Headers []struct{ Key, Value string }
		Value   []byte `json:"value_base64"`
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &kgo.Record{Key: []byte(golden.Key), Value: golden.Value}
	for _, h := range golden.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: []byte(h.Value)})
	}
	return r
}
