package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/handler"

	"github.com/evenkeel/evenkeel/events"
)

// Handler serves a node: POST /rpc, GET /watch, GET /healthz, GET /readyz. Close
// ends the calls under way.
type Handler struct {
	mux          *http.ServeMux
	methods      handler.Map
	calls        *calls
	maxBodyBytes int64
	log          *slog.Logger
	watching     requests // they end before the calls do
}

var _ http.Handler = (*Handler)(nil)

// NewHandler makes a handler that accepts bodies of up to maxBodyBytes.
func NewHandler(node Node, maxBodyBytes int64, log *slog.Logger) *Handler {
	h := &Handler{mux: http.NewServeMux(), calls: newCalls(maxBodyBytes), maxBodyBytes: maxBodyBytes, log: log}
	c := h.calls
	h.methods = handler.Map{
		"put":                   c.bounded(c.writes, method(node.Put)),
		"load":                  c.bounded(c.writes, method(node.Load)),
		"landed":                c.bounded(c.searches, method(node.Landed)),
		"outcome":               c.bounded(c.reads, method(node.Outcome)),
		"get":                   c.bounded(c.reads, method(node.Get)),
		"scan":                  c.bounded(c.reads, method(node.Scan)),
		"history":               c.bounded(c.searches, method(node.History)),
		"status":                plainMethod(node.Status), // answered even if everything else hangs
		"lag":                   c.bounded(c.admin, plainMethod(node.Lag)),
		"backup.create":         c.bounded(c.admin, plainMethod(node.CreateBackup)),
		"backup.list":           c.bounded(c.admin, plainMethod(node.ListBackups)),
		"restore.plan":          c.bounded(c.admin, method(node.PlanRestore)),
		"restore.run":           c.bounded(c.admin, method(node.Restore)),
		"restore.shards":        c.bounded(c.admin, method(node.RestoreShards)),
		"restore.keys":          c.bounded(c.admin, method(node.RestoreKeys)),
		"links.list":            c.bounded(c.admin, plainMethod(node.ListLinks)),
		"links.show":            c.bounded(c.admin, method(node.ShowLink)),
		"links.pause":           c.bounded(c.admin, method(node.PauseLink)),
		"links.unpause":         c.bounded(c.admin, method(node.UnpauseLink)),
		"links.resume":          c.bounded(c.admin, method(node.ResumeLink)),
		"links.verify":          c.bounded(c.searches, method(node.VerifyLink)),
		"models.list":           c.bounded(c.admin, plainMethod(node.ListModels)),
		"models.show":           c.bounded(c.admin, method(node.ShowModel)),
		"models.rebuild":        c.bounded(c.admin, method(node.RebuildModel)),
		"models.query":          c.bounded(c.reads, method(node.QueryModel)),
		"check":                 c.bounded(c.reads, method(node.Check)),
		"check.acknowledge":     c.bounded(c.admin, method(node.Acknowledge)),
		"backup.show":           c.bounded(c.admin, method(node.ShowBackup)),
		"backup.get":            c.bounded(c.searches, method(node.GetAt)),
		"backup.scan":           c.bounded(c.searches, method(node.ScanAt)),
		"backup.verify":         c.bounded(c.admin, method(node.VerifyBackups)),
		"backup.status":         c.bounded(c.admin, plainMethod(node.BackupStatus)),
		"backup.prune":          c.bounded(c.admin, method(node.PruneBackups)),
		"backup.copy":           c.bounded(c.admin, method(node.CopyBackups)),
		"backup.thaw":           c.bounded(c.admin, method(node.ThawBackup)),
		"drill.restore":         c.bounded(c.admin, plainMethod(node.DrillRestore)),
		"drill.list":            c.bounded(c.admin, method(node.ListDrills)),
		"slices":                c.bounded(c.inner, method(node.Slices)),
		"applied":               c.bounded(c.inner, method(node.Applied)),
		"parked":                c.bounded(c.inner, method(node.ParkedReasons)),
		"backup.shards":         c.bounded(c.inner, method(node.BackupShards)),
		"models.shards":         c.bounded(c.inner, method(node.ModelShards)),
		"models.rebuild_shards": c.bounded(c.inner, method(node.RebuildShards)),
		"models.page":           c.bounded(c.inner, method(node.ModelPage)),
	}
	h.mux.HandleFunc("GET /watch", h.serveWatch(node))
	h.mux.HandleFunc("POST /rpc", h.serveRPC)
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

// Close ends the calls under way, waits for them and refuses later ones.
func (h *Handler) Close() error {
	h.watching.close()
	h.calls.close()
	return nil
}

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
		result, err := f(ctx, params)
		if err != nil {
			return nil, jrpc2.Errorf(codeOfError(err), "%s", err)
		}
		return result, nil
	}
}

// plainMethod makes a JSON-RPC method of a function without parameters.
func plainMethod[R any](f func(context.Context) (*R, error)) jrpc2.Handler {
	return method(func(ctx context.Context, _ struct{}) (*R, error) { return f(ctx) })
}

// kindOfAnswer is events.KindOf for what a node answers: a call that was cut
// off or took too long may do better next time.
func kindOfAnswer(err error) events.Kind {
	kind := events.KindOf(err)
	if kind == events.KindFailed && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return events.KindNotReady
	}
	return kind
}
