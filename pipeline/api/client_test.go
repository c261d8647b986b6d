package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator"
)

func TestNewClient(t *testing.T) {
	for _, server := range []string{"", "127.0.0.1:7400", "localhost", "ftp://x", "http://", "http:///rpc", "://", "http://a b"} {
		_, err := api.NewClient(server)
		wantKind(t, err, events.KindInvalid, "http://127.0.0.1:7401", fmt.Sprintf("%q", server))
	}
	for server, want := range map[string]string{
		"http://127.0.0.1:7400": "http://127.0.0.1:7400", "https://node.example/": "https://node.example", "http://[::1]:7400": "http://[::1]:7400",
	} {
		if got := newClient(t, server).Server(); got != want {
			t.Errorf("%s became %s", server, got)
		}
	}
}

// nowhere is an address where nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestServerNotThere(t *testing.T) {
	server := nowhere(t)
	client := newClient(t, server)
	_, err := client.Status(t.Context())
	wantKind(t, err, events.KindNotReady, server, "refused", "is it running?", "--server")
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if _, err := client.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has left gets %v", err)
	}
}

// What takes connections and says nothing, as Kafka does at another port, is not waited for for
// ever, and it is said where to look.
func TestServerThatIsSilent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // and with it what it has accepted nothing of
	server := "http://" + listener.Addr().String()
	client := newClient(t, server)
	client.SetPatience(20 * time.Millisecond)
	_, err = client.Status(t.Context())
	wantKind(t, err, events.KindNotReady, server, "does not answer", "--server")
	ctx, leave := context.WithTimeout(t.Context(), time.Millisecond)
	defer leave()
	if _, err := client.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller who has less patience gets %v", err)
	}
}

// A call may take longer than the client waits before it asks whether there is a node.
func TestLongCall(t *testing.T) {
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			close(asked)
			return
		}
		<-asked
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"region":"us-east-1"}}`)
	}))
	defer server.Close()
	client := newClient(t, server.URL)
	client.SetPatience(20 * time.Millisecond)
	if s, err := client.Status(t.Context()); err != nil || s.Region != "us-east-1" {
		t.Errorf("%+v, %v", s, err)
	}
}

// Whatever answers at the address, the client ends with an error that names it.
func TestNotANode(t *testing.T) {
	reply := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const rpc = "application/json"
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		kind    events.Kind
		part    string
	}{
		"a page":                 {reply(200, "text/html", "<h1>Welcome</h1>"), events.KindFailed, "no Evenkeel node"},
		"not found":              {reply(404, "text/plain", "404 page not found"), events.KindFailed, "HTTP 404: 404 page not found"},
		"forbidden":              {reply(403, rpc, `{}`), events.KindFailed, "HTTP 403"},
		"broken":                 {reply(500, "text/plain", strings.Repeat("x", 10_000)), events.KindFailed, "HTTP 500"},
		"a gateway without node": {reply(502, "text/html", "bad gateway"), events.KindNotReady, "HTTP 502"},
		"a node that stops":      {reply(503, "text/plain", "stopping"), events.KindNotReady, "stopping"},
		"no JSON":                {reply(200, rpc, `hello`), events.KindFailed, "no JSON-RPC"},
		"empty":                  {reply(200, rpc, ``), events.KindFailed, "no JSON-RPC"},
		"other JSON":             {reply(200, rpc, `{"name":"prometheus"}`), events.KindFailed, "no JSON-RPC"},
		"a list":                 {reply(200, rpc, `[]`), events.KindFailed, "no JSON-RPC"},
		"null":                   {reply(200, rpc, `{"jsonrpc":"2.0","id":1,"result":null}`), events.KindFailed, "no JSON-RPC"},
		"another result":         {reply(200, rpc, `{"jsonrpc":"2.0","id":1,"result":{"events":"many"}}`), events.KindFailed, "result"},
		"result of another node": {reply(200, rpc, `{"jsonrpc":"2.0","id":1,"result":{"digest":"x"}}`), events.KindFailed, "digest"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", rpc)
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"jsonrpc"`)
		}, events.KindNotReady, "cannot be reached"},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, events.KindNotReady, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.handler)
			defer server.Close()
			_, err := newClient(t, server.URL).Status(t.Context())
			wantKind(t, err, c.kind, c.part, server.URL)
			if err != nil && len(err.Error()) > 1_000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// Codes that no node of ours sends are failures.
