package pipeline_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// While Kafka takes nothing, what waits for it has a bounded memory: then writers
// are turned away before anything is done, and are taken again when it is back.
func TestWritersAreTurnedAway(t *testing.T) {
	long(t)
	one(t, func(r *region) {
		r.start()
		goOn := r.holdWrites()
		load := func(source string, n int) error {
			p := api.LoadParams{Stream: "session", Source: source}
			for i := range n {
				p.Events = append(p.Events, api.LoadEvent{ID: fmt.Sprint(i), Key: api.Bytes(fmt.Sprint(source, i)), Value: noise(900_000)})
			}
			_, err := r.Load(r.w.Context(), p)
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- load("large", 80) }() // more than there is memory for
		synctest.Wait()
		begun := time.Now()
		for range 10 {
			_, err := r.putAfter("k", string(noise(900_000)), nil)
			wantKind(t, err, events.KindNotReady, "nothing was written", "64 MiB")
			if !errors.Is(err, api.ErrBusy) {
				t.Errorf("%v", err)
			}
			err = load("other", 1)
			wantKind(t, err, events.KindNotReady, "nothing was written")
			if !errors.Is(err, api.ErrBusy) {
				t.Errorf("%v", err)
			}
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("turning away took %s", took)
		}
		goOn()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		r.put("k", "v")
		if err := load("other", 1); err != nil {
			t.Error(err)
		}
		r.has("large79", string(noise(900_000)))
		r.has("other0", string(noise(900_000)))
		r.eventsFolded(82)
	})
}
