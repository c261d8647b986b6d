package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/prune"
	"github.com/evenkeel/evenkeel/snapshotter/timeline"
	"github.com/evenkeel/evenkeel/snapshotter/verify"
)

// fakeNode does what its functions say, and remembers what it was asked. A
// method without a function fails.
type fakeNode struct {
	do    func(ctx context.Context, method string, params any) (any, error)
	ready func() error
	watch func(ctx context.Context, p api.WatchParams, emit func(api.Change) error) error
}

var _ api.Node = (*fakeNode)(nil)

func ask[R any](ctx context.Context, n *fakeNode, method string, params any) (*R, error) {
	if n.do == nil {
		return nil, events.Errorf(events.KindFailed, "the test expects no %s", method)
	}
	result, err := n.do(ctx, method, params)
	if err != nil {
		return nil, err
	}
	return result.(*R), nil
}

func (n *fakeNode) Put(ctx context.Context, p api.PutParams) (*api.PutResult, error) {
	return ask[api.PutResult](ctx, n, "put", p)
}

func (n *fakeNode) Load(ctx context.Context, p api.LoadParams) (*api.LoadResult, error) {
	return ask[api.LoadResult](ctx, n, "load", p)
}

func (n *fakeNode) Landed(ctx context.Context, p api.LandedParams) (*api.LandedResult, error) {
	return ask[api.LandedResult](ctx, n, "landed", p)
}

func (n *fakeNode) Outcome(ctx context.Context, p api.OutcomeParams) (*api.Outcome, error) {
	return ask[api.Outcome](ctx, n, "outcome", p)
}

func (n *fakeNode) Get(ctx context.Context, p api.GetParams) (*api.Entry, error) {
	return ask[api.Entry](ctx, n, "get", p)
}

func (n *fakeNode) Scan(ctx context.Context, p api.ScanParams) (*api.ScanResult, error) {
	return ask[api.ScanResult](ctx, n, "scan", p)
}

func (n *fakeNode) Watch(ctx context.Context, p api.WatchParams, emit func(api.Change) error) error {
	if n.watch == nil {
		return events.Errorf(events.KindFailed, "the test expects no watch")
	}
	return n.watch(ctx, p, emit)
}

func (n *fakeNode) History(ctx context.Context, p api.HistoryParams) (*api.HistoryPart, error) {
	return ask[api.HistoryPart](ctx, n, "history", p)
}

func (n *fakeNode) Status(ctx context.Context) (*api.Status, error) {
	return ask[api.Status](ctx, n, "status", nil)
}

func (n *fakeNode) Lag(ctx context.Context) (*api.Lag, error) {
	return ask[api.Lag](ctx, n, "lag", nil)
}

func (n *fakeNode) CreateBackup(ctx context.Context) (*api.Backup, error) {
	return ask[api.Backup](ctx, n, "backup.create", nil)
}

func (n *fakeNode) ShowBackup(ctx context.Context, p api.ShowBackupParams) (*api.BackupDetails, error) {
	return ask[api.BackupDetails](ctx, n, "backup.show", p)
}

func (n *fakeNode) GetAt(ctx context.Context, p api.GetAtParams) (*api.EntryAt, error) {
	return ask[api.EntryAt](ctx, n, "backup.get", p)
}

func (n *fakeNode) ScanAt(ctx context.Context, p api.ScanAtParams) (*api.ScanAtResult, error) {
	return ask[api.ScanAtResult](ctx, n, "backup.scan", p)
}

func (n *fakeNode) VerifyBackups(ctx context.Context, p api.VerifyBackupsParams) (*verify.Report, error) {
	return ask[verify.Report](ctx, n, "backup.verify", p)
}

func (n *fakeNode) BackupStatus(ctx context.Context) (*api.BackupStatus, error) {
	return ask[api.BackupStatus](ctx, n, "backup.status", nil)
}

