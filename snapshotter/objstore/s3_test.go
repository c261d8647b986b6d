package objstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// everyOp calls every method once and returns the errors.
func everyOp(ctx context.Context, b objstore.Bucket) map[string]error {
	_, _, get := b.Get(ctx, "n")
	_, getRange := b.GetRange(ctx, "n", 0, 1)
	_, stat := b.Stat(ctx, "n")
	var list error
	for _, list = range b.List(ctx, "") {
		break
	}
	return map[string]error{
		objstore.OpGet: get, objstore.OpGetRange: getRange, objstore.OpStat: stat, objstore.OpList: list,
		objstore.OpCreate: b.Create(ctx, "n", nil), objstore.OpDelete: b.Delete(ctx, "n"), objstore.OpCheck: b.Check(ctx),
	}
}

func TestS3MissingBucket(t *testing.T) {
	cfg := s3Config()
	cfg.Bucket = "no-such-bucket"
	b := openS3(t, cfg)
	for op, err := range everyOp(t.Context(), b) {
		if !errors.Is(err, objstore.ErrNoBucket) || errors.Is(err, objstore.ErrNotFound) || objstore.IsTemporary(err) {
			t.Errorf("%s: %v, want ErrNoBucket", op, err)
			continue
		}
		for _, part := range []string{`bucket "no-such-bucket" at ` + cfg.Endpoint, op, "does not exist", "create it or check backup.bucket"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not contain %q", op, err, part)
			}
		}
	}
}

func TestS3WrongCredentials(t *testing.T) {
	for name, test := range map[string]struct{ key, secret, hint string }{
		"unknown key":  {"AKIAUNKNOWNKEY", s3server.DefaultSecretKey, "check the access key"},
		"wrong secret": {s3server.DefaultAccessKey, "a-wrong-secret-key", "check the secret key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := s3Config()
			cfg.Credentials = credentials.NewStaticCredentialsProvider(test.key, test.secret, "")
			for op, err := range everyOp(t.Context(), openS3(t, cfg)) {
				if !errors.Is(err, objstore.ErrAccess) || objstore.IsTemporary(err) {
					t.Errorf("%s: %v, want ErrAccess", op, err)
					continue
				}
				if strings.Contains(err.Error(), test.key) || strings.Contains(err.Error(), test.secret) {
					t.Errorf("%s: secrets in %q", op, err)
				}
				if op != objstore.OpStat && !strings.Contains(err.Error(), test.hint) { // a HEAD has no code
					t.Errorf("%s: %q does not say %q", op, err, test.hint)
				}
			}
		})
	}
}

// closedPort returns the URL of an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return "http://" + l.Addr().String()
}

func TestS3Unreachable(t *testing.T) {
	cfg := s3Config()
	cfg.Endpoint, cfg.Attempts = closedPort(t), 2
	begin := time.Now()
	for op, err := range everyOp(t.Context(), openS3(t, cfg)) {
		if !errors.Is(err, objstore.ErrUnavailable) || !objstore.IsTemporary(err) {
			t.Errorf("%s: %v, want ErrUnavailable", op, err)
		}
		if !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), cfg.Endpoint) {
			t.Errorf("%s: %v says neither why nor where", op, err)
		}
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

// A server that accepts and never answers must not hold a Check.
func TestS3CheckIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := s3Config()
	cfg.Endpoint, cfg.CheckTimeout = "http://"+l.Addr().String(), 100*time.Millisecond
	err = openS3(t, cfg).Check(t.Context())
	if !errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 100ms") {
		t.Errorf("Check: %v", err)
	}
	cfg.CheckTimeout, cfg.StallTimeout, cfg.Attempts = 0, 50*time.Millisecond, 2
	b := openS3(t, cfg)
	if _, err = b.Stat(t.Context(), "n"); !errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("Stat: %v", err)
	}
}

