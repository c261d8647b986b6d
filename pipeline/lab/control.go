package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/evenkeel/evenkeel/events"
)

// The control page: GET /regions lists addresses; POST /regions/NAME/stop,
// start, wipe and restore change one region.

// answer is what the control page says.
type answer struct {
	Error  string           `json:"error,omitempty"`
	Kind   events.Kind      `json:"kind,omitempty"`
	Result *json.RawMessage `json:"result,omitempty"`
}

func (l *Lab) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /regions", func(w http.ResponseWriter, _ *http.Request) { reply(w, l.Addresses(), nil) })
	change := func(verb string, do func(context.Context, events.Region) (any, error)) {
		mux.HandleFunc("POST /regions/{name}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			// A caller that goes away does not leave a change half done.
			result, err := do(context.WithoutCancel(r.Context()), events.Region(r.PathValue("name")))
			reply(w, result, err)
		})
	}
	change("stop", func(_ context.Context, name events.Region) (any, error) { return "stopped", l.StopRegion(name) })
	change("start", func(ctx context.Context, name events.Region) (any, error) { return "running", l.StartRegion(ctx, name) })
	change("wipe", func(_ context.Context, name events.Region) (any, error) { return "wiped", l.WipeRegion(name) })
	change("restore", func(ctx context.Context, name events.Region) (any, error) {
		return l.RestoreRegion(ctx, name, "")
	})
	return mux
}

func reply(w http.ResponseWriter, result any, err error) {
	var a answer
	status := http.StatusOK
	if err == nil {
		var text json.RawMessage
		text, err = json.Marshal(result)
		a.Result = &text
	}
	if err != nil {
		a = answer{Error: err.Error(), Kind: events.KindOf(err)}
		status = http.StatusConflict
		if a.Kind == events.KindNotFound {
			status = http.StatusNotFound
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a) // the caller may be gone
}

// Control calls the control page of a running lab: method and path as above.
// The result is JSON.
func Control(ctx context.Context, address, method, path string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address+path, http.NoBody)
	if err != nil {
		return nil, events.Errorf(events.KindInvalid, "lab %q: %w", address, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, events.Errorf(events.KindNotReady, "no lab answers at %s: %w; start one with: evenkeel-lab up", address, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	var a answer
	if err := json.Unmarshal(bytes.TrimSpace(text), &a); err != nil {
		return nil, fmt.Errorf("%s is no lab: HTTP %d", address, res.StatusCode)
	}
	if a.Error != "" {
		return nil, events.Errorf(a.Kind, "%s", a.Error)
	}
	if a.Result == nil {
		return nil, fmt.Errorf("%s is no lab: HTTP %d", address, res.StatusCode)
	}
	return *a.Result, nil
}