func (n *fakeNode) PruneBackups(ctx context.Context, p api.PruneBackupsParams) (*prune.Report, error) {
	return ask[prune.Report](ctx, n, "backup.prune", p)
}

func (n *fakeNode) CopyBackups(ctx context.Context, p api.CopyBackupsParams) (*api.CopyResult, error) {
	return ask[api.CopyResult](ctx, n, "backup.copy", p)
}

func (n *fakeNode) ThawBackup(ctx context.Context, p api.ThawBackupParams) (*api.Thawed, error) {
	return ask[api.Thawed](ctx, n, "backup.thaw", p)
}

func (n *fakeNode) DrillRestore(ctx context.Context) (*format.Drill, error) {
	return ask[format.Drill](ctx, n, "drill.restore", nil)
}

func (n *fakeNode) ListDrills(ctx context.Context, p api.ListDrillsParams) (*api.DrillList, error) {
	return ask[api.DrillList](ctx, n, "drill.list", p)
}

func (n *fakeNode) ListBackups(ctx context.Context) (*api.BackupList, error) {
	return ask[api.BackupList](ctx, n, "backup.list", nil)
}

func (n *fakeNode) PlanRestore(ctx context.Context, p api.PlanRestoreParams) (*timeline.Plan, error) {
	return ask[timeline.Plan](ctx, n, "restore.plan", p)
}

func (n *fakeNode) Restore(ctx context.Context, p api.RestoreParams) (*api.Restored, error) {
	return ask[api.Restored](ctx, n, "restore.run", p)
}

func (n *fakeNode) RestoreShards(ctx context.Context, p api.RestoreShardsParams) (*api.RestoringShards, error) {
	return ask[api.RestoringShards](ctx, n, "restore.shards", p)
}

func (n *fakeNode) RestoreKeys(ctx context.Context, p api.RestoreKeysParams) (*api.RestoredKeys, error) {
	return ask[api.RestoredKeys](ctx, n, "restore.keys", p)
}

func (n *fakeNode) Check(ctx context.Context, p api.CheckParams) (*api.Check, error) {
	return ask[api.Check](ctx, n, "check", p)
}

func (n *fakeNode) Acknowledge(ctx context.Context, p api.AcknowledgeParams) (*api.Acknowledged, error) {
	return ask[api.Acknowledged](ctx, n, "check.acknowledge", p)
}

func (n *fakeNode) ListLinks(ctx context.Context) (*api.LinkList, error) {
	return ask[api.LinkList](ctx, n, "links.list", nil)
}

func (n *fakeNode) ShowLink(ctx context.Context, p api.ShowLinkParams) (*api.LinkDetails, error) {
	return ask[api.LinkDetails](ctx, n, "links.show", p)
}

func (n *fakeNode) PauseLink(ctx context.Context, p api.PauseLinkParams) (*api.LinkPaused, error) {
	return ask[api.LinkPaused](ctx, n, "links.pause", p)
}

func (n *fakeNode) UnpauseLink(ctx context.Context, p api.PauseLinkParams) (*api.LinkPaused, error) {
	return ask[api.LinkPaused](ctx, n, "links.unpause", p)
}

func (n *fakeNode) ResumeLink(ctx context.Context, p api.ResumeLinkParams) (*api.LinkResumed, error) {
	return ask[api.LinkResumed](ctx, n, "links.resume", p)
}

func (n *fakeNode) VerifyLink(ctx context.Context, p api.VerifyLinkParams) (*replicator.Verified, error) {
	return ask[replicator.Verified](ctx, n, "links.verify", p)
}

func (n *fakeNode) ListModels(ctx context.Context) (*api.ModelList, error) {
	return ask[api.ModelList](ctx, n, "models.list", nil)
}

func (n *fakeNode) ShowModel(ctx context.Context, p api.ShowModelParams) (*api.ModelDetails, error) {
	return ask[api.ModelDetails](ctx, n, "models.show", p)
}

