package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// S3 is a bucket of AWS S3 or a compatible store.
//
// The store must be strongly consistent and honour If-None-Match: * atomically
// ([Probe] finds out). The credentials need to read, put and delete objects and
// to list the bucket: without the right to list, a store answers "refused" where
// an object is missing. Requests are tried several times; what comes back as
// [ErrUnavailable] has failed every time.
type S3 struct {
	cfg       S3Config
	client    *s3.Client
	transport *http.Transport
	creds     *guardedCredentials

	singly atomic.Bool // the store knows no deletion of many objects
}

var _ Bucket = (*S3)(nil)

// NewS3 returns the bucket that cfg describes. It does not talk to the store;
// see [S3.Check]. ctx bounds the reading of the shared AWS config only.
func NewS3(ctx context.Context, cfg S3Config) (*S3, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("object store: %w", err)
	}
	s := &S3{cfg: cfg.withDefaults()}
	var err error
	if s.client, s.transport, s.creds, err = newClient(ctx, s.cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	return s, nil
}

// Close closes idle connections. The bucket stays usable.
func (s *S3) Close() { s.transport.CloseIdleConnections() }

// String implements [Bucket].
func (s *S3) String() string {
	where := "on AWS"
	switch {
	case s.cfg.Endpoint != "":
		where = "at " + s.cfg.Endpoint
	case s.cfg.Region != "":
		where = "in " + s.cfg.Region
	}
	name := fmt.Sprintf("bucket %q %s", s.cfg.Bucket, where)
	if s.cfg.Prefix != "" {
		name += " under " + s.cfg.Prefix
	}
	return name
}

// Get implements [Reader]. The body is checked against the checksum that the
// store keeps, if it keeps one.
func (s *S3) Get(ctx context.Context, name string) (io.ReadCloser, Info, error) {
	return s.get(ctx, name)
}

// getUnchecked is Get without that check.
func (s *S3) getUnchecked(ctx context.Context, name string) (io.ReadCloser, Info, error) {
	return s.get(ctx, name, func(o *s3.Options) { o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
}

func (s *S3) get(ctx context.Context, name string, options ...func(*s3.Options)) (io.ReadCloser, Info, error) {
	key, err := s.key(ctx, OpGet, name)
	if err != nil {
		return nil, Info{}, err
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: &key}, options...)
	if err != nil {
		return nil, Info{}, s.wrap(ctx, OpGet, key, err)
	}
	if out.ContentLength == nil {
		return nil, Info{}, errors.Join(s.fault(OpGet, key, ErrCorrupt, errors.New("answer has no length")), out.Body.Close())
	}
	info := Info{Name: name, Size: *out.ContentLength, Modified: aws.ToTime(out.LastModified), Class: string(out.StorageClass)}
	return s.body(ctx, OpGet, key, out.Body, info.Size), info, nil
}

// GetRange implements [Reader].
func (s *S3) GetRange(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	key, err := s.key(ctx, OpGetRange, name)
	if err != nil {
		return nil, err
	}
	if offset < 0 || length <= 0 || offset > math.MaxInt64-length { // HTTP cannot say these
		info, err := s.head(ctx, OpGetRange, key)
		if err != nil {
			return nil, err
		}
		if err := checkRange(offset, length, info.Size); err != nil {
			return nil, s.fault(OpGetRange, key, ErrInvalid, err)
		}
		return http.NoBody, nil
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: &key,
		Range: aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))})
	if err != nil {
		return nil, s.wrap(ctx, OpGetRange, key, err)
	}
	if err := s.checkRangeAnswer(key, offset, length, out); err != nil {
		return nil, errors.Join(err, out.Body.Close())
	}
	return s.body(ctx, OpGetRange, key, out.Body, length), nil
}

// checkRangeAnswer says whether the store sent what was asked: a range that
// crosses the object's end is shortened silently, and some stores ignore ranges.
func (s *S3) checkRangeAnswer(key string, offset, length int64, out *s3.GetObjectOutput) error {
	var first, last, size int64
	if _, err := fmt.Sscanf(aws.ToString(out.ContentRange), "bytes %d-%d/%d", &first, &last, &size); err != nil {
		return s.fault(OpGetRange, key, nil, fmt.Errorf("store does not serve ranges: Content-Range is %q", aws.ToString(out.ContentRange)))
	}
	if err := checkRange(offset, length, size); err != nil {
		return s.fault(OpGetRange, key, ErrInvalid, err)
	}
	if first != offset || last != offset+length-1 {
		return s.fault(OpGetRange, key, ErrCorrupt, fmt.Errorf("asked for %d bytes from %d, got %q", length, offset, *out.ContentRange))
	}
	return nil
}

// Stat implements [Reader].
func (s *S3) Stat(ctx context.Context, name string) (Info, error) {
	key, err := s.key(ctx, OpStat, name)
	if err != nil {
		return Info{}, err
	}
	out, err := s.head(ctx, OpStat, key)
	if err != nil {
		return Info{}, err
	}
	out.Name, out.Archived = name, out.isArchived() && !out.isThawed()
	return out.Info, nil
}

