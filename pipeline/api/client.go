package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// Client calls a node. It is safe for concurrent use.
type Client struct {
	server           string
	http             *http.Client
	maxResponseBytes int64
	patience         time.Duration
	self             string // node on whose behalf it calls another one; empty: none
}

// silencePatience is how long a client waits for the beginning of an answer before it asks
// whether there is a node at all, and then for the answer to that. A call may take as long as it
// likes, so that silence alone says nothing.
const silencePatience = 5 * time.Second

// maxResponseBytes bounds what is read of an answer.
const maxResponseBytes = 256 << 20

// NewClient makes a client of the node at an address like
// "http://127.0.0.1:7401".
func NewClient(server string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, events.Errorf(events.KindInvalid, "server %q: want an address like http://127.0.0.1:7401", server)
	}
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 8,
	}
	return &Client{
		server: strings.TrimSuffix(server, "/"), http: &http.Client{Transport: transport},
		maxResponseBytes: maxResponseBytes, patience: silencePatience,
	}, nil
}

// Server is the address that the client calls.
func (c *Client) Server() string { return c.server }

// Put writes one event.
func (c *Client) Put(ctx context.Context, p PutParams) (*PutResult, error) {
	return call[PutResult](ctx, c, "put", p)
}

// Load writes a batch of events.
func (c *Client) Load(ctx context.Context, p LoadParams) (*LoadResult, error) {
	return call[LoadResult](ctx, c, "load", p)
}

// Landed asks which events of a load are in the logs.
func (c *Client) Landed(ctx context.Context, p LandedParams) (*LandedResult, error) {
	return call[LandedResult](ctx, c, "landed", p)
}

// Outcome asks what has become of an event that was written.
func (c *Client) Outcome(ctx context.Context, p OutcomeParams) (*Outcome, error) {
	return call[Outcome](ctx, c, "outcome", p)
}

// Get reads one key.
func (c *Client) Get(ctx context.Context, p GetParams) (*Entry, error) {
	return call[Entry](ctx, c, "get", p)
}

// Scan reads one page of a stream.
func (c *Client) Scan(ctx context.Context, p ScanParams) (*ScanResult, error) {
	return call[ScanResult](ctx, c, "scan", p)
}

// ScanAll reads a stream page by page.
func (c *Client) ScanAll(ctx context.Context, p ScanParams) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			page, err := c.Scan(ctx, p)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
				p.After = e.Key
			}
			if !page.More || len(page.Entries) == 0 {
				return
			}
		}
	}
}

// Status asks what the node is and does.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[Status](ctx, c, "status", nil)
}

// Lag asks how far the node's region is behind.
func (c *Client) Lag(ctx context.Context) (*Lag, error) { return call[Lag](ctx, c, "lag", nil) }

// CreateBackup backs up the node's region.
func (c *Client) CreateBackup(ctx context.Context) (*Backup, error) {
	return call[Backup](ctx, c, "backup.create", nil)
}

// call makes one call. The library's own client ends itself when a server
// cannot be reached; this one can be asked again.
func call[R any](ctx context.Context, c *Client, name string, params any) (*R, error) {
	body, err := encode(request{Version: "2.0", ID: 1, Method: name, Params: params})
	if err != nil {
		return nil, err
	}
	res, err := c.send(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.server+"/rpc", bytes.NewReader(body))
		if err == nil {
			req.Header.Set("Content-Type", "application/json")
		}
		return req, err
	})
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, c.maxResponseBytes+1))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if int64(len(text)) > c.maxResponseBytes {
		return nil, fmt.Errorf("%s at %s: the answer has more than %d bytes", name, c.server, c.maxResponseBytes)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); !isAnswer(res.StatusCode) || kind != "application/json" {
		return nil, httpError(c.server, res.StatusCode, text)
	}
	var answer response
	err = json.Unmarshal(text, &answer)
	if isNull := len(answer.Result) == 0 || string(answer.Result) == "null"; err == nil && isNull && answer.Error == nil {
		err = errors.New("neither result nor error")
	}
	if err != nil {
		return nil, events.Errorf(events.KindFailed, "%s at %s: the answer is no JSON-RPC: %w", name, c.server, err)
	}
	if answer.Error != nil {
		return nil, events.Errorf(kindOf(answer.Error.Code), "%s", answer.Error.Message)
	}
	result := new(R)
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return nil, events.Errorf(events.KindFailed, "%s at %s: result: %w", name, c.server, err)
	}
	return result, nil
}

