package objstore

import (
	"context"
	"errors"
	"math"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

func (h headInfo) isArchived() bool {
	return h.archive != "" || h.Class == string(types.StorageClassGlacier) || h.Class == string(types.StorageClassDeepArchive)
}

func (h headInfo) isThawed() bool { return strings.Contains(h.restore, `ongoing-request="false"`) }

// Thaw implements [Thawer], at the standard speed: three to five hours, twelve and
// more out of DEEP_ARCHIVE.
func (s *S3) Thaw(ctx context.Context, name string, days int) (ready bool, err error) {
	key, err := s.key(ctx, OpThaw, name)
	if err != nil {
		return false, err
	}
	if days < 1 || days > math.MaxInt32 {
		return false, s.fault(OpThaw, key, ErrInvalid, errors.New("want one day or more"))
	}
	out, err := s.head(ctx, OpThaw, key)
	if err != nil {
		return false, err
	}
	switch {
	case !out.isArchived(), out.isThawed():
		return true, nil
	case out.restore != "":
		return false, nil
	}
	request := types.RestoreRequest{GlacierJobParameters: &types.GlacierJobParameters{Tier: types.TierStandard}}
	if out.archive == "" { // what has sunk within INTELLIGENT_TIERING comes up for good
		request.Days = aws.Int32(int32(days))
	}
	_, err = s.client.RestoreObject(ctx, &s3.RestoreObjectInput{Bucket: &s.cfg.Bucket, Key: &key, RestoreRequest: &request})
	var api smithy.APIError
	if err == nil || errors.As(err, &api) && api.ErrorCode() == "RestoreAlreadyInProgress" {
		return false, nil
	}
	return false, s.wrap(ctx, OpThaw, key, err)
}
