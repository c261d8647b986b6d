package objstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
)

// newClient builds the SDK client. Everything that the SDK would otherwise take
// from defaults that changed between its versions is set here.
func newClient(ctx context.Context, c S3Config) (*s3.Client, *http.Transport, *guardedCredentials, error) {
	cfg := aws.Config{Region: c.Region, Credentials: c.Credentials}
	if c.Credentials == nil || c.Region == "" {
		loaded, err := config.LoadDefaultConfig(ctx, config.WithRegion(c.Region), config.WithLogger(logging.Nop{}))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("loading the AWS configuration: %w", err)
		}
		cfg = loaded
		if c.Credentials != nil {
			cfg.Credentials = c.Credentials
		}
	}
	if cfg.Region == "" && c.Endpoint != "" {
		cfg.Region = "us-east-1"
	}
	if cfg.Region == "" {
		return nil, nil, nil, errors.New("no region: set backup.region or AWS_REGION")
	}
	creds := &guardedCredentials{inner: cfg.Credentials, timeout: c.CredentialsTimeout}
	transport := newTransport(c)
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = &http.Client{
			Transport: transport,
			// A redirect means another region: an error that says so beats a
			// request whose signature does not fit.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		o.Credentials = aws.NewCredentialsCache(creds)
		o.UsePathStyle = c.PathStyle
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
		o.Retryer = newRetryer(c.Attempts)
		o.RetryMaxAttempts = 0 // the retryer knows
		// Uploads carry our own SHA-256 in a header, which spares the trailing
		// checksums that many stores do not understand.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
		o.DisableLogOutputChecksumValidationSkipped = true
		o.Logger = logging.Nop{}
		o.ClientLogMode = 0
	})
	return client, transport, creds, nil
}

// newRetryer retries what the SDK retries and, because Create is idempotent,
// also conflicts between conditional writes and uploads damaged on their way.
func newRetryer(attempts int) aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.Backoff = retry.BackoffDelayerFunc(func(attempt int, _ error) (time.Duration, error) {
			wait := min(100*time.Millisecond<<min(attempt, 10), 5*time.Second)
			return wait/2 + rand.N(wait/2), nil
		})
		o.Retryables = append(o.Retryables, retry.RetryableErrorCode{Codes: map[string]struct{}{
			"ConditionalRequestConflict": {},
			"OperationAborted":           {},
			"BadDigest":                  {},
		}})
	})
}

func newTransport(c S3Config) *http.Transport {
	dialer := &net.Dialer{Timeout: c.ConnectTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: conn, timeout: c.StallTimeout}, nil
		},
		TLSHandshakeTimeout:   c.ConnectTimeout,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   64,
		MaxConnsPerHost:       256,
		IdleConnTimeout:       c.StallTimeout,
		DisableCompression:    true,
	}
}

// stallConn fails reads and writes once no byte has passed in either direction
// for timeout. Reads count for writes and the other way round, since the answer
// to an upload is awaited while the upload runs.
type stallConn struct {
	net.Conn
	timeout time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// errNoCredentials marks that there was nothing to sign a request with.
var errNoCredentials = errors.New("no credentials")

// guardedCredentials bounds the time of a search for credentials and remembers
// what was found, so that it can be blacked out of error texts.
type guardedCredentials struct {
	inner   aws.CredentialsProvider
	timeout time.Duration

	mu   sync.Mutex
	last aws.Credentials
}

// Retrieve implements aws.CredentialsProvider.
func (g *guardedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if g.inner == nil {
		return aws.Credentials{}, errNoCredentials
	}
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	found, err := g.inner.Retrieve(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("nothing found within %s", g.timeout)
	}
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("%w: %w", errNoCredentials, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = found
	return found, nil
}

// blackOut removes the credentials from s.
func (g *guardedCredentials) blackOut(s string) string {
	g.mu.Lock()
	last := g.last
	g.mu.Unlock()
	for _, secret := range []string{last.SecretAccessKey, last.SessionToken, last.AccessKeyID} {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}