func (n *fakeNode) RebuildModel(ctx context.Context, p api.RebuildModelParams) (*api.ModelDetails, error) {
	return ask[api.ModelDetails](ctx, n, "models.rebuild", p)
}

func (n *fakeNode) QueryModel(ctx context.Context, p api.QueryModelParams) (*api.ModelRows, error) {
	return ask[api.ModelRows](ctx, n, "models.query", p)
}

func (n *fakeNode) Slices(ctx context.Context, p api.SlicesParams) (*api.SlicesPage, error) {
	return ask[api.SlicesPage](ctx, n, "slices", p)
}

func (n *fakeNode) Applied(ctx context.Context, p api.AppliedParams) (*api.Applied, error) {
	return ask[api.Applied](ctx, n, "applied", p)
}

func (n *fakeNode) ParkedReasons(ctx context.Context, p api.ParkedParams) (*api.Parked, error) {
	return ask[api.Parked](ctx, n, "parked", p)
}

func (n *fakeNode) BackupShards(ctx context.Context, p api.BackupShardsParams) (*api.ShardBackups, error) {
	return ask[api.ShardBackups](ctx, n, "backup.shards", p)
}

func (n *fakeNode) ModelShards(ctx context.Context, p api.ModelShardsParams) (*api.ModelShards, error) {
	return ask[api.ModelShards](ctx, n, "models.shards", p)
}

func (n *fakeNode) RebuildShards(ctx context.Context, p api.RebuildShardsParams) (*api.ModelShards, error) {
	return ask[api.ModelShards](ctx, n, "models.rebuild_shards", p)
}

func (n *fakeNode) ModelPage(ctx context.Context, p api.ModelPageParams) (*api.ModelPage, error) {
	return ask[api.ModelPage](ctx, n, "models.page", p)
}

func (n *fakeNode) Ready(context.Context) error {
	if n.ready == nil {
		return nil
	}
	return n.ready()
}

// maxBody is the largest body that served nodes take.
const maxBody = 64 << 10

// served is a node behind its handler, and clients of it.
type served struct {
	*testing.T
	*api.Client
	handler *api.Handler
	url     string
	log     *strings.Builder // what the handler logged; read it once the calls are over
}

func serve(t *testing.T, node *fakeNode) *served {
	t.Helper()
	s := &served{T: t, log: &strings.Builder{}}
	s.handler = api.NewHandler(node, maxBody, slog.New(slog.NewTextHandler(s.log, nil)))
	server := httptest.NewServer(s.handler)
	s.url = server.URL
	s.Client = newClient(t, server.URL)
	t.Cleanup(func() {
		server.CloseClientConnections()
		if err := s.handler.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		server.Close()
	})
	return s
}

func newClient(t *testing.T, url string) *api.Client {
	t.Helper()
	client, err := api.NewClient(url)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// post sends a body to /rpc as JSON.
func (s *served) post(body string) (status int, answer string) {
	s.Helper()
	return s.send(http.MethodPost, "/rpc", "application/json", strings.NewReader(body))
}

// send sends a request. Whatever it is, who is turned away is told when to come again, and
// nobody else is.
func (s *served) send(method, path, contentType string, body io.Reader) (status int, answer string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+path, body)
	if err != nil {
		s.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	wantAfter := ""
	if res.StatusCode == http.StatusTooManyRequests {
		wantAfter = "1"
	}
	if after := res.Header.Get("Retry-After"); after != wantAfter {
		s.Errorf("%s %s: HTTP %d with Retry-After %q, want %q", method, path, res.StatusCode, after, wantAfter)
	}
	return res.StatusCode, strings.TrimSpace(string(text))
}

// wantKind checks an error's kind and parts of its text.
func wantKind(t testing.TB, err error, kind events.Kind, parts ...string) {
	t.Helper()
	if got := events.KindOf(err); got != kind {
		t.Errorf("error %v is of kind %q, want %q", err, got, kind)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}
