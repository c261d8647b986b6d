package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"

	"github.com/creachadair/jrpc2"
)

// request and response are JSON-RPC 2.0's messages.
type request struct {
	Version string `json:"jsonrpc"`
	ID      int    `json:"id"`
	Method  string `json:"method"`
	Params  any    `json:"params,omitempty"`
}

type response struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *jrpc2.Error    `json:"error,omitempty"`
}

// encode is json.Marshal without the escapes that only HTML needs.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// serveRPC answers one request, or a batch of them one after the other. The
// library's own bridge does not tell a method that its caller has gone, has
// everybody wait for a request without an id, and dies of a panic.
func (h *Handler) serveRPC(w http.ResponseWriter, r *http.Request) {
	body, ok := h.readBody(w, r)
	if !ok {
		return
	}
	ctx, end, ok := h.calls.begin(r.Context())
	if !ok {
		http.Error(w, "the node is stopping", http.StatusServiceUnavailable)
		return
	}
	defer end()
	out := answers{to: w}
	defer out.end()
	requests, err := jrpc2.ParseRequests(body)
	switch {
	case err != nil:
		out.add(response{Error: jrpc2.Errorf(jrpc2.ParseError, "the body is no JSON")})
	case len(requests) == 0:
		out.add(response{Error: jrpc2.Errorf(jrpc2.InvalidRequest, "the batch is empty")})
	default:
		out.batch = requests[0].Batch
	}
	for _, req := range requests {
		answer := h.answer(ctx, req)
		if isNotification := req.ID == "" && req.Error == nil; !isNotification {
			out.add(answer)
		}
	}
}

// readBody refuses other bodies than JSON, and larger ones, before anything
// looks at them.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		http.Error(w, "the content type must be application/json", http.StatusUnsupportedMediaType)
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBodyBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("request body is larger than %d bytes (api.max_body_bytes)", h.maxBodyBytes), http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "request body: "+err.Error(), http.StatusBadRequest)
	}
	return body, err == nil
}

func (h *Handler) answer(ctx context.Context, req *jrpc2.ParsedRequest) response {
	answer := response{ID: json.RawMessage(req.ID), Error: req.Error}
	if answer.Error != nil {
		return answer
	}
	m, ok := h.methods[req.Method]
	switch {
	case req.Method == "":
		answer.Error = jrpc2.Errorf(jrpc2.InvalidRequest, "the method is missing")
		return answer
	case !ok:
		answer.Error = jrpc2.Errorf(jrpc2.MethodNotFound, "there is no method %q", req.Method)
		return answer
	}
	result, err := h.run(ctx, m, req.ToRequest())
	if err == nil {
		answer.Result, err = encode(result)
	}
	if err != nil && !errors.As(err, &answer.Error) {
		answer.Error = jrpc2.Errorf(jrpc2.InternalError, "%s: %s", req.Method, err)
	}
	return answer
}

// run keeps a panic of one call from taking the node and all other calls along.
func (h *Handler) run(ctx context.Context, m jrpc2.Handler, req *jrpc2.Request) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("a call has panicked", "method", req.Method(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = jrpc2.Errorf(jrpc2.InternalError, "%s: internal error; the node's log says more", req.Method())
		}
	}()
	return m(ctx, req)
}

// answers writes responses as they come, so that a batch of large ones does not
// add up in memory.
type answers struct {
	to    http.ResponseWriter
	batch bool
	count int
}

func (a *answers) add(r response) {
	r.Version = "2.0"
	if len(r.ID) == 0 {
		r.ID = json.RawMessage("null")
	}
	text, err := encode(r)
	if err != nil { // there is nothing in it that has no JSON
		panic(err)
	}
	before := ""
	switch {
	case a.count > 0:
		before = ","
	case a.batch:
		before = "["
	}
	if a.count++; a.count == 1 {
		a.to.Header().Set("Content-Type", "application/json")
	}
	// A caller that has gone away needs no answer.
	_, _ = io.WriteString(a.to, before)
	_, _ = a.to.Write(text)
}

func (a *answers) end() {
	switch {
	case a.count == 0:
		a.to.WriteHeader(http.StatusNoContent)
	case a.batch:
		_, _ = io.WriteString(a.to, "]")
	}
}
