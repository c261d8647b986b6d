package objstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Create implements [Creator].
//
// The upload carries If-None-Match: * and the SHA-256 of the body, which the
// store checks before it keeps anything. "Precondition failed" is not yet a
// lost race: after a lost answer the SDK's retry meets its own object. So the
// stored bytes decide (see settle). A conflict (409) means that another upload of
// the name is under way; it is retried within Attempts. An upload that the store
// acknowledged is confirmed by asking the store what it holds.
func (s *S3) Create(ctx context.Context, name string, body []byte) error {
	key, err := s.key(ctx, OpCreate, name)
	if err != nil {
		return err
	}
	if err := checkSize(len(body)); err != nil {
		return s.fault(OpCreate, key, ErrInvalid, err)
	}
	digest := sha256.Sum256(body)
	sum := base64.StdEncoding.EncodeToString(digest[:])
	var class types.StorageClass
	if s.cfg.StorageClass != nil {
		class = types.StorageClass(s.cfg.StorageClass(name))
	}
	_, err = s.client.PutObject(ctx, &s3.PutObjectInput{
		StorageClass:   class,
		Bucket:         &s.cfg.Bucket,
		Key:            &key,
		Body:           bytes.NewReader(body),
		ContentLength:  aws.Int64(int64(len(body))),
		ContentType:    aws.String("application/octet-stream"),
		IfNoneMatch:    aws.String("*"),
		ChecksumSHA256: &sum,
	})
	if err != nil {
		return s.settle(ctx, key, body, s.wrap(ctx, OpCreate, key, err))
	}
	return s.confirm(ctx, key, int64(len(body)), sum)
}

// confirm asks the store what it holds after an upload that it acknowledged.
func (s *S3) confirm(ctx context.Context, key string, size int64, sum string) error {
	stored, err := s.head(ctx, OpCreate, key)
	switch {
	case errors.Is(err, ErrNotFound):
		return s.fault(OpCreate, key, ErrCorrupt, errors.New("store acknowledged the upload and does not have it"))
	case err != nil:
		return err
	case stored.Size != size:
		return s.fault(OpCreate, key, ErrCorrupt, fmt.Errorf("store holds %d bytes of %d", stored.Size, size))
	case stored.sha256 != "" && stored.sha256 != sum:
		return s.fault(OpCreate, key, ErrCorrupt, errors.New("store holds bytes with another SHA-256"))
	}
	return nil
}

// settle decides what a failed upload means. If the name is taken, or if no answer
// came (stores cut large uploads that they refuse, and answers get lost), the
// stored bytes tell: exactly body is this upload, done before; anything else is
// somebody else's.
func (s *S3) settle(ctx context.Context, key string, body []byte, failed error) error {
	taken := errors.Is(failed, ErrExists)
	if !taken && !errors.Is(failed, ErrUnavailable) {
		return failed
	}
	var options []func(*s3.Options)
	if !taken { // the store may be down, which has taken long enough
		options = append(options, func(o *s3.Options) { o.Retryer = aws.NopRetryer{} })
	}
	stored, err := s.head(ctx, OpCreate, key, options...)
	switch {
	case errors.Is(err, ErrNotFound): // never stored; or deleted since, and the name retired
		return failed
	case err != nil && !taken:
		return failed
	case err != nil:
		return err
	}
	same, err := s.holds(ctx, key, body, stored.Size)
	switch {
	case errors.Is(err, ErrNotFound):
		return failed
	case err != nil:
		return err
	case same:
		return nil
	case taken:
		return failed
	}
	return s.fault(OpCreate, key, ErrExists, nil)
}

// holds reports whether the object, of size bytes, holds exactly body.
func (s *S3) holds(ctx context.Context, key string, body []byte, size int64) (bool, error) {
	if size != int64(len(body)) {
		return false, nil
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: &key})
	if err != nil {
		return false, s.wrap(ctx, OpCreate, key, err)
	}
	same, err := equalBody(s.body(ctx, OpCreate, key, out.Body, size), body)
	return same, errors.Join(err, out.Body.Close())
}
