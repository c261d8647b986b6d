package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// getAtLeast reads a key of a state that covers a cut.
func (r *region) getAtLeast(key string, cut events.Vector, seconds float64) (*api.Entry, error) {
	return r.Get(r.w.Context(), api.GetParams{
		Stream: "session", Key: []byte(key), Freshness: api.Freshness{AtLeast: cut, TimeoutSeconds: seconds},
	})
}

// Whatever a region has acknowledged can be read in every region by those who say
// what they have written, without asking twice.
func TestReadYourWrites(t *testing.T) {
	long(t)
	three(t, func(a, b, c *region) {
		at := events.Vector{}
		for i := range 30 {
			writer, reader := []*region{a, b, c}[i%3], []*region{a, b, c}[(i/3)%3]
			key, value := fmt.Sprint("k", i%5), fmt.Sprint("v", i)
			res, err := writer.putAfter(key, value, nil)
			if err != nil {
				t.Fatal(err)
			}
			at = at.Join(res.AtLeast)
			if e := reader.get(key, at); string(e.Value) != value {
				t.Errorf("%s reads %q of %s, %s has written %q", reader.cfg.Region, e.Value, key, writer.cfg.Region, value)
			}
			page, err := reader.Scan(reader.w.Context(), api.ScanParams{Stream: "session", Freshness: api.Freshness{AtLeast: at}})
			if err != nil || page.Context.Join(at).Compare(page.Context) != events.Equal {
				t.Errorf("scan at least %s: %v, at %s", at, err, page.Context)
			}
		}
	})
}

// A read waits as long as it takes, and is answered at once when a mirror that was
// cut off comes in.
func TestReadWaits(t *testing.T) {
	two(t, func(a, b *region) {
		a.start()
		b.start()
		a.put("k", "v0")
		b.has("k", "v0")
		b.down()
		res, err := a.putAfter("k", "v1", nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err = b.getAtLeast("k", res.AtLeast, 2)
		wantKind(t, err, events.KindNotReady, "eu-central-1 is behind", res.Position.Log.String(), "up to offset 1, 1 short of 2", "waited for 2s")
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
		_, err = b.getAtLeast("k", res.AtLeast, 0)
		wantKind(t, err, events.KindNotReady, "waited for 10s")
		var reading sync.WaitGroup
		for range 5 {
			reading.Go(func() {
				if e, err := b.getAtLeast("k", res.AtLeast, 60); err != nil || string(e.Value) != "v1" {
					t.Errorf("%v", err)
				}
			})
		}
		ctx, leave := context.WithCancel(b.w.Context())
		reading.Go(func() {
			_, err := b.Get(ctx, api.GetParams{Stream: "session", Key: []byte("k"), Freshness: api.Freshness{AtLeast: res.AtLeast}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("one who has left: %v", err)
			}
		})
		synctest.Wait()
		leave()
		b.up()
		reading.Wait()
	})
}

// What can never come is refused at once.
func TestReadRefusedCuts(t *testing.T) {
	one(t, func(r *region) {
		r.start()
		r.put("k", "v")
		r.has("k", "v")
		cut := func(text string) events.Vector {
			v, err := events.ParseVector(text)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		begun := time.Now()
		for _, text := range []string{"mars/session/0@1", "us-east-1/nothing/0@1", "us-east-1/session/3@1", "us-east-1/session/1048575@1", "us-east-1_2/session/0@1"} {
			_, err := r.getAtLeast("k", cut(text), 5)
			wantKind(t, err, events.KindInvalid, text, "no such log")
		}
		for _, seconds := range []float64{-1, 60.001} {
			_, err := r.getAtLeast("k", cut("us-east-1/session/0@1"), seconds)
			wantKind(t, err, events.KindInvalid, "timeout", "60")
		}
		if time.Since(begun) != 0 {
			t.Errorf("took %s", time.Since(begun))
		}
		// Nothing is waited for: what is there is read.
		if _, err := r.getAtLeast("k", events.Vector{}, 0); err != nil {
			t.Error(err)
		}
	})
}
