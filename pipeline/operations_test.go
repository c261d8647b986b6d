package pipeline_test

import (
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/config"
)

// threeWith is three with a merge rule for the stream session.
func threeWith(t *testing.T, rule string, test func(a, b, c *region)) {
	t.Helper()
	simulate(t, func(w *world) {
		for _, r := range w.regions {
			r.cfg.Streams["session"] = config.Stream{Topic: "session", Merge: rule}
			r.start()
		}
		test(w.regions[0], w.regions[1], w.regions[2])
	}, us, eu, west)
}

// do writes an event of a type.
func (r *region) do(typ, key, value string, context *events.Vector) (*api.PutResult, error) {
	return r.Put(r.w.Context(), api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value), Type: typ, Context: context})
}

// must is do that is acknowledged.
func (r *region) must(typ, key, value string, context *events.Vector) events.Vector {
	r.w.Helper()
	res, err := r.do(typ, key, value, context)
	if err != nil {
		r.w.Fatalf("%s: %s %s: %v", r.cfg.Region, typ, key, err)
	}
	return res.AtLeast
}

// Values of writers who did not know of each other stand side by side everywhere,
// until somebody who has read all of them resolves it; one who had read only some
// leaves the others.
func TestSiblingsAreResolved(t *testing.T) {
	threeWith(t, "multivalue", func(a, b, c *region) {
		nothing := &events.Vector{}
		cut := a.must("", "k", "a", nothing).Join(b.must("", "k", "b", nothing))
		two := c.get("k", cut)
		if len(two.Siblings) != 2 {
			t.Fatalf("%d values: %+v", len(two.Siblings), two.Siblings)
		}
		seen := two.Context // of a and b
		cut = cut.Join(c.must("", "k", "c", nothing))
		for _, r := range []*region{a, b, c} {
			e := r.get("k", cut)
			if len(e.Siblings) != 3 {
				t.Fatalf("%s: %d values: %+v", r.cfg.Region, len(e.Siblings), e.Siblings)
			}
			for i, want := range []string{"b", "a", "c"} { // by position
				if s := e.Siblings[i]; string(s.Value) != want || s.Position.Origin.IsZero() || s.Clock == 0 {
					t.Errorf("%s: value %d is %+v", r.cfg.Region, i, s)
				}
			}
		}
		_, err := c.do(events.TypeResolve, "k", "settled", nil)
		wantKind(t, err, events.KindInvalid, "context")
		cut = cut.Join(b.must(events.TypeResolve, "k", "half", &seen))
		e := a.get("k", cut)
		if len(e.Siblings) != 2 || string(e.Siblings[0].Value) != "half" || string(e.Siblings[1].Value) != "c" {
			t.Errorf("half resolved: %+v", e.Siblings)
		}
		cut = cut.Join(a.must(events.TypeResolve, "k", "settled", &e.Context))
		for _, r := range []*region{a, b, c} {
			if e := r.get("k", cut); len(e.Siblings) != 0 || string(e.Value) != "settled" {
				t.Errorf("%s: %s, %+v", r.cfg.Region, e.Value, e.Siblings)
			}
		}
		// Those who say nothing know what their region has.
		cut = cut.Join(c.must("", "k", "next", nil))
		if e := b.get("k", cut); len(e.Siblings) != 0 || string(e.Value) != "next" {
			t.Errorf("a blind write: %s, %+v", e.Value, e.Siblings)
		}
	})
}

// Patches of different regions do not undo each other.
func TestPatches(t *testing.T) {
	threeWith(t, "fieldmap", func(a, b, c *region) {
		nothing := &events.Vector{}
		cut := events.Vector{}
		for _, r := range []*region{a, b, c} {
			cut = cut.Join(r.must(events.TypePatch, "k", `{"set":{"at-`+r.cfg.Region.String()+`":true},"increment":{"n":2}}`, nothing))
		}
		want := `{"at-eu-central-1":true,"at-us-east-1":true,"at-us-west-1":true,"n":6}`
		for _, r := range []*region{a, b, c} {
			if e := r.get("k", cut); string(e.Value) != want {
				t.Errorf("%s: %s, want %s", r.cfg.Region, e.Value, want)
			}
		}
	})
}

// A region that counts on after another one has reset a counter brings back nothing of
// what it had counted before, once it knows of the reset.
func TestIncrementAfterReset(t *testing.T) {
	long(t)
	threeWith(t, "fieldmap", func(a, b, c *region) {
		cut := a.must(events.TypePatch, "k", `{"increment":{"n":5},"set":{"kept":1}}`, nil)
		cut = cut.Join(a.must(events.TypePatch, "other", `{"increment":{"n":1}}`, nil))
		read := b.get("k", cut)
		cut = cut.Join(b.must("", "k", `{"put":true}`, &read.Context))
		c.get("k", cut)
		cut = cut.Join(c.must(events.TypePatch, "k", `{"increment":{"n":10}}`, nil))
		a.get("k", cut)
		cut = cut.Join(a.must(events.TypePatch, "k", `{"increment":{"n":1}}`, nil))
		cut = cut.Join(a.must(events.TypePatch, "k", `{"increment":{"n":1}}`, nil))
		for _, r := range []*region{a, b, c} {
			if e := r.get("k", cut); string(e.Value) != `{"n":12,"put":true}` {
				t.Errorf("%s: %s", r.cfg.Region, e.Value)
			}
			if e := r.get("other", cut); string(e.Value) != `{"n":1}` {
				t.Errorf("%s: another key: %s", r.cfg.Region, e.Value)
			}
		}
	})
}

// What the stream's rule has no meaning for is refused rather than parked in every
// region.
func TestOperationsRefused(t *testing.T) {
	long(t)
	for rule, bad := range map[string][]string{
		"lww":        {events.TypePatch, events.TypeAppend},
		"multivalue": {events.TypePatch, events.TypeAppend},
		"append":     {events.TypePatch},
		"fieldmap":   {events.TypeAppend},
	} {
		threeWith(t, rule, func(a, _, _ *region) {
			for _, typ := range bad {
				_, err := a.do(typ, "k", "{}", nil)
				wantKind(t, err, events.KindInvalid, "merge rule "+rule)
			}
			if rule == "fieldmap" {
				_, err := a.do(events.TypePatch, "k", `{"set":`, nil)
				wantKind(t, err, events.KindInvalid, "merge rule fieldmap")
			}
			_, err := a.Put(a.w.Context(), api.PutParams{Stream: "session", Key: []byte("k"), Value: []byte("why"), Type: events.TypeDelete})
			wantKind(t, err, events.KindInvalid, "delete")
			if n := a.status().Parked; api.Known(n) != 0 {
				t.Errorf("%s: %d are parked", rule, api.Known(n))
			}
		})
	}
}
