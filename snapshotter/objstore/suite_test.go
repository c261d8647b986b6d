package objstore_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/objstoretest"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// server is the one S3 server of this process.
var server *s3server.Server

const bucket = "test-bucket"

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "objstore-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	server, err = s3server.Start(s3server.Config{Dir: dir, Buckets: []string{bucket}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := server.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

var prefixes atomic.Int64

// s3Config describes an unused folder of the test server's bucket.
func s3Config() objstore.S3Config {
	return objstore.S3Config{
		Bucket:      bucket,
		Prefix:      fmt.Sprintf("folder-%d", prefixes.Add(1)),
		Endpoint:    server.URL(),
		Region:      s3server.Region,
		PathStyle:   true,
		Credentials: credentials.NewStaticCredentialsProvider(s3server.DefaultAccessKey, s3server.DefaultSecretKey, ""),
	}
}

func openS3(t testing.TB, cfg objstore.S3Config) *objstore.S3 {
	t.Helper()
	b, err := objstore.NewS3(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func TestS3(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return openS3(t, s3Config()) })
}

func TestMemory(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return objstore.NewMemory("m") })
}

func TestPrefix(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket {
		m := objstore.NewMemory("m")
		for _, neighbour := range []string{"one/tw", "one/two-", "one/two0/x", "one/three"} {
			if err := m.Create(t.Context(), neighbour, nil); err != nil {
				t.Fatal(err)
			}
		}
		return objstore.Prefix(objstore.Prefix(m, "one/"), "two")
	})
}
