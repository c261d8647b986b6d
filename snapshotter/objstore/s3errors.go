package objstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// s3Codes maps the error codes of S3 that say more than the HTTP status.
var s3Codes = map[string]error{
	"NoSuchBucket":          ErrNoBucket,
	"InvalidBucketName":     ErrNoBucket,
	"NoSuchKey":             ErrNotFound,
	"AccessDenied":          ErrAccess,
	"AccountProblem":        ErrAccess,
	"AllAccessDisabled":     ErrAccess,
	"ExpiredToken":          ErrAccess,
	"InvalidAccessKeyId":    ErrAccess,
	"InvalidToken":          ErrAccess,
	"RequestTimeTooSkewed":  ErrAccess,
	"SignatureDoesNotMatch": ErrAccess,

	"InvalidObjectState":          ErrArchived,
	"PreconditionFailed":          ErrExists,
	"ConditionalRequestConflict":  ErrUnavailable,
	"OperationAborted":            ErrUnavailable,
	"RequestTimeout":              ErrUnavailable,
	"SlowDown":                    ErrUnavailable,
	"BadDigest":                   ErrCorrupt,
	"XAmzContentSHA256Mismatch":   ErrCorrupt,
	"XAmzContentChecksumMismatch": ErrCorrupt,
	"IncompleteBody":              ErrCorrupt,
	"InvalidRange":                ErrInvalid,
	"EntityTooLarge":              ErrInvalid,
	"KeyTooLongError":             ErrInvalid,
	"ObjectParentIsFile":          ErrInvalid, // of stores on a file system
	"ExistingObjectIsDirectory":   ErrInvalid,
}

// s3Hints says what to try where the kind's hint does not fit.
var s3Hints = map[string]string{
	"PermanentRedirect":            "the bucket is in another region: check backup.region",
	"AuthorizationHeaderMalformed": "the bucket is in another region: check backup.region",
	"IllegalLocationConstraint":    "the bucket is in another region: check backup.region",
	"InvalidStorageClass":          "the store has no such class: check backup.copies",
	"NotImplemented":               "the store lacks what backups need: use one with atomic conditional writes (If-None-Match)",
	"RequestTimeTooSkewed":         "set this machine's clock",
	"ExpiredToken":                 "renew the session credentials",
	"InvalidAccessKeyId":           "check the access key",
	"SignatureDoesNotMatch":        "check the secret key",
}

// wrap turns what the SDK returned for a call under ctx into an *Error.
func (s *S3) wrap(ctx context.Context, op, name string, err error) error {
	kind, cause, hint := s.classify(ctx, err)
	return &Error{Op: op, Bucket: s.String(), Object: name, Kind: kind, Err: cause, Hint: hint}
}

// classify finds the kind, a cause without secrets and a hint. The SDK's error
// itself is dropped: it carries the request.
func (s *S3) classify(ctx context.Context, err error) (kind, cause error, hint string) {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return nil, ctxErr, ""
	}
	if errors.Is(err, errNoCredentials) {
		return ErrAccess, errors.New(s.creds.blackOut(credentialsText(err))),
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile of the shared AWS config, or run with an instance role"
	}
	status := s3Status(err)
	var api smithy.APIError
	if errors.As(err, &api) {
		kind = s3Codes[api.ErrorCode()]
		if kind == nil {
			kind = kindOfStatus(status)
		}
		text := fmt.Sprintf("%s (HTTP %d): %s", api.ErrorCode(), status, api.ErrorMessage())
		return kind, errors.New(s.creds.blackOut(text)), s3Hints[api.ErrorCode()]
	}
	if status > 0 {
		return kindOfStatus(status), fmt.Errorf("HTTP %d without an S3 answer", status), "check that backup.endpoint is an S3 endpoint"
	}
	return s.classifyTransport(err)
}

// classifyTransport handles requests that got no answer.
func (s *S3) classifyTransport(err error) (kind, cause error, hint string) {
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return nil, errors.New(s.creds.blackOut(cert.Error())), "check the certificate of backup.endpoint and the trusted authorities"
	}
	var request *url.Error
	if errors.As(err, &request) { // its own text holds the whole URL
		return ErrUnavailable, errors.New(s.creds.blackOut(request.Err.Error())), ""
	}
	return ErrUnavailable, errors.New(s.creds.blackOut(innermost(err).Error())), ""
}

// s3Status returns the HTTP status that an SDK error came with, or 0.
func s3Status(err error) int {
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) {
		return resp.HTTPStatusCode()
	}
	return 0
}

// kindOfStatus judges by the HTTP status alone. A 404 of unknown origin is no
// missing object: a wrong path, or a server that is no object store, says the
// same, and "not found" makes callers delete and create.
func kindOfStatus(status int) error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return ErrAccess
	case status == http.StatusPreconditionFailed:
		return ErrExists
	case status == http.StatusRequestedRangeNotSatisfiable:
		return ErrInvalid
	case status == http.StatusNotImplemented:
		return nil
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return ErrUnavailable
	}
	return nil
}

// credentialsText is the part of err that guardedCredentials made.
func credentialsText(err error) string {
	for ; err != nil; err = errors.Unwrap(err) {
		if _, many := err.(interface{ Unwrap() []error }); many {
			return err.Error()
		}
	}
	return errNoCredentials.Error()
}

// innermost unwraps the SDK's layers, each of which repeats operation and
// request ids.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
