package objstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

func TestErrorText(t *testing.T) {
	for _, test := range []struct {
		err  Error
		want string
	}{
		{Error{Op: OpCheck, Bucket: `bucket "x" at http://h:1`, Kind: ErrNoBucket},
			`bucket "x" at http://h:1: check: bucket does not exist; create it or check backup.bucket`},
		{Error{Op: OpGet, Bucket: `bucket "x"`, Object: "a/b", Kind: ErrNotFound}, `bucket "x": get "a/b": no such object`},
		{Error{Op: OpCreate, Object: "a//b", Kind: ErrInvalid, Err: ValidateName("a//b")},
			`create "a//b": invalid request: name "a//b" has an empty segment`},
		{Error{Op: OpList, Err: context.Canceled, Hint: "do this"}, `list: context canceled; do this`},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func TestIsTemporary(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("other"), false},
		{context.DeadlineExceeded, false},
		{&Error{Op: OpGet, Err: context.Canceled}, false},
		{ErrUnavailable, true},
		{fmt.Errorf("reading: %w", &Error{Op: OpDelete, Kind: ErrUnavailable}), true},
		{fmt.Errorf("reading: %w", &Error{Op: OpGet, Kind: ErrCorrupt}), true},
		{&Error{Op: OpGetRange, Kind: ErrCorrupt}, true},
		{&Error{Op: OpCreate, Kind: ErrCorrupt}, false},
		{&Error{Op: OpList, Kind: ErrCorrupt}, false},
		{&Error{Op: OpCreate, Kind: ErrExists}, false},
		{&Error{Op: OpGet, Kind: ErrAccess}, false},
		{&Error{Op: OpGet, Kind: ErrNoBucket}, false},
		{&Error{Op: OpGet, Kind: ErrNotFound}, false},
		{&Error{Op: OpGet}, false},
	} {
		if got := IsTemporary(test.err); got != test.want {
			t.Errorf("IsTemporary(%v) = %t", test.err, got)
		}
	}
}

func TestS3ConfigValidate(t *testing.T) {
	good := S3Config{Bucket: "bucket"}
	for _, c := range []S3Config{
		good,
		{Bucket: "b.u-c_K3t", Prefix: "a/b/", Endpoint: "https://s3.example.com:9000/", Region: "eu-central-1", Attempts: 20},
		{Bucket: "bucket", Endpoint: "http://127.0.0.1:7070", PathStyle: true},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for want, change := range map[string]func(*S3Config){
		"bucket: missing":                func(c *S3Config) { c.Bucket = "" },
		"belongs into prefix":            func(c *S3Config) { c.Bucket = "s3://bucket/folder" },
		"is not a bucket name":           func(c *S3Config) { c.Bucket = "no spaces" },
		"prefix: ":                       func(c *S3Config) { c.Prefix = "/a" },
		"must start with http":           func(c *S3Config) { c.Endpoint = "s3.example.com:9000" },
		"must not contain credentials":   func(c *S3Config) { c.Endpoint = "http://user:hunter2@host" },
		"endpoint: not a URL":            func(c *S3Config) { c.Endpoint = "http://user:hunter2@host:port" },
		"scheme, host and port only":     func(c *S3Config) { c.Endpoint = "http://host/hunter2?X-Amz-Signature=hunter2" },
		"has no host":                    func(c *S3Config) { c.Endpoint = "http://:80" },
		"needs path style":               func(c *S3Config) { c.Endpoint = "http://[::1]:80" },
		"region: ":                       func(c *S3Config) { c.Region = "EU" },
		"attempts: 21 is not in 0 to 20": func(c *S3Config) { c.Attempts = 21 },
		"timeouts: none may be negative": func(c *S3Config) { c.StallTimeout = -time.Second },
		"prefix: invalid request: empty": func(c *S3Config) { c.Prefix = "/" },
	} {
		c := good
		change(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
		if _, newErr := NewS3(t.Context(), c); newErr == nil {
			t.Errorf("NewS3 took %+v", c)
		}
	}
	err := S3Config{Region: "EU", Attempts: -1}.Validate()
	for _, part := range []string{"bucket: missing", "region: ", "attempts: "} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("not every error at once: %v lacks %q", err, part)
		}
	}
}

func TestS3String(t *testing.T) {
	creds := aws.AnonymousCredentials{}
	for want, c := range map[string]S3Config{
		`bucket "bkt" in eu-west-1`:                       {Bucket: "bkt", Region: "eu-west-1", Credentials: creds},
		`bucket "bkt" at https://h.example under a/b/`:    {Bucket: "bkt", Region: "x", Endpoint: "https://h.example/", Prefix: "a/b", Credentials: creds},
		`bucket "bkt" at https://h.example:9000 under a/`: {Bucket: "bkt", Region: "x", Endpoint: "https://h.example:9000", Prefix: "a/", Credentials: creds},
	} {
		s, err := NewS3(t.Context(), c)
		if err != nil || s.String() != want {
			t.Errorf("got %v, %v, want %s", s, err, want)
		}
	}
}