func TestS3DeadEndpointFailsInSeconds(t *testing.T) {
	cfg := s3Config()
	cfg.Endpoint = closedPort(t) // all timeouts and attempts at their defaults
	begin := time.Now()
	if err := openS3(t, cfg).Check(t.Context()); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Check: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

// The default chain ends at a metadata service; one that hangs is what machines
// outside of AWS see.
func TestS3NoCredentials(t *testing.T) {
	hang := make(chan struct{})
	metadata := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer metadata.Close()
	defer close(hang)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/does/not/exist")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/does/not/exist")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.URL)

	cfg := s3Config()
	cfg.Credentials, cfg.CredentialsTimeout = nil, 200*time.Millisecond
	b := openS3(t, cfg)
	begin := time.Now()
	err := b.Check(t.Context())
	if !errors.Is(err, objstore.ErrAccess) {
		t.Errorf("Check: %v, want ErrAccess", err)
	}
	for _, part := range []string{"no credentials", "nothing found within 200ms", "AWS_ACCESS_KEY_ID"} {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not contain %q", err, part)
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	if _, err := b.Stat(t.Context(), "n"); !errors.Is(err, objstore.ErrAccess) {
		t.Errorf("Stat: %v, want ErrAccess", err)
	}

	// The chain does work once there is something to find.
	t.Setenv("AWS_ACCESS_KEY_ID", s3server.DefaultAccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3server.DefaultSecretKey)
	cfg.Region = ""
	if err := openS3(t, cfg).Check(t.Context()); err != nil {
		t.Errorf("Check with credentials from the environment: %v", err)
	}
	cfg.Endpoint = ""
	if _, err := objstore.NewS3(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "set backup.region") {
		t.Errorf("neither region nor endpoint: %v", err)
	}
}

// isPut reports whether r is an upload.
func isPut(r *http.Request) bool { return r.Method == http.MethodPut }

// The store has the object, the answer is lost: the SDK's retry meets its own
// object and Create must recognise it.
func TestS3CreateAnswerLost(t *testing.T) {
	var lost atomic.Int64
	p := &proxy{after: func(r *http.Response) error {
		if isPut(r.Request) && r.StatusCode == http.StatusOK && lost.Add(1) == 1 {
			return errors.New("lost")
		}
		return nil
	}}
	b := p.open(t)
	body := bytes.Repeat([]byte("body"), 50_000)
	if err := b.Create(t.Context(), "n", body); err != nil {
		t.Fatal(err)
	}
	if lost.Load() != 1 {
		t.Errorf("%d uploads were stored", lost.Load())
	}
	if got, err := objstore.ReadAll(t.Context(), b, "n", 1<<20); err != nil || !bytes.Equal(got, body) {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
	if err := b.Create(t.Context(), "n", append(body[:len(body)-1:len(body)-1], 'Y')); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("other bytes of the same length: %v", err)
	}
}

// A store that refuses a large upload early and closes the connection: the
// client sees a reset, never the 412.
func TestS3CreateNeverAnswered(t *testing.T) {
	cut := false
	p := &proxy{before: func(_ http.ResponseWriter, r *http.Request) bool {
		if cut && isPut(r) {
			panic(http.ErrAbortHandler)
		}
		return false
	}}
	b := p.open(t, func(c *objstore.S3Config) { c.Attempts = 2 })
	body := bytes.Repeat([]byte("body"), 50_000)
	if err := b.Create(t.Context(), "n", body); err != nil {
		t.Fatal(err)
	}
	cut = true
	if err := b.Create(t.Context(), "n", body); err != nil {
		t.Errorf("the same bytes: %v", err)
	}
	if err := b.Create(t.Context(), "n", body[1:]); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("other bytes: %v, want ErrExists", err)
	}
	if err := b.Create(t.Context(), "other", body); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("a free name: %v, want ErrUnavailable", err)
	}
}

func TestS3ConflictIsRetried(t *testing.T) {
	var puts atomic.Int64
	p := &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		if isPut(r) && puts.Add(1) <= 2 {
			s3Error(w, http.StatusConflict, "ConditionalRequestConflict", "a conflicting operation is under way")
			return true
		}
		return false
	}}
	if err := p.open(t).Create(t.Context(), "n", []byte("body")); err != nil {
		t.Error(err)
	}
	if puts.Load() != 3 {
		t.Errorf("%d uploads, want 3", puts.Load())
	}
}