// isAnswer tells whether a status is of an answer in JSON-RPC.
func isAnswer(status int) bool {
	return status == http.StatusOK || status == http.StatusTooManyRequests
}

const (
	busyTries     = 4                // of a call that is turned away
	retryAfterMax = 10 * time.Second // whatever the node says
)

// send sends a request. If it is turned away because the node has too much to do,
// which is before anything is done, it is sent again after a while, a few times.
func (c *Client) send(ctx context.Context, request func() (*http.Request, error)) (*http.Response, error) {
	for try := 1; ; try++ {
		req, err := request()
		if err != nil {
			return nil, err
		}
		if c.self != "" {
			req.Header.Set(forwardHeader, c.self)
		}
		res, err := c.do(req)
		if err != nil || res.StatusCode != http.StatusTooManyRequests || try == busyTries {
			return res, err
		}
		_ = res.Body.Close()
		timer := time.NewTimer(waitOf(res.Header))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// do sends a request once. What takes connections and never answers, as Kafka does at another
// port, would be waited for for ever: after a while it is asked something that a node answers
// at once.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	if c.self != "" {
		return c.http.Do(req) // nodes bound their calls to each other
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	silent, begun := context.WithCancel(ctx)
	asking := time.AfterFunc(c.patience, func() {
		if err := c.answers(silent); err != nil && silent.Err() == nil {
			cancel(fmt.Errorf("something takes connections there and does not answer: %w", err))
		}
	})
	res, err := c.http.Do(req.WithContext(ctx))
	asking.Stop()
	begun()
	if err != nil {
		if req.Context().Err() == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		cancel(nil)
		return nil, err
	}
	res.Body = endingBody{res.Body, func() { cancel(nil) }}
	return res, nil
}

// answers asks the server whether it is alive; any answer in HTTP will do.
func (c *Client) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.patience, fmt.Errorf("not even /healthz within %s", c.patience))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+"/healthz", nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return err
	}
	return res.Body.Close()
}

// endingBody is the body of an answer whose context ends with it.
type endingBody struct {
	io.ReadCloser
	end func()
}

func (b endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// waitOf is what an answer says of when to try again.
func waitOf(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return retryAfter
	}
	return min(time.Duration(seconds)*time.Second, retryAfterMax)
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its text repeats method and address
	}
	if c.self != "" {
		return events.Errorf(events.KindNotReady, "node at %s cannot be reached: %w", c.server, err)
	}
	return events.Errorf(events.KindNotReady, "node at %s cannot be reached: %w; is it running? (--server or EVENKEEL_SERVER says where)", c.server, err)
}

func httpError(server string, status int, text []byte) error {
	message := strings.TrimSpace(string(text[:min(len(text), 500)]))
	switch status {
	case http.StatusRequestEntityTooLarge:
		return events.Errorf(events.KindInvalid, "%s: HTTP %d: %s", server, status, message)
	case http.StatusTooManyRequests:
		return events.Errorf(events.KindNotReady, "node at %s: HTTP %d: %s", server, status, message)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return events.Errorf(events.KindNotReady, "node at %s does not serve at present: HTTP %d: %s", server, status, message)
	}
	return events.Errorf(events.KindFailed, "%s is no Evenkeel node, or refused the request: HTTP %d: %s", server, status, message)
}
