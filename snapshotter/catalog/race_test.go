package catalog_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/snapshotter/catalog"
	"github.com/evenkeel/evenkeel/snapshotter/objstore"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// Of 32 publishers of one id exactly one wins, and its manifest is the one that is
// there: in memory and on a real S3 server.
func TestRacingPublishers(t *testing.T) {
	server, err := s3server.Start(s3server.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0", Buckets: []string{"race"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	accessKey, secretKey := server.Credentials()
	s3, err := objstore.NewS3(t.Context(), objstore.S3Config{
		Bucket: "race", Endpoint: server.URL(), Region: s3server.Region, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Close()
	for name, bucket := range map[string]objstore.Bucket{"memory": checked(t), "S3": s3} {
		for round := range 3 {
			errs := make([]error, 32)
			var g errgroup.Group
			for i := range errs {
				g.Go(func() error {
					m := manifest(us, round)
					m.Software = fmt.Sprint("publisher ", i)
					errs[i] = catalog.Publish(t.Context(), bucket, m)
					return nil
				})
			}
			_ = g.Wait() // its goroutines return nil
			winner := -1
			for i, err := range errs {
				switch {
				case err == nil && winner >= 0:
					t.Errorf("%s: publishers %d and %d both won", name, winner, i)
				case err == nil:
					winner = i
				case !errors.Is(err, objstore.ErrExists):
					t.Errorf("%s: publisher %d: %v", name, i, err)
				}
			}
			m, err := catalog.Load(t.Context(), bucket, us, manifest(us, round).ID)
			if err != nil || m.Software != fmt.Sprint("publisher ", winner) {
				t.Errorf("%s: publisher %d won, and there is that of %v: %v", name, winner, m, err)
			}
		}
	}
}
