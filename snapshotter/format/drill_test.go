package format

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// sampleDrill is a drill in which every field has a value.
func sampleDrill() *Drill {
	m := sample()
	return &Drill{
		Format: 3, Region: m.Region, ID: m.ID, Created: m.Created, Software: "evenkeel 0.1.0", Owner: "node 1",
		Trials: []Trial{
			{Aim: "newest", Backup: m.ID, StateTime: m.Created, Bytes: 70, TookSeconds: 1.5, States: m.States(), Attested: "agrees with 2 of 2 regions", OpenedBy: []string{"00112233445566aa"}},
			{Aim: "random", Backup: m.ID, StateTime: m.Created.Add(-time.Hour), Bytes: 7, TookSeconds: 0.5, States: []events.LogState{}, Error: "why", OpenedBy: []string{"00112233445566aa", "8899aabbccddeeff"}},
		},
		Proofs: []Proof{
			{Key: "00112233445566aa", Drill: m.ID, StateTime: m.Created},
			{Key: "8899aabbccddeeff", Drill: NewID(m.Created.Add(-24*time.Hour), [4]byte{7}), StateTime: m.Created.Add(-25 * time.Hour)},
		},
	}
}

// sampleDrill2 is what format 2 can say of the sample, and sampleDrill1 format 1.
func sampleDrill2() *Drill {
	d := sampleDrill()
	d.Format, d.Proofs = 2, nil
	for i := range d.Trials {
		d.Trials[i].OpenedBy = nil
	}
	return d
}

func sampleDrill1() *Drill {
	d := sampleDrill2()
	d.Format, d.Trials[0].Attested = 1, ""
	return d
}

func goldenDrillName(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("drill-%d.golden", version))
}

// Drills of all formats that there ever were are read as they were written.
func TestGoldenDrills(t *testing.T) {
	if *update {
		text, err := sampleDrill().Encode()
		if err = errors.Join(err, addGolden(goldenDrillName(DrillVersion), text)); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []*Drill{sampleDrill1(), sampleDrill2(), sampleDrill()} {
		golden, err := os.ReadFile(goldenDrillName(i + 1))
		if err != nil {
			t.Fatalf("%v; add it with -update", err)
		}
		d, err := DecodeDrill(golden)
		if err != nil || !reflect.DeepEqual(d, want) {
			t.Fatalf("the golden drill is read as\n%+v, %v\nwant\n%+v", d, err, want)
		}
		if text, err := d.Encode(); err != nil || !bytes.Equal(text, golden) {
			t.Errorf("written again: %s, %v", text, err)
		}
	}
}

// What a format does not know is not written in it.
func TestOldDrillsTakeNothingNew(t *testing.T) {
	for name, d := range map[string]*Drill{
		"attestations": func() *Drill { d := sampleDrill1(); d.Trials[0].Attested = "x"; return d }(),
		"keys":         func() *Drill { d := sampleDrill2(); d.Trials[0].OpenedBy = []string{"00112233445566aa"}; return d }(),
		"proofs":       func() *Drill { d := sampleDrill2(); d.Proofs = sampleDrill().Proofs; return d }(),
	} {
		if _, err := d.Encode(); events.KindOf(err) != events.KindInconsistent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A key has proved what it alone has opened. What earlier drills have proved stays until something newer is.
func TestDrillProvesKeys(t *testing.T) {
	const operating, recovery, lost = "00112233445566aa", "8899aabbccddeeff", "ffeeddccbbaa9988"
	d := sampleDrill()
	old := Proof{Key: operating, Drill: d.Proofs[1].Drill, StateTime: d.Created.Add(-time.Hour)}
	never := func(time.Time) bool { return false }
	before := []Proof{old, {Key: recovery, Drill: old.Drill, StateTime: old.StateTime}}
	own := Proof{Key: operating, Drill: d.ID, StateTime: d.Created}
	d.Prove(before, never)
	if want := []Proof{own, before[1]}; !slices.Equal(d.Proofs, want) { // the second trial has failed, and took both
		t.Errorf("%+v, want %+v", d.Proofs, want)
	}
	d.Trials[1].Error, d.Trials[1].OpenedBy = "", []string{lost}
	d.Trials[0].OpenedBy = []string{operating, recovery} // neither alone
	d.Prove(before, never)
	if want := []Proof{old, before[1], {Key: lost, Drill: d.ID, StateTime: d.Trials[1].StateTime}}; !slices.Equal(d.Proofs, want) {
		t.Errorf("%+v, want %+v", d.Proofs, want)
	}
	newer := []Proof{{Key: lost, Drill: old.Drill, StateTime: d.Created.Add(time.Hour)}}
	if d.Prove(newer, never); !slices.Equal(d.Proofs, newer) {
		t.Errorf("%+v, want %+v", d.Proofs, newer)
	}
	if _, err := d.Encode(); err != nil {
		t.Error(err)
	}
	past := Proof{Key: lost, Drill: old.Drill, StateTime: old.StateTime}
	d.Prove(append(newer, past), func(at time.Time) bool { return at.After(old.StateTime) })
	if want := []Proof{past}; !slices.Equal(d.Proofs, want) {
		t.Errorf("%+v, want %+v: the rest is still to come", d.Proofs, want)
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
		"another format":          func(d *Drill) { d.Format = 4 },
		"no id":                   func(d *Drill) { d.ID = "x" },
		"no owner":                func(d *Drill) { d.Owner = "" },
		"no aim":                  func(d *Drill) { d.Trials[0].Aim = "" },
		"aim of several lines":    func(d *Drill) { d.Trials[0].Aim = "a\nb" },
		"states are null":         func(d *Drill) { d.Trials[0].States = nil },
		"no id of a backup":       func(d *Drill) { d.Trials[0].Backup = "x" },
		"proved at no time":       func(d *Drill) { d.Trials[0].StateTime = time.Time{} },
		"failed and proved":       func(d *Drill) { d.Trials[0].Error = "x" },
		"negative":                func(d *Drill) { d.Trials[0].Bytes = -1 },
		"no ids of keys":          func(d *Drill) { d.Trials[0].OpenedBy = []string{"AGE-SECRET-KEY-1"} },
		"keys are not in order":   func(d *Drill) { k := d.Trials[1].OpenedBy; k[0], k[1] = k[1], k[0] },
		"proof of no key":         func(d *Drill) { d.Proofs[0].Key = "x" },
		"proof of no drill":       func(d *Drill) { d.Proofs[0].Drill = "x" },
		"proof of no time":        func(d *Drill) { d.Proofs[0].StateTime = time.Time{} },
		"a key is proved twice":   func(d *Drill) { d.Proofs[1].Key = d.Proofs[0].Key },
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
