package api

import (
	"context"
	"testing"
	"testing/synctest"
)

// A call that waits in several goroutines at the same time has one place behind it, as before.
func TestAsideInSeveralGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const goroutines = 3
		class, waits := newClass("calls", 1, goroutines), newClass("waits", goroutines, goroutines)
		var full []func()
		for range goroutines {
			leave, err := waits.enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			full = append(full, leave)
		}
		p := &place{of: class, waits: waits}
		if err := p.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), placeKey{}, p))
		defer cancel()
		goOn, back := make(chan bool), make(chan error, goroutines)
		for range goroutines {
			go func() {
				back <- Aside(ctx, func() error {
					<-goOn
					return nil
				})
			}()
		}
		synctest.Wait() // each of them has seen that the call has a place
		for _, leave := range full {
			leave()
		}
		synctest.Wait()
		if n := len(class.places); n != 0 {
			t.Errorf("%d places are taken while all wait", n)
		}
		close(goOn)
		synctest.Wait()
		if n := len(back); n != goroutines || len(class.places) != 1 {
			t.Errorf("%d are back, with %d places", n, len(class.places))
		}
		cancel() // whoever still waits for a place
		p.give()
		if n := len(class.places); n != 0 {
			t.Errorf("%d places are left", n)
		}
	})
}
