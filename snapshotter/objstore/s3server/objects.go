package s3server

import (
	"context"
	"io"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3response"
)

// The operations on objects and uploads: absolute path in, name out.

func (r *rooted) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	bucket := *in.Bucket
	in.Bucket = r.path(in.Bucket)
	body := &latch{r: in.Body, mu: r.folders.RLocker()}
	defer body.release()
	in.Body = body
	out, err := r.files.PutObject(ctx, in)
	return out, r.fix(err, bucket)
}

func (r *rooted) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.HeadObject(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.GetObject(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) GetObjectAttributes(ctx context.Context, in *s3.GetObjectAttributesInput) (s3response.GetObjectAttributesResponse, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.GetObjectAttributes(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.ListObjects(ctx, &c)
	out.Name = in.Bucket
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.ListObjectsV2(ctx, &c)
	out.Name = in.Bucket
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	r.folders.Lock()
	defer r.folders.Unlock()
	out, err := r.files.DeleteObject(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	r.folders.Lock()
	defer r.folders.Unlock()
	out, err := r.files.DeleteObjects(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (s3response.InitiateMultipartUploadResult, error) {
	bucket := *in.Bucket
	in.Bucket = r.path(in.Bucket)
	out, err := r.files.CreateMultipartUpload(ctx, in)
	out.Bucket = bucket
	return out, r.fix(err, bucket)
}

func (r *rooted) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.UploadPart(ctx, &c)
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	r.folders.RLock()
	defer r.folders.RUnlock()
	out, version, err := r.files.CompleteMultipartUpload(ctx, &c)
	out.Bucket = in.Bucket
	return out, version, r.fix(err, *in.Bucket)
}

func (r *rooted) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	c := *in
	c.Bucket = r.path(in.Bucket)
	return r.fix(r.files.AbortMultipartUpload(ctx, &c), *in.Bucket)
}

func (r *rooted) ListMultipartUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (s3response.ListMultipartUploadsResult, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.ListMultipartUploads(ctx, &c)
	out.Bucket = *in.Bucket
	return out, r.fix(err, *in.Bucket)
}

func (r *rooted) ListParts(ctx context.Context, in *s3.ListPartsInput) (s3response.ListPartsResult, error) {
	c := *in
	c.Bucket = r.path(in.Bucket)
	out, err := r.files.ListParts(ctx, &c)
	out.Bucket = *in.Bucket
	return out, r.fix(err, *in.Bucket)
}

// latch passes a body on and takes mu before it reports the body's end: from
// then on a PutObject makes folders and links the object into them. It holds
// nothing while a slow client sends.
type latch struct {
	r  io.Reader
	mu sync.Locker
	on bool
}

func (l *latch) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil && !l.on {
		l.mu.Lock()
		l.on = true
	}
	return n, err
}

// Algorithm and Checksum implement middlewares.ChecksumReader for uploads whose
// checksum follows the body; other uploads have no algorithm.
func (l *latch) Algorithm() string {
	if sum, ok := l.r.(middlewares.ChecksumReader); ok {
		return sum.Algorithm()
	}
	return ""
}

func (l *latch) Checksum() string {
	if sum, ok := l.r.(middlewares.ChecksumReader); ok {
		return sum.Checksum()
	}
	return ""
}

// release gives mu back once the object is linked or refused.
func (l *latch) release() {
	if l.on {
		l.mu.Unlock()
	}
}
