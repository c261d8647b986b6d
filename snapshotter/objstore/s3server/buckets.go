package s3server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// makeBuckets makes the configured buckets as a client would, and so proves that
// the gateway answers. It goes straight to the gateway, before there are others.
func makeBuckets(ctx context.Context, s *Server) error {
	direct := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.front.socket)
	}}
	defer direct.CloseIdleConnections()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(s.URL()),
		Region:       Region,
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(s.cfg.AccessKey, s.cfg.SecretKey, ""),
		HTTPClient:   &http.Client{Transport: direct},
	})
	if _, err := client.ListBuckets(ctx, &s3.ListBucketsInput{}); err != nil {
		return fmt.Errorf("the gateway does not answer: %w", err)
	}
	for _, bucket := range s.cfg.Buckets {
		_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
		var owned *types.BucketAlreadyOwnedByYou
		if err != nil && !errors.As(err, &owned) {
			return fmt.Errorf("making bucket %q: %w", bucket, err)
		}
	}
	return nil
}
