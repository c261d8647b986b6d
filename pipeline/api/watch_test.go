package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// What is asked of a watch and what it gives survive the way, whatever bytes are in
// it; the last line says why it ended.
func TestWatchRoundTrips(t *testing.T) {
	changes := []api.Change{
		{Context: &events.Vector{}},
		{Key: api.Bytes("k\xff"), Entry: &sampleEntry},
		{Key: api.Bytes("gone"), Deleted: true, Context: &sampleVector},
	}
	for _, want := range []api.WatchParams{
		{Stream: "session"},
		{Stream: "session", Key: api.Bytes("k\x00\xff&=+ %")},
		{Stream: "session", Prefix: api.Bytes("\xff"), From: &events.Vector{}},
		{Stream: "session", From: &sampleVector, Partitions: []int32{0, 7}},
	} {
		s := serve(t, &fakeNode{watch: func(_ context.Context, p api.WatchParams, emit func(api.Change) error) error {
			if !reflect.DeepEqual(p, want) {
				t.Errorf("asked for %+v, want %+v", p, want)
			}
			for _, c := range changes {
				if err := emit(c); err != nil {
					return err
				}
			}
			return events.Errorf(events.KindRefused, "enough, %d%%", 5)
		}})
		var got []api.Change
		var end error
		for c, err := range s.Watch(t.Context(), want) {
			if end = err; err == nil {
				got = append(got, c)
			}
		}
		if !reflect.DeepEqual(got, changes) {
			t.Errorf("got  %+v\nwant %+v", got, changes)
		}
		wantKind(t, end, events.KindRefused, "enough, 5%")
	}
}

// A watch that does not begin is refused with a status and a line that say why.
func TestWatchRefused(t *testing.T) {
	for kind, status := range map[events.Kind]int{
		events.KindInvalid: 400, events.KindNotFound: 404, events.KindRefused: 403, events.KindNotReady: 503, events.KindFailed: 500,
	} {
		s := serve(t, &fakeNode{watch: func(context.Context, api.WatchParams, func(api.Change) error) error {
			return events.Errorf(kind, "no")
		}})
		got, line := s.send(http.MethodGet, "/watch?stream=s", "", nil)
		if got != status || !strings.Contains(line, `"message":"no"`) {
			t.Errorf("%s: HTTP %d: %s", kind, got, line)
		}
		for _, err := range s.Watch(t.Context(), api.WatchParams{Stream: "s"}) {
			wantKind(t, err, kind, "no")
		}
	}
	s := serve(t, &fakeNode{})
	for query, part := range map[string]string{
		"stream=s&from=x":          "from",
		"stream=s&stream=t":        "2 times",
		"stream=s&limit=1":         "limit",
		"stream=s&partition=three": "three",
	} {
		if status, line := s.send(http.MethodGet, "/watch?"+query, "", nil); status != 400 || !strings.Contains(line, part) {
			t.Errorf("%s: HTTP %d: %s", query, status, line)
		}
	}
	if status, _ := s.send(http.MethodPost, "/watch?stream=s", "", nil); status != http.StatusMethodNotAllowed {
		t.Errorf("POST: HTTP %d", status)
	}
}

// Watches end with the caller, with the node, and with a panic; the others go on.
func TestWatchEnds(t *testing.T) {
	begun, ended := make(chan bool), make(chan error, 3)
	s := serve(t, &fakeNode{watch: func(ctx context.Context, p api.WatchParams, emit func(api.Change) error) error {
		if p.Stream == "panic" {
			panic("nil map")
		}
		if err := emit(api.Change{Context: &sampleVector}); err != nil {
			return err
		}
		begun <- true
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}})
	for _, err := range s.Watch(t.Context(), api.WatchParams{Stream: "panic"}) {
		wantKind(t, err, events.KindFailed, "log says more")
	}
	var watching sync.WaitGroup
	watch := func(ctx context.Context, check func(err error)) {
		watching.Go(func() {
			for _, err := range s.Watch(ctx, api.WatchParams{Stream: "s"}) {
				if err != nil {
					check(err)
				}
			}
		})
		<-begun
	}
	ctx, leave := context.WithCancel(t.Context())
	watch(ctx, func(err error) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("one who has left: %v", err)
		}
	})
	watch(t.Context(), func(err error) { wantKind(t, err, events.KindNotReady, "stopping", "go on") })
	leave()
	<-ended
	s.handler.EndWatches()
	<-ended
	watching.Wait()
	if !strings.Contains(s.log.String(), "nil map") {
		t.Error("the panic is not in the log")
	}
}

// So many watches, and no more; one that ends makes room.
func TestWatchesAreBounded(t *testing.T) {
	const most = 256
	begun := make(chan bool)
	s := serve(t, &fakeNode{watch: func(ctx context.Context, _ api.WatchParams, emit func(api.Change) error) error {
		begun <- true
		<-ctx.Done()
		return ctx.Err()
	}})
	ctx, leave := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for range most {
		watching.Go(func() {
			for range s.Watch(ctx, api.WatchParams{Stream: "s"}) {
			}
		})
		<-begun
	}
	status, line := s.send(http.MethodGet, "/watch?stream=s", "", nil)
	if status != http.StatusTooManyRequests || !strings.Contains(line, fmt.Sprint(most, " watches")) {
		t.Errorf("one too many: HTTP %d: %s", status, line)
	}
	leave()
	watching.Wait()
	until(t, func() bool { return admitted(s.handler, "watches").Running == 0 })
}
