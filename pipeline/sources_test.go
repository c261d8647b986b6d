package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// However many sources there are, few turns are remembered; those of sources in
// use always are.
func TestSourcesAreBounded(t *testing.T) {
	var s sources
	used, unlock, err := s.lock(t.Context(), "used")
	if err != nil {
		t.Fatal(err)
	}
	turn := used.newTurn()
	for i := range 3 * maxSources {
		src, unlock, err := s.lock(t.Context(), fmt.Sprint("other-", i))
		if err != nil {
			t.Fatal(err)
		}
		src.newTurn()
		unlock()
	}
	if n := len(s.byID); n > maxSources {
		t.Errorf("%d sources are remembered", n)
	}
	unlock()
	if again, unlock, err := s.lock(t.Context(), "used"); err != nil || again != used || again.turn != turn {
		t.Errorf("a source in use was forgotten: %v", err)
	} else {
		unlock()
	}
}

// One works on a source at a time; who gives up waiting is in nobody's way.
func TestSourceLock(t *testing.T) {
	var s sources
	var workers sync.WaitGroup
	working := 0 // guarded by the lock, which the race detector sees
	for range 8 {
		workers.Go(func() {
			for range 200 {
				_, unlock, err := s.lock(t.Context(), "s")
				if err != nil {
					t.Error(err)
					return
				}
				if working++; working != 1 {
					t.Errorf("%d at one time", working)
				}
				working--
				unlock()
			}
		})
	}
	workers.Wait()
	_, unlock, err := s.lock(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if _, _, err := s.lock(ctx, "s"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if src := s.byID["s"]; src.users != 1 {
		t.Errorf("%d users, want 1", src.users)
	}
	unlock()
}
