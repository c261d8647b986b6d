package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/handler"
	"github.com/creachadair/jrpc2/jhttp"

	"github.com/evenkeel/evenkeel/events"
)

// concurrentCalls bounds the calls that a node works on at one time; others
// wait.
const concurrentCalls = 32

// Handler serves a node: POST /rpc, GET /healthz, GET /readyz. Close ends the
// calls under way.
type Handler struct {
	mux    *http.ServeMux
	bridge jhttp.Bridge
}

var _ http.Handler = (*Handler)(nil)

// NewHandler makes a handler that accepts bodies of up to maxBodyBytes.
func NewHandler(node Node, maxBodyBytes int64) *Handler {
	methods := handler.Map{
		"put":           method(node.Put),
		"load":          method(node.Load),
		"landed":        method(node.Landed),
		"get":           method(node.Get),
		"scan":          method(node.Scan),
		"status":        plainMethod(node.Status),
		"lag":           plainMethod(node.Lag),
		"backup.create": plainMethod(node.CreateBackup),
		"backup.list":   plainMethod(node.ListBackups),
		"restore.run":   method(node.Restore),
	}
	h := &Handler{mux: http.NewServeMux()}
	h.bridge = jhttp.NewBridge(methods, &jhttp.BridgeOptions{
		Server: &jrpc2.ServerOptions{Concurrency: concurrentCalls, DisableBuiltin: true},
	})
	h.mux.Handle("POST /rpc", limitBody(h.bridge, maxBodyBytes))
	h.mux.HandleFunc("/rpc", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "send JSON-RPC 2.0 requests by POST", http.StatusMethodNotAllowed)
	})
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	h.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := node.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return h
}

// Handle adds another page.
func (h *Handler) Handle(pattern string, page http.Handler) { h.mux.Handle(pattern, page) }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Close stops serving calls.
func (h *Handler) Close() error { return h.bridge.Close() }

// method makes a JSON-RPC method of a function with parameters.
func method[P, R any](f func(context.Context, P) (*R, error)) jrpc2.Handler {
	return func(ctx context.Context, req *jrpc2.Request) (any, error) {
		var params P
		if req.HasParams() {
			d := json.NewDecoder(bytes.NewReader([]byte(req.ParamString())))
			d.DisallowUnknownFields()
			if err := d.Decode(&params); err != nil {
				return nil, jrpc2.Errorf(jrpc2.InvalidParams, "%s: parameters: %s", req.Method(), err)
			}
		}
		return answer(f(ctx, params))
	}
}

// plainMethod makes a JSON-RPC method of a function without parameters.
func plainMethod[R any](f func(context.Context) (*R, error)) jrpc2.Handler {
	return method(func(ctx context.Context, _ struct{}) (*R, error) { return f(ctx) })
}

func answer[R any](result *R, err error) (any, error) {
	if err != nil {
		return nil, jrpc2.Errorf(codeOf(events.KindOf(err)), "%s", err)
	}
	return result, nil
}

// limitBody refuses larger bodies before anything looks at them.
func limitBody(next http.Handler, most int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			http.Error(w, fmt.Sprintf("request body is larger than %d bytes (api.max_body_bytes)", most), http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, "request body: "+err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}