func TestS3ConflictForEver(t *testing.T) {
	var puts atomic.Int64
	p := &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		if !isPut(r) {
			return false
		}
		puts.Add(1)
		s3Error(w, http.StatusConflict, "ConditionalRequestConflict", "a conflicting operation is under way")
		return true
	}}
	b := p.open(t, func(c *objstore.S3Config) { c.Attempts = 3 })
	err := b.Create(t.Context(), "n", []byte("body"))
	if !errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "ConditionalRequestConflict") {
		t.Errorf("Create: %v", err)
	}
	if n := puts.Load(); n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
	ctx, stop := context.WithCancel(t.Context())
	p.before = func(w http.ResponseWriter, _ *http.Request) bool {
		stop() // the caller gives up while the retry waits
		s3Error(w, http.StatusConflict, "ConditionalRequestConflict", "")
		return true
	}
	if err := b.Create(ctx, "n", nil); !errors.Is(err, context.Canceled) || objstore.IsTemporary(err) {
		t.Errorf("Create after cancel: %v", err)
	}
}

// Every upload carries what the contract leans on, as plain headers.
func TestS3UploadHeaders(t *testing.T) {
	body := []byte("body")
	digest := sha256.Sum256(body)
	var seen http.Header
	p := &proxy{before: func(_ http.ResponseWriter, r *http.Request) bool {
		if isPut(r) {
			seen = r.Header.Clone()
		}
		return false
	}}
	if err := p.open(t).Create(t.Context(), "n", body); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"If-None-Match":         "*",
		"X-Amz-Checksum-Sha256": base64.StdEncoding.EncodeToString(digest[:]),
		"Content-Encoding":      "", // no aws-chunked
		"X-Amz-Trailer":         "",
	} {
		if got := seen.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestS3UploadDamagedOnTheWay(t *testing.T) {
	var puts atomic.Int64
	p := &proxy{before: func(_ http.ResponseWriter, r *http.Request) bool {
		if isPut(r) && puts.Add(1) == 1 {
			r.Body = io.NopCloser(strings.NewReader("bodY"))
		}
		return false
	}}
	b := p.open(t)
	err := b.Create(t.Context(), "n", []byte("body"))
	if err == nil { // a store may let the SDK try again
		if got, err := objstore.ReadAll(t.Context(), b, "n", 10); err != nil || string(got) != "body" {
			t.Errorf("stored %q, %v", got, err)
		}
	} else if _, statErr := b.Stat(t.Context(), "n"); !errors.Is(err, objstore.ErrCorrupt) || !errors.Is(statErr, objstore.ErrNotFound) {
		t.Errorf("Create: %v; Stat: %v", err, statErr)
	}
}

// What the store says after the upload is compared with what was sent.
func TestS3StoreHoldsSomethingElse(t *testing.T) {
	for name, change := range map[string]func(*http.Response){
		"size": func(r *http.Response) { r.Header.Set("Content-Length", "3") },
		"checksum": func(r *http.Response) {
			r.Header.Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(make([]byte, 32)))
		},
		"nothing": func(r *http.Response) { r.StatusCode = http.StatusNotFound },
	} {
		t.Run(name, func(t *testing.T) {
			p := &proxy{after: func(r *http.Response) error {
				if r.Request.Method == http.MethodHead && strings.HasSuffix(r.Request.URL.Path, "/n") {
					change(r)
				}
				return nil
			}}
			err := p.open(t).Create(t.Context(), "n", []byte("body"))
			if !errors.Is(err, objstore.ErrCorrupt) || objstore.IsTemporary(err) {
				t.Errorf("Create: %v, want a permanent ErrCorrupt", err)
			}
		})
	}
}

