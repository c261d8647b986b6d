package s3server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// rooted is the gateway's file backend with absolute paths. The original takes
// the bucket's name as a path relative to the current directory; rooted hands it
// an absolute path as name and takes it out of the answers. What is not passed on
// here is NotImplemented.
type rooted struct {
	backend.BackendUnsupported
	files *posix.Posix
	root  string
	log   *slog.Logger

	// folders is held for reading while an upload makes folders and links its
	// object, for writing while a delete removes empty ones. Without it an upload
	// fails with ExistingObjectIsDirectory if its folder vanishes in between.
	folders sync.RWMutex
}

var _ backend.Backend = (*rooted)(nil)

// ioBufferBytes are cleared for each object that is read. The gateway's own choice of a mebibyte cost more than all else
// of a small reading.
const ioBufferBytes = 32 << 10

// newRooted opens the data in cfg.Dir, laid out as
//
//	data/<bucket>/<object>  the objects
//	meta/                   their attributes, if the file system cannot keep them
func newRooted(cfg Config) (*rooted, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	r := &rooted{root: filepath.Join(dir, "data"), log: cfg.Log}
	if err := os.MkdirAll(r.root, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	// The gateway can keep attributes in files of their own instead, but then an
	// object and its attributes do not appear in one step: racing creators met
	// half of one.
	attributes := meta.XattrMeta{}
	if err := attributes.Test(r.root); err != nil {
		return nil, fmt.Errorf("%s: this file system keeps no extended attributes: %w; choose a directory on another (ext4, xfs, btrfs)", r.root, err)
	}

	// posix.New changes the current directory of the process.
	before, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("current directory: %w", err)
	}
	r.files, err = posix.New(r.root, attributes, posix.PosixOpts{IOBufferSize: ioBufferBytes})
	if back := os.Chdir(before); back != nil {
		err = errors.Join(err, fmt.Errorf("back to the current directory: %w", back))
	}
	if err != nil {
		return nil, fmt.Errorf("opening the data: %w", err)
	}
	return r, nil
}

// path returns the bucket's absolute path.
func (r *rooted) path(bucket *string) *string {
	if bucket == nil {
		return nil
	}
	p := filepath.Join(r.root, *bucket)
	return &p
}

// fix puts the bucket's name back into err, and keeps the gateway from printing
// errors that it has no S3 code for.
func (r *rooted) fix(err error, bucket string) error {
	if err == nil {
		return nil
	}
	var noBucket s3err.BucketError
	if errors.As(err, &noBucket) {
		noBucket.BucketName = bucket
		return noBucket
	}
	if _, ok := err.(s3err.S3Error); ok { //nolint:errorlint // as the gateway asks, without unwrapping
		return err
	}
	if !errors.Is(err, context.Canceled) {
		r.log.Error("s3server: internal error", "bucket", bucket, "err", err)
	}
	return s3err.GetAPIError(s3err.ErrInternalError)
}

func (r *rooted) String() string { return "files" }

func (r *rooted) Shutdown() { r.files.Shutdown() }

func (r *rooted) NormalizeObjectKey(bucket, object string) string {
	return r.files.NormalizeObjectKey(bucket, object)
}

// ListBuckets lists every folder that can be a bucket.
func (r *rooted) ListBuckets(_ context.Context, in s3response.ListBucketsInput) (s3response.ListAllMyBucketsResult, error) {
	out := s3response.ListAllMyBucketsResult{Owner: s3response.CanonicalUser{ID: in.Owner}, Prefix: in.Prefix}
	entries, err := os.ReadDir(r.root) // sorted by name
	if err != nil {
		return out, r.fix(err, "")
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		return !e.IsDir() || strings.HasPrefix(e.Name(), ".") || !strings.HasPrefix(e.Name(), in.Prefix) || e.Name() <= in.ContinuationToken
	})
	for i, e := range entries {
		if i == int(in.MaxBuckets) {
			out.ContinuationToken = entries[i-1].Name()
			break
		}
		info, err := e.Info()
		if err != nil { // removed since
			continue
		}
		out.Buckets.Bucket = append(out.Buckets.Bucket, s3response.ListAllMyBucketsEntry{Name: e.Name(), CreationDate: info.ModTime()})
	}
	return out, nil
}

func (r *rooted) HeadBucket(ctx context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.HeadBucket(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) CreateBucket(ctx context.Context, in *s3.CreateBucketInput, acl []byte) error {
	c := *in
	c.Bucket = r.path(in.Bucket)
	return r.fix(r.files.CreateBucket(ctx, &c, acl), *in.Bucket)
}

func (r *rooted) DeleteBucket(ctx context.Context, bucket string) error {
	return r.fix(r.files.DeleteBucket(ctx, *r.path(&bucket)), bucket)
}

func (r *rooted) GetBucketAcl(ctx context.Context, in *s3.GetBucketAclInput) ([]byte, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.GetBucketAcl(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) GetBucketPolicy(ctx context.Context, bucket string) ([]byte, error) {
	out, err := r.files.GetBucketPolicy(ctx, *r.path(&bucket))
	return out, r.fix(err, bucket)
}

func (r *rooted) GetBucketCors(ctx context.Context, bucket string) ([]byte, error) {
	out, err := r.files.GetBucketCors(ctx, *r.path(&bucket))
	return out, r.fix(err, bucket)
}

func (r *rooted) GetBucketVersioning(ctx context.Context, bucket string) (s3response.GetBucketVersioningOutput, error) {
	out, err := r.files.GetBucketVersioning(ctx, *r.path(&bucket))
	return out, r.fix(err, bucket)
}
