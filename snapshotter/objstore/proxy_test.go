package objstore_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

// proxy stands between a client and the test server. before may answer a request
// itself by returning true; after may change or refuse the server's answer, an
// error cuts the connection.
type proxy struct {
	before func(w http.ResponseWriter, r *http.Request) bool
	after  func(*http.Response) error
}

// open starts the proxy and returns a bucket that uses it.
func (p *proxy) open(t *testing.T, change ...func(*objstore.S3Config)) *objstore.S3 {
	t.Helper()
	target, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ModifyResponse: p.after,
		// The answer is lost: cut the connection without a word.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.before == nil || !p.before(w, r) {
			reverse.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	cfg := s3Config()
	cfg.Endpoint = front.URL
	for _, c := range change {
		c(&cfg)
	}
	return openS3(t, cfg)
}

// s3Error answers as S3 does.
func s3Error(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("<Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>"))
}
