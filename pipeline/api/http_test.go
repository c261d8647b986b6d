package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

const aStatus = `{"jsonrpc":"2.0","id":1,"method":"status"}`

// Requests that are not what they should be, and what the answer says.
func TestBadRequests(t *testing.T) {
	s := serve(t, &fakeNode{do: func(_ context.Context, method string, _ any) (any, error) {
		if method == "status" {
			return &api.Status{}, nil
		}
		return nil, errors.New("the node is not to be asked")
	}})
	for name, c := range map[string]struct{ body, want string }{
		"unknown field":       {`{"jsonrpc":"2.0","id":1,"method":"put","params":{"stream":"s","valeu":"x"}}`, `-32602 valeu`},
		"field of a sub list": {`{"jsonrpc":"2.0","id":1,"method":"load","params":{"events":[{"kye":"x"}]}}`, `-32602 kye`},
		"wrong type":          {`{"jsonrpc":"2.0","id":1,"method":"put","params":{"stream":5}}`, `-32602 stream`},
		"bad bytes":           {`{"jsonrpc":"2.0","id":1,"method":"put","params":{"key":5}}`, `-32602 base64`},
		"bad clock":           {`{"jsonrpc":"2.0","id":1,"method":"load","params":{"events":[{"clock":"x"}]}}`, `-32602 MILLISECONDS`},
		"params in a list":    {`{"jsonrpc":"2.0","id":1,"method":"put","params":["s","k"]}`, `-32602 put`},
		"params for status":   {`{"jsonrpc":"2.0","id":1,"method":"status","params":{"x":1}}`, `-32602 x`},
		"unknown method":      {`{"jsonrpc":"2.0","id":1,"method":"drop"}`, `-32601 drop`},
		"builtin method":      {`{"jsonrpc":"2.0","id":1,"method":"rpc.serverInfo"}`, `-32601 rpc.serverInfo`},
		"no method":           {`{"jsonrpc":"2.0","id":1}`, `-32600`},
		"no version":          {`{"id":1,"method":"status"}`, `-32600`},
		"malformed":           {`{"jsonrpc":"2.0","id":1,"method":"status"`, `-32700`},
		"no JSON":             {`hello`, `-32700`},
		"empty":               {``, `-32700`},
		"empty batch":         {`[]`, `-32600`},
		"two values":          {aStatus + aStatus, `-32700`},
	} {
		t.Run(name, func(t *testing.T) {
			s := *s
			s.T = t
			status, answer := s.post(c.body)
			var got struct {
				Error struct {
					Code    json.Number
					Message string
				}
			}
			if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusOK {
				t.Fatalf("HTTP %d: %s", status, answer)
			}
			code, part, _ := strings.Cut(c.want, " ")
			if got.Error.Code.String() != code || !strings.Contains(got.Error.Message, part) {
				t.Errorf("got %s", answer)
			}
		})
	}
	if _, err := s.Status(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestHTTPRefusals(t *testing.T) {
	s := serve(t, &fakeNode{do: func(context.Context, string, any) (any, error) { return &api.Status{}, nil }})
	for name, c := range map[string]struct {
		method, path, contentType, body string
		status                          int
		part                            string
	}{
		"GET":                 {"GET", "/rpc", "", "", http.StatusMethodNotAllowed, "POST"},
		"PUT":                 {"PUT", "/rpc", "application/json", aStatus, http.StatusMethodNotAllowed, "POST"},
		"other path":          {"POST", "/", "application/json", aStatus, http.StatusNotFound, ""},
		"no content type":     {"POST", "/rpc", "", aStatus, http.StatusUnsupportedMediaType, "application/json"},
		"wrong content type":  {"POST", "/rpc", "text/plain", aStatus, http.StatusUnsupportedMediaType, "application/json"},
		"form":                {"POST", "/rpc", "application/x-www-form-urlencoded", aStatus, http.StatusUnsupportedMediaType, "application/json"},
		"with charset":        {"POST", "/rpc", "application/json; charset=utf-8", aStatus, http.StatusOK, "result"},
		"just fits":           {"POST", "/rpc", "application/json", aStatus + strings.Repeat(" ", maxBody-len(aStatus)), http.StatusOK, "result"},
		"one byte too many":   {"POST", "/rpc", "application/json", aStatus + strings.Repeat(" ", maxBody-len(aStatus)+1), http.StatusRequestEntityTooLarge, "api.max_body_bytes"},
		"post to health":      {"POST", "/healthz", "", "", http.StatusMethodNotAllowed, ""},
		"large, of any media": {"POST", "/rpc", "text/plain", strings.Repeat("x", 2*maxBody), http.StatusUnsupportedMediaType, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := *s
			s.T = t
			status, answer := s.send(c.method, c.path, c.contentType, strings.NewReader(c.body))
			if status != c.status || !strings.Contains(answer, c.part) {
				t.Errorf("HTTP %d: %s", status, answer)
			}
		})
	}
}

// The client turns a body that is too large into an error of its caller.
func TestClientTooLarge(t *testing.T) {
	s := serve(t, &fakeNode{})
	_, err := s.Put(t.Context(), api.PutParams{Stream: "s", Key: api.Bytes("k"), Value: bytes.Repeat([]byte("x"), 8<<20)})
	wantKind(t, err, events.KindInvalid, "65536 bytes", "api.max_body_bytes")
}

func TestBatch(t *testing.T) {
	var puts atomic.Int64
	s := serve(t, &fakeNode{do: func(_ context.Context, method string, _ any) (any, error) {
		switch method {
		case "put":
			return &api.PutResult{Position: sampleLog.At(puts.Add(1))}, nil
		case "status":
			return &api.Status{}, nil
		}
		return nil, events.Errorf(events.KindNotFound, "no key")
	}})
	put := `{"jsonrpc":"2.0","id":%,"method":"put","params":{"stream":"s","key":"k","value":"v"}}`
	status, answer := s.post("[" + strings.Join([]string{
		strings.Replace(put, "%", `"first"`, 1),
		strings.Replace(put, "%", `7`, 1),
		`{"jsonrpc":"2.0","id":8,"method":"get","params":{"stream":"s","key":"k"}}`,
		`{"jsonrpc":"2.0","id":9,"method":"nonsense"}`,
		`5`,
		strings.Replace(put, `"id":%,`, ``, 1), // a notification: done, not answered
		strings.Replace(put, "%", `7`, 1),      // an id may come twice: the caller gets what he asked for
	}, ",") + "]")
	var got []struct {
		ID     json.RawMessage
		Result *struct{ Position string }
		Error  *struct{ Code int }
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusOK {
		t.Fatalf("HTTP %d: %s", status, answer)
	}
	var said []string
	for _, g := range got {
		switch {
		case g.Result != nil:
			said = append(said, string(g.ID)+" at "+g.Result.Position)
		case g.Error != nil:
			said = append(said, string(g.ID)+" failed")
		}
	}
	want := `"first" at us-east-1_2/session/3@1; 7 at us-east-1_2/session/3@2; 8 failed; 9 failed; null failed; 7 at us-east-1_2/session/3@4`
	if text := strings.Join(said, "; "); text != want {
		t.Errorf("got  %s\nwant %s\nin %s", text, want, answer)
	}
}

// A request without an id is done and not answered.
func TestNotification(t *testing.T) {
	var calls atomic.Int64
	s := serve(t, &fakeNode{do: func(context.Context, string, any) (any, error) {
		calls.Add(1)
		return nil, errors.New("nobody hears this")
	}})
	for _, body := range []string{
		`{"jsonrpc":"2.0","method":"lag"}`, `[{"jsonrpc":"2.0","method":"lag"},{"jsonrpc":"2.0","method":"lag"}]`,
	} {
		if status, answer := s.post(body); status != http.StatusNoContent || answer != "" {
			t.Errorf("%s: HTTP %d: %s", body, status, answer)
		}
	}
	if calls.Load() != 3 {
		t.Errorf("%d calls, want 3", calls.Load())
	}
}

// A long call without an id is nobody else's trouble.
func TestNotificationBlocksNobody(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	s := serve(t, &fakeNode{do: func(_ context.Context, method string, _ any) (any, error) {
		if method == "backup.create" {
			begun <- true
			<-finish
		}
		return &api.Status{}, nil
	}})
	done := make(chan bool)
	go func() {
		s.post(`{"jsonrpc":"2.0","method":"backup.create"}`)
		close(done)
	}()
	<-begun
	if _, err := s.Status(t.Context()); err != nil {
		t.Error(err)
	}
	close(finish)
	<-done
}

func TestHealthAndReady(t *testing.T) {
	var why error
	s := serve(t, &fakeNode{ready: func() error { return why }})
	check := func(path string, status int, part string) {
		t.Helper()
		if got, answer := s.send("GET", path, "", http.NoBody); got != status || !strings.Contains(answer, part) {
			t.Errorf("%s: HTTP %d: %s", path, got, answer)
		}
	}
	check("/healthz", http.StatusOK, "ok")
	check("/readyz", http.StatusOK, "ready")
	why = events.Errorf(events.KindNotReady, "the disk is nearly full")
	check("/healthz", http.StatusOK, "ok")
	check("/readyz", http.StatusServiceUnavailable, "the disk is nearly full")
}
