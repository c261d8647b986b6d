package format

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// sampleDrill is a drill in which every field has a value.
func sampleDrill() *Drill {
	m := sample()
	return &Drill{
		Format: 2, Region: m.Region, ID: m.ID, Created: m.Created, Software: "evenkeel 0.1.0", Owner: "node 1",
		Trials: []Trial{
			{Aim: "newest", Backup: m.ID, StateTime: m.Created, Bytes: 70, TookSeconds: 1.5, States: m.States(), Attested: "agrees with 2 of 2 regions"},
			{Aim: "random", Backup: m.ID, StateTime: m.Created.Add(-time.Hour), Bytes: 7, TookSeconds: 0.5, States: []events.LogState{}, Error: "why"},
		},
	}
}

func TestGoldenDrill(t *testing.T) {
	name := filepath.Join("testdata", "drill-2.golden")
	text, err := sampleDrill().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := addGolden(name, text); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; add it with -update", err)
	}
	if !bytes.Equal(golden, text) {
		t.Errorf("the sample is written as\n%s\nthe golden drill is\n%s", text, golden)
	}
	if d, err := DecodeDrill(golden); err != nil || !reflect.DeepEqual(d, sampleDrill()) {
		t.Errorf("the golden drill is read as\n%+v, %v\nwant\n%+v", d, err, sampleDrill())
	}
}

// Drills of format 1 are read as they were written.
func TestGoldenDrill1(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "drill-1.golden"))
	if err != nil {
		t.Fatal(err)
	}
	want := sampleDrill()
	want.Format, want.Trials[0].Attested = 1, ""
	d, err := DecodeDrill(golden)
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Fatalf("the golden drill is read as\n%+v, %v\nwant\n%+v", d, err, want)
	}
	if text, err := d.Encode(); err != nil || !bytes.Equal(text, golden) {
		t.Errorf("written again: %s, %v", text, err)
	}
	d.Trials[0].Attested = "x"
	if _, err := d.Encode(); err == nil {
		t.Error("format 1 takes attestations")
	}
}

func TestDrillSaysWhatIsProved(t *testing.T) {
	d := sampleDrill()
	if at := d.Proved(); !at.Equal(d.Created) {
		t.Errorf("proved %s", at)
	}
	if err := d.Err(); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), "1 of 2") || !strings.Contains(err.Error(), "why") {
		t.Errorf("%v", err)
	}
	d.Trials[1].Error = ""
	if d.Err() != nil {
		t.Error(d.Err())
	}
	d.Trials[0].Error, d.Trials[1].Error = "x", "y"
	if at := d.Proved(); !at.IsZero() {
		t.Errorf("proved %s, and all failed", at)
	}
}

func TestDrillRefuses(t *testing.T) {
	for name, change := range map[string]func(*Drill){
		"no trials":               func(d *Drill) { d.Trials = nil },
		"another format":          func(d *Drill) { d.Format = 3 },
		"no id":                   func(d *Drill) { d.ID = "x" },
		"no owner":                func(d *Drill) { d.Owner = "" },
		"no aim":                  func(d *Drill) { d.Trials[0].Aim = "" },
		"aim of several lines":    func(d *Drill) { d.Trials[0].Aim = "a\nb" },
		"states are null":         func(d *Drill) { d.Trials[0].States = nil },
		"no id of a backup":       func(d *Drill) { d.Trials[0].Backup = "x" },
		"proved at no time":       func(d *Drill) { d.Trials[0].StateTime = time.Time{} },
		"failed and proved":       func(d *Drill) { d.Trials[0].Error = "x" },
		"negative":                func(d *Drill) { d.Trials[0].Bytes = -1 },
		"states are not in order": func(d *Drill) { s := d.Trials[0].States; s[0], s[1] = s[1], s[0] },
	} {
		d := sampleDrill()
		change(d)
		if _, err := d.Encode(); events.KindOf(err) != events.KindInconsistent {
			t.Errorf("%s: %v", name, err)
		}
	}
	text, err := sampleDrill().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for at := range text {
		bad := bytes.Clone(text)
		bad[at] ^= 1
		if _, err := DecodeDrill(bad); err == nil {
			t.Errorf("byte %d changed: read", at)
		}
	}
	if _, ok := ParseDrillName("us", "us/drills/x.drill"); ok {
		t.Error("a foreign name is taken for a drill")
	}
}
