package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

const (
	readPlaces, readQueue = 32, 256

	aGet = `{"jsonrpc":"2.0","id":1,"method":"get","params":{}}`
	aPut = `{"jsonrpc":"2.0","id":1,"method":"put","params":{}}`
)

// admitted counts what a class has.
func admitted(h *api.Handler, class string) api.Admission {
	for _, a := range h.Admissions() {
		if a.Class == class {
			return a
		}
	}
	return api.Admission{}
}

// until spins until a condition holds that calls under way bring about.
func until(t *testing.T, condition func() bool) {
	t.Helper()
	for !condition() {
		if t.Context().Err() != nil {
			t.Fatal("it does not come")
		}
		runtime.Gosched()
	}
}

// Of a crowd of reads so many are worked on, so many wait, and every other one is
// told at once to come again; writes and questions about the node are not touched by
// it. Those who were let in are answered, each once.
func TestTurnedAway(t *testing.T) {
	const more = 50
	goOn := make(chan bool)
	var worked atomic.Int64
	s := serve(t, &fakeNode{do: func(_ context.Context, method string, _ any) (any, error) {
		switch method {
		case "get":
			worked.Add(1)
			<-goOn
			return &sampleEntry, nil
		case "put":
			return &api.PutResult{Position: sampleLog.At(1), AtLeast: sampleVector}, nil
		}
		return &api.Status{}, nil
	}})
	var callers sync.WaitGroup
	answered := make(chan int, readPlaces+readQueue)
	for range readPlaces + readQueue {
		callers.Go(func() {
			status, _ := s.post(aGet)
			answered <- status
		})
	}
	until(t, func() bool {
		a := admitted(s.handler, "reads")
		return a.Running == readPlaces && a.Waiting == readQueue
	})
	for range more {
		status, answer := s.post(aGet)
		if status != http.StatusTooManyRequests || !strings.Contains(answer, "-32029") || !strings.Contains(answer, "288 reads") {
			t.Fatalf("one too many: HTTP %d: %s", status, answer)
		}
	}
	if status, answer := s.post("[" + aGet + "," + aPut + "]"); status != 200 || !strings.Contains(answer, "-32029") || !strings.Contains(answer, "result") {
		t.Errorf("a batch: HTTP %d: %s", status, answer)
	}
	if _, err := s.Put(t.Context(), api.PutParams{}); err != nil {
		t.Errorf("a write: %v", err)
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("status: %v", err)
	}
	if a := admitted(s.handler, "reads"); a.TurnedAway != more+1 || worked.Load() != readPlaces {
		t.Errorf("%+v, %d were worked on", a, worked.Load())
	}
	close(goOn)
	callers.Wait()
	for range readPlaces + readQueue {
		if status := <-answered; status != 200 {
			t.Errorf("one that was let in: HTTP %d", status)
		}
	}
	if a := admitted(s.handler, "reads"); a.Running+a.Waiting != 0 || worked.Load() != readPlaces+readQueue {
		t.Errorf("in the end: %+v, %d were worked on", a, worked.Load())
	}
}

// Reads that wait for a state leave their places to those that do not.
func TestWaitingReadsMakeRoom(t *testing.T) {
	const waiting = readPlaces + readQueue + 100 // more than there is room for otherwise
	goOn := make(chan bool)
	s := serve(t, &fakeNode{do: func(ctx context.Context, _ string, p any) (any, error) {
		if len(p.(api.GetParams).AtLeast) > 0 {
			err := api.Aside(ctx, func() error {
				<-goOn
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		return &sampleEntry, nil
	}})
	var callers sync.WaitGroup
	for range waiting {
		callers.Go(func() {
			if _, err := s.Get(t.Context(), api.GetParams{Freshness: sampleFreshness}); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, func() bool { return admitted(s.handler, "reads that wait").Running == waiting })
	if _, err := s.Get(t.Context(), api.GetParams{}); err != nil {
		t.Errorf("one that does not wait: %v", err)
	}
	close(goOn)
	callers.Wait()
	for _, a := range s.handler.Admissions() {
		if a.Running+a.Waiting != 0 {
			t.Errorf("in the end: %+v", a)
		}
	}
}

// Bodies have a bounded memory, which comes back when a call is answered, refused or
// abandoned. Small requests are always taken.
func TestBodiesAreBounded(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	s := serve(t, &fakeNode{do: func(_ context.Context, method string, p any) (any, error) {
		if method == "put" && len(p.(api.PutParams).Value) > 5_000 {
			begun <- true
			<-goOn
		}
		if method == "status" {
			return &api.Status{}, nil
		}
		return &api.PutResult{Position: sampleLog.At(1), AtLeast: sampleVector}, nil
	}})
	s.handler.SetBodyBytes(30_000)
	large := `{"jsonrpc":"2.0","id":1,"method":"put","params":{"value":"` + strings.Repeat("v", 9_000) + `"}}`
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			if status, answer := s.post(large); status != 200 {
				t.Errorf("HTTP %d: %s", status, answer)
			}
		})
		<-begun
	}
	for range 5 {
		if status, answer := s.post(large); status != http.StatusTooManyRequests || !strings.Contains(answer, "large requests") {
			t.Errorf("one too many: HTTP %d: %s", status, answer)
		}
	}
	if _, err := s.Put(t.Context(), api.PutParams{Value: api.Bytes("small")}); err != nil {
		t.Errorf("a small one: %v", err)
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("status: %v", err)
	}
	close(goOn)
	callers.Wait()
	for range 10 { // those that are refused give their memory back too
		if status, _ := s.post(large + "{"); status != 200 {
			t.Errorf("HTTP %d", status)
		}
		if status, _ := s.send(http.MethodPost, "/rpc", "text/plain", strings.NewReader(large)); status != http.StatusUnsupportedMediaType {
			t.Errorf("HTTP %d", status)
		}
		if status, _ := s.post(strings.Repeat("v", maxBody+1)); status != http.StatusTooManyRequests {
			t.Errorf("larger than all there is: HTTP %d", status)
		}
	}
}

// The client tries again what was turned away, as often as it says and no oftener,
// and nothing else.
func TestClientTriesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		busy, status, tries int
		kind                events.Kind
	}{
		"at once":            {0, 200, 1, 0},
		"after a while":      {3, 200, 4, 0},
		"never":              {99, 200, 4, events.KindNotReady},
		"something else":     {0, 503, 1, events.KindNotReady},
		"then another fault": {1, 500, 2, events.KindFailed},
	} {
		t.Run(name, func(t *testing.T) {
			var tries atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if n := tries.Add(1); int(n) <= c.busy {
					w.Header().Set("Retry-After", "0")
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusTooManyRequests)
					_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":-32029,"message":"too much"}}`))
					return
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":1,"result":{}}`))
			}))
			defer server.Close()
			_, err := newClient(t, server.URL).Status(t.Context())
			if events.KindOf(err) != c.kind || int(tries.Load()) != c.tries {
				t.Errorf("%v after %d tries", err, tries.Load())
			}
		})
	}
	t.Run("one who has gone", func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1000000000")
			w.WriteHeader(http.StatusTooManyRequests)
			leave()
		}))
		defer server.Close()
		if _, err := newClient(t, server.URL).Status(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
