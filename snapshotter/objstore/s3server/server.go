package s3server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
)

// Defaults of Config.
const (
	DefaultAddr      = "127.0.0.1:0"
	DefaultAccessKey = "evenkeel"
	DefaultSecretKey = "evenkeel-lab"
	// Region is the region that clients sign for.
	Region = "us-east-1"
)

const (
	startTimeout = 15 * time.Second // until the gateway must answer
	closeTimeout = 15 * time.Second // more than the gateway gives itself
	maxConns     = 4096
)

// Config says where a server keeps its data and what it listens on.
type Config struct {
	// Dir holds the data. Required; made if missing.
	Dir string
	// Addr is host:port to listen on; empty: a free port on loopback. Port 0
	// means any free port.
	Addr string
	// AccessKey and SecretKey are the only account; empty: the defaults.
	AccessKey, SecretKey string
	// Buckets are made if they do not exist.
	Buckets []string
	// Log gets the gateway's internal errors; nil: nowhere.
	Log *slog.Logger
}

// Server is a running S3 server.
type Server struct {
	cfg   Config
	front *front
	sock  string // folder of the unix socket
	stop  context.CancelFunc
	done  chan struct{} // closed when the gateway has ended
	err   error         // why the gateway ended; read after done

	close    sync.Once
	closeErr error
}

// running guards the gateway's process-wide settings.
var running atomic.Bool

// Start runs a server and returns once it answers and has its buckets.
func Start(cfg Config) (*Server, error) {
	if cfg.Dir == "" {
		return nil, errors.New("s3server: Dir is missing")
	}
	cfg.Addr = orDefault(cfg.Addr, DefaultAddr)
	cfg.AccessKey = orDefault(cfg.AccessKey, DefaultAccessKey)
	cfg.SecretKey = orDefault(cfg.SecretKey, DefaultSecretKey)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if !running.CompareAndSwap(false, true) {
		return nil, errors.New("s3server: one is already running in this process; close it first")
	}
	s, err := start(cfg)
	if err != nil {
		running.Store(false)
		return nil, fmt.Errorf("s3server: %w", err)
	}
	return s, nil
}

func start(cfg Config) (*Server, error) {
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w; choose another address or stop what uses it", cfg.Addr, err)
	}
	backend, err := newRooted(cfg)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	sock, err := os.MkdirTemp("", "s3server-") // the path of a socket is short
	if err != nil {
		backend.Shutdown()
		return nil, errors.Join(err, listener.Close())
	}
	socket := filepath.Join(sock, "s")
	s := &Server{cfg: cfg, sock: sock, front: newFront(listener, socket), done: make(chan struct{})}

	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	bound := make(chan struct{})
	go func() {
		defer close(s.done)
		s.err = embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess:    cfg.AccessKey,
			RootUserSecret:    cfg.SecretKey,
			Region:            Region,
			Ports:             []string{socket},
			MaxConnections:    maxConns,
			MaxRequests:       maxConns,
			MultipartMaxParts: 10_000,
			Quiet:             true,
			KeepAlive:         true,
			IAMService:        newAccounts(cfg),
			S3Options: []s3api.Option{
				s3api.WithOnListen(func() { close(bound) }),
				s3api.WithMiddleware("/", manners(cfg.Log)),
			},
		})
	}()

	if err := s.ready(bound); err != nil {
		return nil, errors.Join(err, s.shutDown())
	}
	s.front.open()
	return s, nil
}

// ready waits until the gateway answers and makes the buckets.
func (s *Server) ready(bound <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	select {
	case <-bound:
	case <-s.done:
		return fmt.Errorf("the gateway did not start: %w", s.err)
	case <-ctx.Done():
		return fmt.Errorf("the gateway did not start within %s", startTimeout)
	}
	return makeBuckets(ctx, s)
}

// URL is the endpoint to give to clients. They need path style.
func (s *Server) URL() string { return "http://" + s.front.addr() }

// Credentials returns the account that may do everything.
func (s *Server) Credentials() (accessKey, secretKey string) {
	return s.cfg.AccessKey, s.cfg.SecretKey
}

// Close stops the server: connections are cut, requests under way fail, the port
// is free. It returns within 15 s, usually in 0.1 s. A second Close does nothing.
func (s *Server) Close() error {
	s.close.Do(func() {
		s.closeErr = s.shutDown()
		if s.closeErr == nil {
			running.Store(false)
		}
	})
	return s.closeErr
}

func (s *Server) shutDown() error {
	err := s.front.close()
	s.stop()
	select {
	case <-s.done:
	case <-time.After(closeTimeout):
		return fmt.Errorf("s3server: the gateway did not stop within %s", closeTimeout)
	}
	return errors.Join(err, s.err, os.RemoveAll(s.sock))
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
