package objstore

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// S3Config says which bucket to use and how patient to be. Zero values are fine
// except for Bucket.
type S3Config struct {
	// Bucket is the bucket's name. Required.
	Bucket string
	// Prefix is the folder in the bucket that names are relative to; empty: none.
	Prefix string
	// Endpoint is the URL of the store, such as https://s3.example.com:9000;
	// empty: AWS in Region. Certificates are checked against the system's
	// authorities.
	Endpoint string
	// Region; empty: what the environment or the shared AWS config says, else
	// us-east-1 if there is an Endpoint.
	Region string
	// PathStyle puts the bucket into the path of the URL instead of its host name.
	// Most stores other than AWS need it.
	PathStyle bool
	// StorageClass says in which class of storage a new object is kept, by its
	// name without the prefix; empty, or nil: the bucket's usual one.
	StorageClass func(name string) string
	// Credentials; nil: the SDK's default chain (environment, shared config,
	// web identity, container and instance metadata). If Credentials and Region
	// are given, neither environment nor files are looked at.
	Credentials aws.CredentialsProvider

	// Attempts is how often a request is tried, the first time included; 0: 6,
	// at most 20. Waits between them grow from 0.1 s to 5 s, with jitter.
	Attempts int
	// ConnectTimeout bounds connecting; 0: 3 s.
	ConnectTimeout time.Duration
	// StallTimeout is how long a connection may go without a byte in either
	// direction during a request; 0: 30 s.
	StallTimeout time.Duration
	// CheckTimeout bounds Check as a whole; 0: 8 s.
	CheckTimeout time.Duration
	// CredentialsTimeout bounds one search for credentials; 0: 5 s. The default
	// chain ends at a metadata service that machines outside of AWS do not have.
	CredentialsTimeout time.Duration
}

const attemptsMax = 20

// Validate reports everything that is wrong with c, joined.
func (c S3Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	switch {
	case c.Bucket == "":
		bad("bucket: missing")
	case strings.Contains(c.Bucket, "/"):
		bad("bucket: %q is not a bare name; what follows the bucket belongs into prefix", c.Bucket)
	case len(c.Bucket) < 3 || len(c.Bucket) > 255 || strings.Trim(c.Bucket, bucketChars) != "":
		bad("bucket: %q is not a bucket name (3 to 255 letters, digits and ._-)", c.Bucket)
	}
	if prefix := strings.TrimSuffix(c.Prefix, "/"); c.Prefix != "" {
		if err := ValidateName(prefix); err != nil {
			bad("prefix: %w", err)
		}
	}
	if c.Endpoint != "" {
		if err := c.validateEndpoint(); err != nil {
			bad("endpoint: %w", err)
		}
	}
	if strings.Trim(c.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		bad("region: %q is not a region name", c.Region)
	}
	if c.Attempts < 0 || c.Attempts > attemptsMax {
		bad("attempts: %d is not in 0 to %d", c.Attempts, attemptsMax)
	}
	if min(c.ConnectTimeout, c.StallTimeout, c.CheckTimeout, c.CredentialsTimeout) < 0 {
		bad("timeouts: none may be negative")
	}
	return errors.Join(errs...)
}

const bucketChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// validateEndpoint never quotes the endpoint: it may hold a password.
func (c S3Config) validateEndpoint() error {
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.User != nil:
		return errors.New("must not contain credentials; give them as credentials")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must start with http:// or https://")
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return errors.New("must be scheme, host and port only")
	case net.ParseIP(u.Hostname()) != nil && !c.PathStyle:
		return errors.New("is an IP address, which needs path style")
	}
	return nil
}

// withDefaults fills in the zero values.
func (c S3Config) withDefaults() S3Config {
	if c.Prefix != "" {
		c.Prefix = strings.TrimSuffix(c.Prefix, "/") + "/"
	}
	c.Endpoint = strings.TrimRight(c.Endpoint, "/")
	c.Attempts = orDefault(c.Attempts, 6)
	c.ConnectTimeout = orDefault(c.ConnectTimeout, 3*time.Second)
	c.StallTimeout = orDefault(c.StallTimeout, 30*time.Second)
	c.CheckTimeout = orDefault(c.CheckTimeout, 8*time.Second)
	c.CredentialsTimeout = orDefault(c.CredentialsTimeout, 5*time.Second)
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