// headInfo is what the store says about one object.
type headInfo struct {
	Info
	sha256  string // base64, or empty if the store does not say
	archive string // the archive that it has sunk to within its class; empty: none
	hold    Hold
	restore string // how far the thawing is, in the words of x-amz-restore; empty: nobody has asked
}

func (s *S3) head(ctx context.Context, op, key string, options ...func(*s3.Options)) (headInfo, error) {
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.cfg.Bucket, Key: &key,
		ChecksumMode: types.ChecksumModeEnabled}, options...)
	if err != nil {
		if s3Status(err) == http.StatusNotFound && ctx.Err() == nil {
			return headInfo{}, s.missing(ctx, op, key)
		}
		return headInfo{}, s.wrap(ctx, op, key, err)
	}
	return headInfo{
		Info:    Info{Name: key, Size: aws.ToInt64(out.ContentLength), Modified: aws.ToTime(out.LastModified), Class: string(out.StorageClass)},
		sha256:  aws.ToString(out.ChecksumSHA256),
		archive: string(out.ArchiveStatus),
		restore: aws.ToString(out.Restore),
		hold: Hold{
			Until: aws.ToTime(out.ObjectLockRetainUntilDate), Mode: string(out.ObjectLockMode),
			Legal: out.ObjectLockLegalHoldStatus == types.ObjectLockLegalHoldStatusOn,
		},
	}, nil
}

// missing tells a missing object from a missing bucket: the answer to a HEAD has
// no body that would say it.
func (s *S3) missing(ctx context.Context, op, key string) error {
	if err := s.listOne(ctx); err != nil {
		return s.wrap(ctx, op, "", err)
	}
	return s.fault(op, key, ErrNotFound, nil)
}

// listOne is the cheapest request whose answer says what is wrong with a bucket.
func (s *S3) listOne(ctx context.Context, options ...func(*s3.Options)) error {
	_, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.cfg.Bucket, Prefix: &s.cfg.Prefix, MaxKeys: aws.Int32(1)}, options...)
	return err
}

// List implements [Reader]. A store that lists out of order gets [ErrCorrupt].
func (s *S3) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter implements [Reader].
func (s *S3) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		key := s.cfg.Prefix + prefix
		if err := validatePrefix(key); err != nil {
			yield(Info{}, s.fault(OpList, key, ErrInvalid, err))
			return
		}
		input := &s3.ListObjectsV2Input{Bucket: &s.cfg.Bucket, Prefix: &key}
		previous := ""
		if after != "" { // else an empty one would be sent, which not all stores like
			previous = s.cfg.Prefix + after
			input.StartAfter = aws.String(previous)
		}
		for pages := s3.NewListObjectsV2Paginator(s.client, input); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(Info{}, s.wrap(ctx, OpList, key, err))
				return
			}
			for _, obj := range page.Contents {
				full := aws.ToString(obj.Key)
				if full <= previous || !strings.HasPrefix(full, key) {
					yield(Info{}, s.fault(OpList, key, ErrCorrupt, fmt.Errorf("store listed %q after %q", full, previous)))
					return
				}
				previous = full
				name := strings.TrimPrefix(full, s.cfg.Prefix)
				if name == "" { // a folder marker that some console left
					continue
				}
				if !yield(Info{Name: name, Size: aws.ToInt64(obj.Size), Modified: aws.ToTime(obj.LastModified), Class: string(obj.StorageClass)}, nil) {
					return
				}
			}
		}
	}
}

// Delete implements [Deleter].
func (s *S3) Delete(ctx context.Context, name string) error {
	key, err := s.key(ctx, OpDelete, name)
	if err != nil {
		return err
	}
	_, err = s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.cfg.Bucket, Key: &key})
	if err == nil {
		return nil
	}
	if err = s.wrap(ctx, OpDelete, key, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Check implements [Bucket]. It tries at most twice.
func (s *S3) Check(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.CheckTimeout)
	defer cancel()
	err := s.listOne(bounded, func(o *s3.Options) { o.Retryer = newRetryer(min(2, s.cfg.Attempts)) })
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && bounded.Err() != nil:
		return s.fault(OpCheck, "", ErrUnavailable, fmt.Errorf("no answer within %s", s.cfg.CheckTimeout))
	}
	return s.wrap(ctx, OpCheck, "", err)
}

// key validates name and adds the prefix.
func (s *S3) key(ctx context.Context, op, name string) (string, error) {
	key := s.cfg.Prefix + name
	if err := ctx.Err(); err != nil {
		return "", s.fault(op, key, nil, err)
	}
	if err := ValidateName(name); err != nil {
		return "", s.fault(op, key, ErrInvalid, err)
	}
	if err := ValidateName(key); err != nil { // may be too long only now
		return "", s.fault(op, key, ErrInvalid, err)
	}
	return key, nil
}

func (s *S3) body(ctx context.Context, op, key string, rc io.ReadCloser, size int64) io.ReadCloser {
	return newBody(rc, size, ctx.Err, func(kind, cause error) error {
		return s.fault(op, key, kind, cause)
	})
}

// fault makes an error that the SDK did not see.
func (s *S3) fault(op, key string, kind, cause error) error {
	return &Error{Op: op, Bucket: s.String(), Object: key, Kind: kind, Err: cause}
}
