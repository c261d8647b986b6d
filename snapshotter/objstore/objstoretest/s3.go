package objstoretest

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// S3 is an empty bucket on a real S3 server, reached over HTTP. Both end with the test. A
// process has one such server at a time.
func S3(t *testing.T) *objstore.S3 {
	t.Helper()
	server, err := s3server.Start(s3server.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0", Buckets: []string{"bucket"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	accessKey, secretKey := server.Credentials()
	bucket, err := objstore.NewS3(t.Context(), objstore.S3Config{
		Bucket: "bucket", Endpoint: server.URL(), Region: s3server.Region, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bucket.Close)
	return bucket
}
