package objstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// deletedAtOnce is how many objects S3 deletes in one request, at most.
const deletedAtOnce = 1000

// DeleteAll implements [Deleter]. A store that does not know how to delete many objects in
// one request is asked for one after the other, from then on.
func (s *S3) DeleteAll(ctx context.Context, names []string) []error {
	errs := make([]error, 0, len(names))
	for part := range slices.Chunk(names, deletedAtOnce) {
		if !s.singly.Load() && len(part) > 1 {
			done, known := s.deletePart(ctx, part)
			if known {
				errs = append(errs, done...)
				continue
			}
			s.singly.Store(true)
		}
		errs = append(errs, eachOf(part, func(name string) error { return s.Delete(ctx, name) })...)
	}
	return errs
}

// deletePart deletes objects in one request; false: the store does not know it.
func (s *S3) deletePart(ctx context.Context, names []string) (errs []error, known bool) {
	errs = make([]error, len(names))
	places := map[string][]int{}
	var objects []types.ObjectIdentifier
	for i, name := range names {
		key, err := s.key(ctx, OpDelete, name)
		if errs[i] = err; err != nil {
			continue
		}
		if places[key] = append(places[key], i); len(places[key]) == 1 {
			objects = append(objects, types.ObjectIdentifier{Key: &key})
		}
	}
	if len(objects) == 0 {
		return errs, true
	}
	out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &s.cfg.Bucket, Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(true)}})
	if err != nil && isUnknown(s3Status(err)) {
		return nil, false
	}
	if err != nil {
		for key, at := range places {
			for _, i := range at {
				errs[i] = s.wrap(ctx, OpDelete, key, err)
			}
		}
		return errs, true
	}
	for _, failed := range out.Errors {
		key, code := aws.ToString(failed.Key), aws.ToString(failed.Code)
		kind := s3Codes[code]
		switch {
		case kind == ErrNotFound:
			continue
		case kind == nil: // it has no status of its own; most often it is InternalError
			kind = ErrUnavailable
		}
		for _, i := range places[key] {
			errs[i] = s.fault(OpDelete, key, kind, errors.New(s.creds.blackOut(fmt.Sprintf("%s: %s", code, aws.ToString(failed.Message)))))
		}
	}
	return errs, true
}

// isUnknown says whether an answer is that of a store which does not take the request as
// such, rather than refusing this one: then the objects are tried one by one, which tells.
func isUnknown(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLengthRequired, http.StatusNotImplemented:
		return true
	}
	return false
}
