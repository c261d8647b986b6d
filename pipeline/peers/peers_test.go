package peers_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/peers"
)

// A node is asked by one client, however often, and one that cannot be reached is named.
func TestAt(t *testing.T) {
	p := peers.New("a", nil)
	defer p.Close()
	first, err := p.At("b", "http://127.0.0.1:7400")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.At("b", "http://127.0.0.1:7400"); again != first || err != nil {
		t.Errorf("another client: %v", err)
	}
	if _, err := p.At("c", ""); events.KindOf(err) != events.KindNotReady || !strings.Contains(err.Error(), "node c") {
		t.Errorf("%v", err)
	}
}

// What is not ready is tried again for as long as a shard takes to move; what is wrong is not.
func TestWhileMoving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notReady := events.Errorf(events.KindNotReady, "it is moving")
		begun, tries := time.Now(), 0
		if err := peers.WhileMoving(t.Context(), func() error { tries++; return notReady }); err != notReady || tries < 20 || time.Since(begun) > 4*time.Second {
			t.Errorf("%v after %d tries in %s", err, tries, time.Since(begun))
		}
		tries = 0
		if err := peers.WhileMoving(t.Context(), func() error { tries++; return io.EOF }); err != io.EOF || tries != 1 {
			t.Errorf("%v after %d tries", err, tries)
		}
		ctx, cancel := context.WithCancel(t.Context())
		tries = 0
		if err := peers.WhileMoving(ctx, func() error { tries++; cancel(); return notReady }); err != notReady || tries != 1 {
			t.Errorf("nobody waits any more: %v after %d tries", err, tries)
		}
		tries = 0
		err := peers.WhileMoving(t.Context(), func() error {
			if tries++; tries < 3 {
				return notReady
			}
			return nil
		})
		if err != nil || tries != 3 {
			t.Errorf("%v after %d tries", err, tries)
		}
	})
}
