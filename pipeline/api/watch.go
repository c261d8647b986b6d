package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/creachadair/jrpc2"

	"github.com/evenkeel/evenkeel/events"
)

// WatchParams say which changes are asked for: of one key, or of all keys of a
// stream that begin with a prefix.
type WatchParams struct {
	Stream events.Stream
	Key    Bytes
	Prefix Bytes

	// From is a context of an earlier change, or of a scan: what has changed since
	// then comes first. A region that has less of a log begins where it stands, as the
	// first change says: what it shows until then is older. nil: from now on.
	From *events.Vector

	// Partitions are those whose shards are followed; none: all.
	Partitions []int32
}

// Change is a line of a watch: the new view of a key, or only a context.
type Change struct {
	Key     Bytes  `json:"key,omitempty"`     // nil: nothing has changed
	Entry   *Entry `json:"entry,omitempty"`   // the key as it is now
	Deleted bool   `json:"deleted,omitempty"` // the key is not there any more

	// Context is where a watch that begins From it goes on, without a gap. A change
	// without one is followed at once by others.
	Context *events.Vector `json:"context,omitempty"`

	// Error is the last line of a watch that the node has ended.
	Error *jrpc2.Error `json:"error,omitempty"`
}

// watchWriteTimeout is how long a caller may take for one line before it is given
// up.
const watchWriteTimeout = 30 * time.Second

const watchContentType = "application/x-ndjson"

// serveWatch answers GET /watch with a JSON object a line.
func (h *Handler) serveWatch(node Node) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := &lines{to: w, control: http.NewResponseController(w)}
		params, err := parseWatch(r.URL.Query())
		if err != nil {
			out.end(err)
			return
		}
		ctx, end, ok := h.watching.begin(withForwarder(r.Context(), r))
		if !ok {
			out.end(errStopping)
			return
		}
		defer end()
		leave, err := h.calls.watches.enter(ctx)
		if err != nil {
			out.end(err)
			return
		}
		defer leave()
		err = h.runWatch(ctx, node, params, out)
		switch {
		case r.Context().Err() != nil:
			return // who has gone needs no reason
		case ctx.Err() != nil:
			err = errStopping
		}
		out.end(err)
	}
}

var errStopping = events.Errorf(events.KindNotReady, "the node is stopping; go on from the last context at another one")

// runWatch keeps a panic from taking the node along.
func (h *Handler) runWatch(ctx context.Context, node Node, p WatchParams, out *lines) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("a watch has panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = events.Errorf(events.KindFailed, "internal error; the node's log says more")
		}
	}()
	return node.Watch(ctx, p, out.add)
}

// EndWatches ends the watches, which would go on for ever, before the server waits
// for its calls to end.
func (h *Handler) EndWatches() { h.watching.close() }

func parseWatch(q url.Values) (p WatchParams, err error) {
	for name, values := range q {
		if len(values) > 1 && name != "partition" {
			return p, events.Errorf(events.KindInvalid, "watch: %s is given %d times", name, len(values))
		}
		switch name {
		case "stream":
			p.Stream = events.Stream(values[0])
		case "key":
			p.Key = Bytes(values[0])
		case "prefix":
			p.Prefix = Bytes(values[0])
		case "from":
			from, err := events.ParseVector(values[0])
			if err != nil {
				return p, events.Errorf(events.KindInvalid, "watch: from: %w", err)
			}
			p.From = &from
		case "partition":
			for _, text := range values {
				n, err := strconv.ParseInt(text, 10, 32)
				if err != nil {
					return p, events.Errorf(events.KindInvalid, "watch: partition %q: want a number", text)
				}
				p.Partitions = append(p.Partitions, int32(n))
			}
		default:
			return p, events.Errorf(events.KindInvalid, "watch: unknown parameter %q; there are stream, key, prefix, from, partition", name)
		}
	}
	return p, nil
}

func (p WatchParams) query() string {
	q := url.Values{"stream": {p.Stream.String()}}
	if len(p.Key) > 0 {
		q.Set("key", string(p.Key))
	}
	if len(p.Prefix) > 0 {
		q.Set("prefix", string(p.Prefix))
	}
	if p.From != nil {
		q.Set("from", p.From.String())
	}
	for _, n := range p.Partitions {
		q.Add("partition", strconv.Itoa(int(n)))
	}
	return q.Encode()
}

// lines writes changes as they come.
type lines struct {
	to      http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (l *lines) add(c Change) error {
	text, err := encode(c)
	if err != nil {
		return err
	}
	if !l.begun {
		l.begun = true
		l.to.Header().Set("Content-Type", watchContentType)
	}
	// Not every writer has deadlines and a buffer; those of a server do.
	_ = l.control.SetWriteDeadline(time.Now().Add(watchWriteTimeout))
	if _, err := l.to.Write(append(text, '\n')); err != nil {
		return err
	}
	if c.Context == nil && c.Error == nil {
		return nil // others follow at once
	}
	return l.control.Flush()
}

// end writes why nothing more comes. If nothing has come, the status says it too.
func (l *lines) end(err error) {
	if err == nil {
		return
	}
	kind := kindOfAnswer(err)
	if !l.begun {
		l.to.Header().Set("Content-Type", watchContentType)
		setRetryAfter(l.to.Header(), err)
		l.begun = true
		l.to.WriteHeader(statusOf(kind, err))
	}
	_ = l.add(Change{Error: jrpc2.Errorf(codeOfError(err), "%s", err)}) // who has gone needs no reason
}

// statusOf is the HTTP status of an answer that is an error.
func statusOf(kind events.Kind, err error) int {
	switch {
	case errors.Is(err, ErrBusy):
		return http.StatusTooManyRequests
	case kind == events.KindInvalid:
		return http.StatusBadRequest
	case kind == events.KindNotFound:
		return http.StatusNotFound
	case kind == events.KindRefused:
		return http.StatusForbidden
	case kind == events.KindNotReady:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// maxLineBytes bounds a line of a watch: the largest value, in base64, and what
// stands around it, of a few siblings.
const maxLineBytes = 128 << 20

// Watch follows changes until the context ends or the node ends it; the last pair
// then has an error. Lines that only have a context are given too.
func (c *Client) Watch(ctx context.Context, p WatchParams) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the request if the caller has had enough
		body, err := c.openWatch(ctx, p)
		if err != nil {
			yield(Change{}, err)
			return
		}
		defer body.Close()
		in := bufio.NewScanner(body)
		in.Buffer(nil, maxLineBytes)
		for in.Scan() {
			var change Change
			if err := json.Unmarshal(in.Bytes(), &change); err != nil {
				yield(Change{}, events.Errorf(events.KindFailed, "watch at %s: a line is no change: %w", c.server, err))
				return
			}
			if e := change.Error; e != nil {
				yield(Change{}, events.Errorf(kindOf(e.Code), "%s", e.Message))
				return
			}
			if !yield(change, nil) {
				return
			}
		}
		err = in.Err()
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		yield(Change{}, c.unreachable(ctx, err))
	}
}

func (c *Client) openWatch(ctx context.Context, p WatchParams) (io.ReadCloser, error) {
	res, err := c.send(ctx, func() (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, c.server+"/watch?"+p.query(), nil)
	})
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if res.Header.Get("Content-Type") == watchContentType {
		return res.Body, nil // an error is its last line
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // for an error's text
	return nil, httpError(c.server, res.StatusCode, bytes.TrimSpace(text))
}
