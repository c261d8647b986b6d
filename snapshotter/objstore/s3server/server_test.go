package s3server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
)

func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func open(t *testing.T, s *Server, bucket string) *objstore.S3 {
	t.Helper()
	access, secret := s.Credentials()
	b, err := objstore.NewS3(t.Context(), objstore.S3Config{
		Bucket: bucket, Endpoint: s.URL(), Region: Region, PathStyle: true, Attempts: 2,
		Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func client(s *Server) *s3.Client {
	access, secret := s.Credentials()
	return s3.New(s3.Options{BaseEndpoint: aws.String(s.URL()), Region: Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(access, secret, "")})
}

func TestRestartKeepsData(t *testing.T) {
	dir := t.TempDir()
	first := startServer(t, Config{Dir: dir, Buckets: []string{"kept"}, AccessKey: "me", SecretKey: "my-secret"})
	addr := strings.TrimPrefix(first.URL(), "http://")
	if err := open(t, first, "kept").Create(t.Context(), "a/b", []byte("body")); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	// The port is free at once.
	second := startServer(t, Config{Dir: dir, Addr: addr, Buckets: []string{"kept", "new"}, AccessKey: "me", SecretKey: "my-secret"})
	if second.URL() != first.URL() {
		t.Errorf("URL %s, want %s", second.URL(), first.URL())
	}
	if got, err := objstore.ReadAll(t.Context(), open(t, second, "kept"), "a/b", 100); err != nil || string(got) != "body" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := open(t, second, "new").Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOnePerProcess(t *testing.T) {
	s := startServer(t, Config{Dir: t.TempDir()})
	if _, err := Start(Config{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "already running in this process") {
		t.Errorf("second Start: %v", err)
	}
	for range 2 { // the second Close does nothing
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	startServer(t, Config{Dir: t.TempDir()})
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Start(Config{Dir: t.TempDir(), Addr: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Start: %v", err)
	}
	startServer(t, Config{Dir: t.TempDir()}) // a failed Start leaves nothing behind
}

func TestBadConfig(t *testing.T) {
	if _, err := Start(Config{}); err == nil || !strings.Contains(err.Error(), "Dir is missing") {
		t.Errorf("no Dir: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Config{Dir: file}); err == nil {
		t.Error("a file as Dir is accepted")
	}
	if _, err := Start(Config{Dir: t.TempDir(), Buckets: []string{"Not A Bucket"}}); err == nil || !strings.Contains(err.Error(), `"Not A Bucket"`) {
		t.Errorf("bad bucket: %v", err)
	}
	startServer(t, Config{Dir: t.TempDir()})
}

// captureOutput collects what the process writes to stdout and stderr; the
// returned function puts them back and returns it.
func captureOutput(t *testing.T) (stop func() string) {
	t.Helper()
	stdout, stderr := os.Stdout, os.Stderr
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout, os.Stderr = out, out
	t.Cleanup(func() { os.Stdout, os.Stderr = stdout, stderr })
	return func() string {
		os.Stdout, os.Stderr = stdout, stderr
		body, err := os.ReadFile(out.Name())
		if err = errors.Join(err, out.Close()); err != nil {
			t.Error(err)
		}
		return string(body)
	}
}

// Close cuts connections that never sent anything and requests under way, and
// nobody prints anything about it.
func TestCloseIsBounded(t *testing.T) {
	output := captureOutput(t)
	defer func() {
		if s := output(); s != "" {
			t.Errorf("written to stdout or stderr: %q", s)
		}
	}()
	s := startServer(t, Config{Dir: t.TempDir(), Buckets: []string{"bucket"}})
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for _, send := range []string{"", "GET / HTT", "PUT /bucket/n HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nsome"} {
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if err := open(t, s, "bucket").Check(t.Context()); err != nil { // leaves an idle connection
		t.Fatal(err)
	}
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Close took %s", took)
	}
	for i, c := range conns {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open", i)
		}
	}
}

// Nothing but the moment in Start shows in the process: neither its current
// directory nor its output.
func TestLeavesTheProcessAlone(t *testing.T) {
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	output := captureOutput(t)
	dir := t.TempDir()
	s := startServer(t, Config{Dir: dir, Buckets: []string{"bucket"}})
	if now, err := os.Getwd(); err != nil || now != before {
		t.Errorf("current directory %s, %v, want %s", now, err, before)
	}
	b := open(t, s, "bucket")
	if err := b.Create(t.Context(), "a/b", []byte("body")); err != nil {
		t.Error(err)
	}
	if err := b.Create(t.Context(), "a/b/c", nil); !errors.Is(err, objstore.ErrInvalid) { // refused by the file system
		t.Errorf("an object as folder: %v", err)
	}
	if body, err := os.ReadFile(filepath.Join(dir, "data", "bucket", "a", "b")); err != nil || string(body) != "body" {
		t.Errorf("the object's file: %q, %v", body, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "data", "bucket")); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(t.Context()); !errors.Is(err, objstore.ErrNoBucket) || strings.Contains(err.Error(), dir) {
		t.Errorf("Check of a removed bucket: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s := output(); s != "" {
		t.Errorf("written to stdout or stderr: %q", s)
	}
}

// What other clients than ours use: multipart uploads, batches of deletes,
// listing of buckets. Absolute paths must not show.
func TestOtherClients(t *testing.T) {
	ctx := t.Context()
	s := startServer(t, Config{Dir: t.TempDir(), Buckets: []string{"one", "two"}})
	c := client(s)
	buckets, err := c.ListBuckets(ctx, &s3.ListBucketsInput{})
	if err != nil || len(buckets.Buckets) != 2 || *buckets.Buckets[1].Name != "two" {
		t.Errorf("ListBuckets: %+v, %v", buckets, err)
	}
	upload(ctx, t, c, "one", "a/large")
	list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("one"), Delimiter: aws.String("/")})
	if err != nil || *list.Name != "one" || len(list.CommonPrefixes) != 1 || *list.CommonPrefixes[0].Prefix != "a/" {
		t.Errorf("ListObjectsV2: %+v, %v", list, err)
	}
	deleted, err := c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: aws.String("one"), Delete: &types.Delete{
		Objects: []types.ObjectIdentifier{{Key: aws.String("a/large")}, {Key: aws.String("never")}}}})
	if err != nil || len(deleted.Deleted) != 2 || len(deleted.Errors) != 0 {
		t.Errorf("DeleteObjects: %+v, %v", deleted, err)
	}
	if _, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String("one")}); err != nil {
		t.Errorf("DeleteBucket: %v", err)
	}
	_, err = c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("two"), Key: aws.String("n"), CopySource: aws.String("two/m")})
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "NotImplemented" {
		t.Errorf("CopyObject: %v, want NotImplemented", err)
	}
}

func upload(ctx context.Context, t *testing.T, c *s3.Client, bucket, key string) {
	t.Helper()
	up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key})
	if err != nil || *up.Bucket != bucket {
		t.Fatalf("CreateMultipartUpload: %+v, %v", up, err)
	}
	var parts []types.CompletedPart
	for n, size := range []int{5 << 20, 10} {
		part, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: &bucket, Key: &key, UploadId: up.UploadId,
			PartNumber: aws.Int32(int32(n + 1)), Body: strings.NewReader(strings.Repeat("x", size))})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{PartNumber: aws.Int32(int32(n + 1)), ETag: part.ETag})
	}
	done, err := c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: up.UploadId,
		IfNoneMatch: aws.String("*"), MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	if err != nil || *done.Bucket != bucket {
		t.Fatalf("CompleteMultipartUpload: %+v, %v", done, err)
	}
	head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil || *head.ContentLength != 5<<20+10 {
		t.Errorf("HeadObject: %+v, %v", head, err)
	}
}
