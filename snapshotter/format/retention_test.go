package format

import (
	"bytes"
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

var (
	early  = NewID(time.UnixMilli(1_000), [4]byte{1})
	middle = NewID(time.UnixMilli(2_000), [4]byte{2})
	late   = NewID(time.UnixMilli(3_000), [4]byte{3})
)

func sampleFloor() *Floor {
	return &Floor{Format: 1, Region: "us", Number: 3, Below: middle, Created: time.UnixMilli(5).UTC(), Software: "s", Owner: "o"}
}

func samplePlan() *Plan {
	return &Plan{
		Format: 1, Region: "us", Number: 3, Below: middle, Created: time.UnixMilli(5).UTC(), Software: "s", Owner: "o",
		Keep: []string{middle}, Delete: []string{early},
	}
}

func samplePin() *Pin {
	return &Pin{Format: 1, Region: "us", Backup: middle, Owner: "o", Created: time.UnixMilli(5).UTC(), Deadline: time.UnixMilli(6).UTC()}
}

// retentionObject is a sample of what is written, and how that is done and read.
type retentionObject struct {
	encode func() ([]byte, error)
	decode func(b []byte) (any, error)
	want   any
}

func retentionObjects() map[string]retentionObject {
	return map[string]retentionObject{
		"floor": {sampleFloor().Encode, func(b []byte) (any, error) { return DecodeFloor(b) }, sampleFloor()},
		"plan":  {samplePlan().Encode, func(b []byte) (any, error) { return DecodePlan(b) }, samplePlan()},
		"pin":   {samplePin().Encode, func(b []byte) (any, error) { return DecodePin(b) }, samplePin()},
	}
}

// The golden files of this format are what is still written, byte by byte, and are read.
func TestRetentionGolden(t *testing.T) {
	for name, c := range retentionObjects() {
		file := filepath.Join("testdata", fmt.Sprintf("%s-%d.golden", name, retentionVersion))
		text, err := c.encode()
		if err == nil && *update {
			err = addGolden(file, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v; add it with -update", err)
		}
		if !bytes.Equal(golden, text) {
			t.Errorf("the sample of a %s is written as\n%s\nthe golden one is\n%s", name, text, golden)
		}
		if got, err := c.decode(golden); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("the golden %s is read as\n%+v, %v\nwant\n%+v", name, got, err, c.want)
		}
	}
}

// What is written is read as it was; any bit changed and any end lost is damage.
func TestRetentionObjects(t *testing.T) {
	for name, c := range retentionObjects() {
		text, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.decode(text); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for at := range text {
			flipped := bytes.Clone(text)
			flipped[at] ^= 1
			for _, damaged := range [][]byte{flipped, text[:at]} {
				if _, err := c.decode(damaged); events.KindOf(err) != events.KindInconsistent || !strings.Contains(err.Error(), name) {
					t.Fatalf("%s damaged at %d: %v", name, at, err)
				}
			}
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		newer := sealed(bytes.Replace(line, []byte(`"format":1`), []byte(`"format":2`), 1))
		if _, err := c.decode(newer); events.KindOf(err) != events.KindRefused {
			t.Errorf("%s of a newer format: %v", name, err)
		}
	}
}

func TestMalformedRetentionIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(f *Floor, p *Plan, q *Pin){
		"no region":      func(f *Floor, p *Plan, q *Pin) { f.Region, p.Region, q.Region = "", "", "" },
		"no owner":       func(f *Floor, p *Plan, q *Pin) { f.Owner, p.Owner, q.Owner = "", "", "" },
		"no id":          func(f *Floor, p *Plan, q *Pin) { f.Below, p.Below, q.Backup = "x", "x", "x" },
		"another format": func(f *Floor, p *Plan, q *Pin) { f.Format, p.Format, q.Format = 2, 2, 2 },
	} {
		f, p, q := sampleFloor(), samplePlan(), samplePin()
		change(f, p, q)
		_, errF := f.Encode()
		_, errP := p.Encode()
		_, errQ := q.Encode()
		if errF == nil || errP == nil || errQ == nil {
			t.Errorf("%s: %v, %v, %v", name, errF, errP, errQ)
		}
	}
	for name, change := range map[string]func(p *Plan){
		"above the floor": func(p *Plan) { p.Delete = []string{late} },
		"both":            func(p *Plan) { p.Delete = []string{middle} },
		"not in order":    func(p *Plan) { p.Keep, p.Delete = []string{middle, early}, []string{} },
		"twice":           func(p *Plan) { p.Keep = []string{middle, middle} },
		"no list":         func(p *Plan) { p.Keep = nil },
		"number":          func(p *Plan) { p.Number = 0 },
	} {
		p := samplePlan()
		change(p)
		if _, err := p.Encode(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	q := samplePin()
	q.Deadline = q.Created
	if _, err := q.Encode(); err == nil {
		t.Error("a pin that has ended: written")
	}
}

func TestPlanTellsWhatExists(t *testing.T) {
	var none *Plan
	between := NewID(time.UnixMilli(1_500), [4]byte{9})
	for id, want := range map[string]bool{early: false, between: false, middle: true, late: true} {
		if samplePlan().Exists(id) != want || !none.Exists(id) {
			t.Errorf("%s: %t", id, samplePlan().Exists(id))
		}
	}
}

// A delta exists as long as all that it builds on does.
func TestPlanTellsWhichDeltasExist(t *testing.T) {
	var none *Plan
	for _, c := range []struct {
		id      string
		parents []string
		want    bool
	}{
		{late, []string{middle}, true}, {late, []string{early}, false}, {late, []string{early, middle}, false}, {late, nil, true},
		{middle, []string{early}, false}, {early, nil, false},
	} {
		m := &Manifest{ID: c.id, Parents: c.parents}
		if samplePlan().Has(m) != c.want || !none.Has(m) {
			t.Errorf("%s on %q: %t", c.id, c.parents, samplePlan().Has(m))
		}
	}
}

func TestRetentionNames(t *testing.T) {
	for _, n := range []int64{1, 42, 9_999_999_999} {
		if got, ok := ParseFloorName("us", FloorName("us", n)); got != n || !ok {
			t.Errorf("floor %d: %d", n, got)
		}
		if got, ok := ParsePlanName("us", PlanName("us", n)); got != n || !ok {
			t.Errorf("plan %d: %d", n, got)
		}
	}
	if id, ok := ParsePinName("us", PinName("us", early, "0123456789abcdef")); id != early || !ok {
		t.Errorf("pin: %q", id)
	}
	if names := []string{FloorName("us", 10), FloorName("us", 9)}; slices.IsSorted(names) {
		t.Error("names do not sort by number")
	}
	for _, foreign := range []string{"", "us/floors/", "us/floors/1.floor", "us/floors/0000000000.floor", "us/plans/0000000001.floor", "eu/floors/0000000001.floor"} {
		if _, ok := ParseFloorName("us", foreign); ok {
			t.Errorf("%q is taken for a floor", foreign)
		}
	}
	for _, foreign := range []string{"us/pins/" + early, "us/pins/" + early + "/x.pin", "us/pins/x/0123456789abcdef.pin"} {
		if _, ok := ParsePinName("us", foreign); ok {
			t.Errorf("%q is taken for a pin", foreign)
		}
	}
}
