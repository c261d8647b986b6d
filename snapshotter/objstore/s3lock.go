package objstore

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sync/errgroup"
)

// holdsAtOnce is how many objects S3 is asked about at the same time.
const holdsAtOnce = 16

const lockHint = "what is locked may not be deleted: allow these credentials s3:GetBucketObjectLockConfiguration, s3:GetObjectRetention and s3:GetObjectLegalHold"

// Holds implements [Holder].
func (s *S3) Holds(ctx context.Context, names []string) ([]Hold, error) {
	holds := make([]Hold, len(names))
	keys := make([]string, len(names))
	for i, name := range names {
		key, err := s.key(ctx, OpHolds, name)
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	if len(keys) == 0 {
		return holds, nil
	}
	if locks, err := s.locks(ctx); err != nil || !locks {
		return holds, err
	}
	if err := s.mayAsk(ctx, keys[0]); err != nil {
		return nil, err
	}
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(holdsAtOnce)
	for i, key := range keys {
		group.Go(func() error {
			out, err := s.head(asking, OpHolds, key)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			holds[i] = out.hold
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return holds, nil
}

// locks says whether objects of the bucket can be locked. A store that does not know of locks
// has none.
func (s *S3) locks(ctx context.Context) (bool, error) {
	out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.cfg.Bucket})
	if err == nil {
		c := out.ObjectLockConfiguration
		return c != nil && c.ObjectLockEnabled == types.ObjectLockEnabledEnabled, nil
	}
	wrapped := s.wrap(ctx, OpHolds, "", err)
	var api smithy.APIError
	switch {
	case errors.Is(wrapped, ErrNoBucket):
	case errors.As(err, &api) && api.ErrorCode() == "ObjectLockConfigurationNotFoundError", isUnknown(s3Status(err)):
		return false, nil
	}
	return false, withLockHint(wrapped)
}

// mayAsk finds out with one object whether the credentials may know of locks. Without the
// right to, a store answers requests for an object's head as if it were not locked.
func (s *S3) mayAsk(ctx context.Context, key string) error {
	_, retention := s.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &s.cfg.Bucket, Key: &key})
	_, legal := s.client.GetObjectLegalHold(ctx, &s3.GetObjectLegalHoldInput{Bucket: &s.cfg.Bucket, Key: &key})
	for _, err := range []error{retention, legal} {
		if err == nil || isUnknown(s3Status(err)) && ctx.Err() == nil {
			continue // it has a lock of this sort, or it has none, or it is not there
		}
		return withLockHint(s.wrap(ctx, OpHolds, key, err))
	}
	return nil
}

// withLockHint says which rights are missing, if that is what is wrong.
func withLockHint(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Kind == ErrAccess {
		e.Hint = lockHint
	}
	return err
}
