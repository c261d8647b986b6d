package s3server

import "context"

// The operations on Object Lock. The gateway asks for locks itself before it deletes.

func (r *rooted) GetObjectLockConfiguration(ctx context.Context, bucket string) ([]byte, error) {
	out, err := r.files.GetObjectLockConfiguration(ctx, *r.path(&bucket))
	return out, r.fix(err, bucket)
}

func (r *rooted) GetObjectRetention(ctx context.Context, bucket, object, version string) ([]byte, error) {
	out, err := r.files.GetObjectRetention(ctx, *r.path(&bucket), object, version)
	return out, r.fix(err, bucket)
}

func (r *rooted) GetObjectLegalHold(ctx context.Context, bucket, object, version string) (*bool, error) {
	out, err := r.files.GetObjectLegalHold(ctx, *r.path(&bucket), object, version)
	return out, r.fix(err, bucket)
}

func (r *rooted) PutObjectLockConfiguration(ctx context.Context, bucket string, config []byte) error {
	return r.fix(r.files.PutObjectLockConfiguration(ctx, *r.path(&bucket), config), bucket)
}

func (r *rooted) PutObjectRetention(ctx context.Context, bucket, object, version string, retention []byte) error {
	return r.fix(r.files.PutObjectRetention(ctx, *r.path(&bucket), object, version, retention), bucket)
}

func (r *rooted) PutObjectLegalHold(ctx context.Context, bucket, object, version string, on bool) error {
	return r.fix(r.files.PutObjectLegalHold(ctx, *r.path(&bucket), object, version, on), bucket)
}