func TestS3DamagedReads(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 1000)
	for name, test := range map[string]struct {
		change func(io.Reader) io.Reader
		ranges bool // found in ranges too
	}{
		"cut":     {func(r io.Reader) io.Reader { return io.LimitReader(r, 777) }, true},
		"changed": {func(r io.Reader) io.Reader { return io.MultiReader(strings.NewReader("X"), skip(r, 1)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &proxy{after: func(r *http.Response) error {
				if r.Request.Method == http.MethodGet {
					r.Body = struct {
						io.Reader
						io.Closer
					}{test.change(r.Body), r.Body}
				}
				return nil
			}}
			b := p.open(t)
			if err := b.Create(t.Context(), "n", body); err != nil {
				t.Fatal(err)
			}
			_, err := objstore.ReadAll(t.Context(), b, "n", 1<<20)
			if !errors.Is(err, objstore.ErrCorrupt) || !objstore.IsTemporary(err) {
				t.Errorf("Get: %v, want a temporary ErrCorrupt", err)
			}
			rc, err := b.GetRange(t.Context(), "n", 0, 5000)
			if err != nil {
				t.Fatal(err)
			}
			defer rc.Close()
			if _, err := io.Copy(io.Discard, rc); test.ranges && !errors.Is(err, objstore.ErrCorrupt) {
				t.Errorf("GetRange: %v, want ErrCorrupt", err)
			}
			unchecked, _, err := objstore.GetUnchecked(t.Context(), b, "n")
			if err != nil {
				t.Fatal(err)
			}
			defer unchecked.Close()
			got, err := io.ReadAll(unchecked)
			if test.ranges != errors.Is(err, objstore.ErrCorrupt) || err == nil && bytes.Equal(got, body) {
				t.Errorf("GetUnchecked: %d bytes, %v", len(got), err)
			}
		})
	}
}

func skip(r io.Reader, n int64) io.Reader {
	_, _ = io.CopyN(io.Discard, r, n) // a short body shows later
	return r
}

func TestS3OddAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answer    http.HandlerFunc
		kind      error
		temporary bool
		says      string
	}{
		"throttled": {func(w http.ResponseWriter, _ *http.Request) {
			s3Error(w, http.StatusServiceUnavailable, "SlowDown", "reduce your request rate")
		}, objstore.ErrUnavailable, true, "SlowDown (HTTP 503)"},
		"other region": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			s3Error(w, http.StatusMovedPermanently, "PermanentRedirect", "use another endpoint")
		}, nil, false, "check backup.region"},
		"clock": {func(w http.ResponseWriter, _ *http.Request) {
			s3Error(w, http.StatusForbidden, "RequestTimeTooSkewed", "the difference is too large")
		}, objstore.ErrAccess, false, "set this machine's clock"},
		"no conditional writes": {func(w http.ResponseWriter, _ *http.Request) {
			s3Error(w, http.StatusNotImplemented, "NotImplemented", "a header you provided implies functionality that is not implemented")
		}, nil, false, "conditional writes"},
		"a web site": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte("<html>no such page</html>"))
		}, nil, false, "HTTP 404"},
		"a broken gateway": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<html>no such site</html>"))
		}, objstore.ErrUnavailable, true, "HTTP 502"},
		"quotes the key": {func(w http.ResponseWriter, _ *http.Request) {
			s3Error(w, http.StatusForbidden, "AccessDenied", "key "+s3server.DefaultSecretKey+" is not good enough")
		}, objstore.ErrAccess, false, "key *** is not good enough"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &proxy{before: func(w http.ResponseWriter, r *http.Request) bool { test.answer(w, r); return true }}
			err := p.open(t, func(c *objstore.S3Config) { c.Attempts = 2 }).Create(t.Context(), "n", nil)
			var e *objstore.Error
			if !errors.As(err, &e) || e.Kind != test.kind || objstore.IsTemporary(err) != test.temporary {
				t.Errorf("Create: %v (%+v)", err, e)
			}
			if err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q does not say %q", err, test.says)
			}
		})
	}
}

// A store whose listing is not in byte order breaks whoever merges or resumes.
func TestS3ListOutOfOrder(t *testing.T) {
	p := &proxy{before: func(w http.ResponseWriter, r *http.Request) bool {
		prefix := r.URL.Query().Get("prefix")
		_, _ = fmt.Fprintf(w, "<ListBucketResult><Contents><Key>%sb</Key><Size>1</Size></Contents><Contents><Key>%sa</Key><Size>1</Size></Contents></ListBucketResult>",
			prefix, prefix)
		return true
	}}
	names := 0
	var err error
	for _, err = range p.open(t).List(t.Context(), "") {
		if err == nil {
			names++
		}
	}
	if names != 1 || !errors.Is(err, objstore.ErrCorrupt) {
		t.Errorf("%d names, then %v", names, err)
	}
}