func TestUnknownCodes(t *testing.T) {
	for _, code := range []int{-1, 0, 5, -31999, -32000, -32008, -32099, -32603, 1 << 30} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"boo"}}`, code)
		}))
		_, err := newClient(t, server.URL).Status(t.Context())
		wantKind(t, err, events.KindFailed, "boo")
		server.Close()
	}
}

// An answer without an end does not fill the memory.
func TestHugeAnswer(t *testing.T) {
	const most = 100_000
	sent := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		chunk := strings.Repeat(" ", 10_000)
		for {
			n, err := io.WriteString(w, chunk)
			if sent += n; err != nil {
				return
			}
		}
	}))
	client := newClient(t, server.URL)
	client.SetMaxResponseBytes(most)
	_, err := client.Status(t.Context())
	wantKind(t, err, events.KindFailed, "more than 100000 bytes", server.URL)
	server.Close() // waits for the handler
	if sent <= most {
		t.Errorf("the server sent only %d bytes", sent)
	}
}

// scanNode serves the keys "000" to "n-1" in pages.
func scanNode(n, page int, fail func(after string) error) *fakeNode {
	return &fakeNode{do: func(_ context.Context, _ string, params any) (any, error) {
		p := params.(api.ScanParams)
		if fail != nil {
			if err := fail(string(p.After)); err != nil {
				return nil, err
			}
		}
		r := &api.ScanResult{Entries: []api.Entry{}}
		for i := range n {
			key := fmt.Sprintf("%s%03d", p.Prefix, i)
			if key <= string(p.After) {
				continue
			}
			if len(r.Entries) == page {
				r.More = true
				break
			}
			r.Entries = append(r.Entries, api.Entry{Stream: p.Stream, Key: api.Bytes(key), Position: sampleLog.At(1)})
		}
		return r, nil
	}}
}

func TestScanAll(t *testing.T) {
	for _, c := range []struct{ keys, page, calls int }{{0, 10, 1}, {9, 10, 1}, {10, 10, 1}, {11, 10, 2}, {30, 10, 3}, {31, 1, 31}} {
		t.Run(fmt.Sprintf("%d keys by %d", c.keys, c.page), func(t *testing.T) {
			calls := 0
			s := serve(t, scanNode(c.keys, c.page, func(string) error { calls++; return nil }))
			var keys []string
			for e, err := range s.ScanAll(t.Context(), api.ScanParams{Stream: "s", Prefix: api.Bytes("p-")}) {
				if err != nil {
					t.Fatal(err)
				}
				keys = append(keys, string(e.Key))
			}
			if len(keys) != c.keys || calls != c.calls {
				t.Errorf("%d keys in %d calls, want %d in %d", len(keys), calls, c.keys, c.calls)
			}
			for i, key := range keys {
				if want := fmt.Sprintf("p-%03d", i); key != want {
					t.Fatalf("key %d is %s, want %s", i, key, want)
				}
			}
		})
	}
}

func TestScanAllEnds(t *testing.T) {
	t.Run("by an error", func(t *testing.T) {
		s := serve(t, scanNode(30, 10, func(after string) error {
			if after == "019" {
				return events.Errorf(events.KindNotReady, "gone")
			}
			return nil
		}))
		n := 0
		for _, err := range s.ScanAll(t.Context(), api.ScanParams{Stream: "s"}) {
			if err != nil {
				wantKind(t, err, events.KindNotReady, "gone")
				break
			}
			n++
		}
		if n != 20 {
			t.Errorf("%d keys before the error, want 20", n)
		}
	})
	t.Run("by the reader", func(t *testing.T) {
		calls, n := 0, 0
		s := serve(t, scanNode(30, 10, func(string) error { calls++; return nil }))
		for range s.ScanAll(t.Context(), api.ScanParams{Stream: "s"}) {
			if n++; n == 10 {
				break
			}
		}
		if calls != 1 {
			t.Errorf("%d calls for 10 keys, want 1", calls)
		}
	})
	t.Run("by a node that says more and gives none", func(t *testing.T) {
		s := serve(t, &fakeNode{do: func(context.Context, string, any) (any, error) { return &api.ScanResult{More: true}, nil }})
		for e, err := range s.ScanAll(t.Context(), api.ScanParams{Stream: "s"}) {
			t.Errorf("got %v, %v", e, err)
		}
	})
}

// Lag that could not be measured is unknown, never a number.
func TestBehind(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	for name, c := range map[string]struct {
		lag  api.Lag
		want string
	}{
		"nothing":      {api.Lag{}, "0"},
		"none":         {api.Lag{Folds: []api.LagRow{{Records: n(0)}}}, "0"},
		"sum":          {api.Lag{Folds: []api.LagRow{{Records: n(1)}, {Records: n(2)}}, Links: []api.LinkLag{{Lag: replicator.Lag{Records: n(4)}}}}, "7"},
		"fold unknown": {api.Lag{Folds: []api.LagRow{{Records: n(1)}, {}}}, "unknown"},
		"link unknown": {api.Lag{Folds: []api.LagRow{{Records: n(0)}}, Links: []api.LinkLag{{}}}, "unknown"},
	} {
		if got := c.lag.Behind(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
