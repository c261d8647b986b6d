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
	"time"

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
	body, release, ok := h.readBody(w, r)
	if !ok {
		return
	}
	defer release()
	ctx, end, ok := h.calls.begin(withForwarder(r.Context(), r))
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

const (
	// bodyTimeout is how long a caller may take to send a body: until then it has
	// memory that others need.
	bodyTimeout = time.Minute

	// smallBodyBytes of a body are not counted, so that a node can always be asked
	// how it is.
	smallBodyBytes = 4 << 10
)

// readBody refuses other bodies than JSON, and larger ones, before anything looks at
// them. The body's memory is released when the request is answered.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), ok bool) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		http.Error(w, "the content type must be application/json", http.StatusUnsupportedMediaType)
		return nil, nil, false
	}
	release, ok = h.reserve(r.ContentLength)
	if !ok {
		setRetryAfter(w.Header(), ErrBusy)
		http.Error(w, "too many large requests are under way: "+ErrBusy.Error(), http.StatusTooManyRequests)
		return nil, nil, false
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer has deadlines; those of a server do
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBodyBytes))
	_ = control.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("request body is larger than %d bytes (api.max_body_bytes)", h.maxBodyBytes), http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "request body: "+err.Error(), http.StatusBadRequest)
	}
	if err != nil {
		release()
	}
	return body, release, err == nil
}

// reserve takes memory for a body of a length, -1 if it is not known.
func (h *Handler) reserve(length int64) (release func(), ok bool) {
	if length < 0 || length > h.maxBodyBytes {
		length = h.maxBodyBytes
	}
	if length <= smallBodyBytes {
		return func() {}, true
	}
	return func() { h.calls.bodies.Release(length) }, h.calls.bodies.TryAcquire(length)
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
		if !a.batch && r.Error != nil && r.Error.Code == codeBusy {
			setRetryAfter(a.to.Header(), ErrBusy)
			a.to.WriteHeader(http.StatusTooManyRequests)
		}
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
