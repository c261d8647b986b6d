package api_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// A call that panics is answered and logged; the node and the other calls go on.
func TestPanic(t *testing.T) {
	s := serve(t, &fakeNode{do: func(_ context.Context, method string, _ any) (any, error) {
		if method == "get" {
			panic("nil map")
		}
		return &api.Status{}, nil
	}})
	_, err := s.Get(t.Context(), api.GetParams{Stream: "s", Key: api.Bytes("k")})
	wantKind(t, err, events.KindFailed, "get", "log")
	if status, answer := s.post(`[{"jsonrpc":"2.0","id":1,"method":"get"},` + aStatus + `]`); status != 200 ||
		!strings.Contains(answer, "-32603") || !strings.Contains(answer, "result") {
		t.Errorf("HTTP %d: %s", status, answer)
	}
	if log := s.log.String(); !strings.Contains(log, "nil map") || !strings.Contains(log, "life_test.go") {
		t.Errorf("the log does not say what and where: %s", log)
	}
}

// When the caller goes away, the call's context ends.
func TestCallerGoesAway(t *testing.T) {
	begun, ended := make(chan bool), make(chan error)
	s := serve(t, &fakeNode{do: func(ctx context.Context, _ string, _ any) (any, error) {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-begun
		leave()
	}()
	_, err := s.Lag(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the node got %v", err)
	}
}

// Close ends the calls under way and waits for them; later ones are refused.
func TestCloseEndsCalls(t *testing.T) {
	const calls = 5
	begun, ended := make(chan bool, calls), make(chan bool, calls)
	s := serve(t, &fakeNode{do: func(ctx context.Context, _ string, _ any) (any, error) {
		begun <- true
		<-ctx.Done()
		ended <- true
		return nil, ctx.Err()
	}})
	var callers sync.WaitGroup
	for range calls {
		callers.Go(func() {
			_, err := s.Lag(t.Context())
			wantKind(t, err, events.KindNotReady)
		})
	}
	for range calls {
		<-begun
	}
	if err := s.handler.Close(); err != nil {
		t.Error(err)
	}
	if len(ended) != calls {
		t.Errorf("Close returned while %d of %d calls were under way", calls-len(ended), calls)
	}
	callers.Wait()
	_, err := s.Lag(t.Context())
	wantKind(t, err, events.KindNotReady, "stop")
	if err := s.handler.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// However many calls hang, the node says how it is, and those that gave up
// make room.
func TestHangingCalls(t *testing.T) {
	const calls = 100 // more than are worked on at one time
	begun := make(chan bool, calls)
	s := serve(t, &fakeNode{do: func(ctx context.Context, method string, _ any) (any, error) {
		switch method {
		case "put":
			begun <- true
			<-ctx.Done()
			return nil, ctx.Err()
		case "get":
			return &sampleEntry, nil
		}
		return &api.Status{}, nil
	}})
	ctx, leave := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range calls {
		callers.Go(func() {
			if _, err := s.Put(ctx, api.PutParams{}); !errors.Is(err, context.Canceled) {
				t.Errorf("put: %v", err)
			}
		})
	}
	<-begun
	if _, err := s.Status(t.Context()); err != nil {
		t.Error(err)
	}
	leave()
	callers.Wait()
	if _, err := s.Get(t.Context(), api.GetParams{}); err != nil {
		t.Error(err)
	}
}

// No more than a few calls are worked on at one time.
func TestCallsAreBounded(t *testing.T) {
	const calls, bound = 100, 32
	var mu sync.Mutex
	now, most := 0, 0
	entered, goOn := make(chan bool, calls), make(chan bool)
	s := serve(t, &fakeNode{do: func(context.Context, string, any) (any, error) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		entered <- true
		<-goOn
		mu.Lock()
		now--
		mu.Unlock()
		return &sampleEntry, nil
	}})
	var callers sync.WaitGroup
	for range calls {
		callers.Go(func() {
			if _, err := s.Get(t.Context(), api.GetParams{}); err != nil {
				t.Error(err)
			}
		})
	}
	for range bound {
		<-entered
	}
	close(goOn)
	callers.Wait()
	if most != bound {
		t.Errorf("%d calls at one time, want %d", most, bound)
	}
}
