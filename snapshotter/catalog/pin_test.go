package catalog_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/faults"
)

// Who holds a backup again and again holds it for as long as if it was for the first
// time, with one pin; what others hold stays.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := checked(t)
		m, other := manifest(us, 1), manifest(us, 2)
		publish(t, b, m, other)
		hold := func(owner string) {
			t.Helper()
			if err := catalog.Hold(t.Context(), b, m, owner); err != nil {
				t.Fatal(err)
			}
		}
		if err := catalog.Hold(t.Context(), b, other, "a"); err != nil {
			t.Fatal(err)
		}
		hold("b")
		for range 10 {
			time.Sleep(catalog.PinFor / 2)
			hold("a")
		}
		pins, err := catalog.Pins(t.Context(), b, us)
		if err != nil || len(pins) != 3 {
			t.Fatalf("%+v, %v", pins, err)
		}
		for _, p := range pins {
			if holds := p.Owner == "a" && p.Backup == m.ID; p.Holds(time.Now().Add(catalog.PinFor-time.Second)) != holds {
				t.Errorf("%+v", p)
			}
		}
		if err := catalog.Release(t.Context(), b, us, m.ID, "a"); err != nil {
			t.Fatal(err)
		}
		if pins, err := catalog.Pins(t.Context(), b, us); err != nil || len(pins) != 2 || pins[0].Owner == "a" && pins[0].Backup == m.ID {
			t.Errorf("after it: %+v, %v", pins, err)
		}
	})
}

// What was held before stays until it is held anew, and what cannot be removed is no
// reason to fail.
func TestHoldFails(t *testing.T) {
	memory := checked(t)
	m := manifest(us, 1)
	publish(t, memory, m)
	if err := catalog.Hold(t.Context(), memory, m, "a"); err != nil {
		t.Fatal(err)
	}
	for op, fails := range map[string]bool{objstore.OpList: true, objstore.OpCreate: true, objstore.OpDelete: false} {
		b := faults.New(memory, faults.Rule{Ops: []string{op}, Name: "*/pins/*", Effect: faults.Deny})
		if err := catalog.Hold(t.Context(), b, m, "a"); (err != nil) != fails || err != nil && !errors.Is(err, objstore.ErrAccess) {
			t.Errorf("%s: %v", op, err)
		}
		if pins, err := catalog.Pins(t.Context(), memory, us); err != nil || len(pins) == 0 {
			t.Errorf("%s: %+v, %v", op, pins, err)
		}
	}
	gone := manifest(us, 5)
	if err := catalog.Hold(t.Context(), memory, gone, "a"); err != nil && events.KindOf(err) != events.KindNotFound {
		t.Errorf("a backup that there is not: %v", err)
	}
}

// Of a pin that was torn nothing is left. If it cannot be taken away it holds, since nobody knows
// until when, for as long as nobody deletes it.
func TestTornPin(t *testing.T) {
	memory := checked(t)
	m := manifest(us, 1)
	publish(t, memory, m)
	tears := faults.Rule{Ops: []string{objstore.OpCreate}, Name: "*/pins/*", Effect: faults.Torn}
	for _, stays := range []bool{false, true} {
		b := faults.New(memory, tears)
		if stays {
			b.SetRules(tears, faults.Rule{Ops: []string{objstore.OpDelete}, Effect: faults.FailBefore})
		}
		if _, err := catalog.Pin(t.Context(), b, m, "a"); !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("it stays: %t: %v", stays, err)
		}
		pins, err := catalog.Pins(t.Context(), memory, us)
		if err != nil || (len(pins) == 1) != stays {
			t.Fatalf("it stays: %t: %+v, %v", stays, pins, err)
		}
		for _, p := range pins {
			if p.Backup != m.ID || !p.Holds(time.Now().Add(100*catalog.PinFor)) {
				t.Errorf("%+v", p)
			}
		}
	}
}
