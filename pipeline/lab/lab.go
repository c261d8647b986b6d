package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/snapshotter/objstore/s3server"
)

// Lab is a running lab.
type Lab struct {
	dir      string
	settings *settings
	log      *slog.Logger
	lock     *os.File
	s3       *s3server.Server
	control  *http.Server

	mu      sync.Mutex // one change at a time
	regions map[events.Region]*region
}

// readyTimeout bounds how long a region may take until it serves.
const readyTimeout = 30 * time.Second

// Up starts the lab in a directory, or makes one there. It returns once all
// regions serve.
func Up(ctx context.Context, cfg Config, log *slog.Logger) (*Lab, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	l := &Lab{dir: dir, log: log, regions: map[events.Region]*region{}}
	if err := l.up(ctx, cfg); err != nil {
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, cfg Config) (err error) {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("lab directory: %w", err)
	}
	if l.lock, err = lockDir(l.dir); err != nil {
		return err
	}
	if l.settings, err = loadSettings(cfg); err != nil {
		return err
	}
	keys, err := loadKeys(filepath.Join(l.dir, "keys"))
	if err != nil {
		return err
	}
	for _, rs := range l.settings.Regions {
		l.regions[rs.Name] = &region{
			settings: rs, cfgs: l.settings.nodeConfigs(l.dir, rs, keys), dir: filepath.Join(l.dir, rs.Name.String()), log: l.log,
		}
	}
	if err := l.startServers(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range l.regions {
		g.Go(func() error { return r.start(ctx) })
	}
	return g.Wait()
}

// lockDir keeps a second process out of the lab.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lab.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lab directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(events.Errorf(events.KindRefused, "a lab is running in %s already; stop it, or choose another directory with --dir", dir), f.Close())
	}
	return f, nil
}

// startServers starts what the regions share: the control page and S3.
func (l *Lab) startServers(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback(l.settings.Control))
	if err != nil {
		return fmt.Errorf("control page of the lab cannot listen: %w; is another lab running? Choose other ports with --base-port and another --dir", err)
	}
	control := &http.Server{Handler: l.controlHandler(), ReadHeaderTimeout: 10 * time.Second}
	l.control = control
	go func() { _ = control.Serve(listener) }() // ends when Down closes the server
	var buckets []string
	for _, r := range l.settings.Regions {
		buckets = append(buckets, bucketName(r.Name))
	}
	l.s3, err = s3server.Start(s3server.Config{
		Dir: filepath.Join(l.dir, "s3"), Addr: loopback(l.settings.S3), Buckets: buckets, Log: l.log,
	})
	if err != nil {
		return fmt.Errorf("S3 server of the lab: %w", err)
	}
	return nil
}

// Down stops everything. It is safe on a lab that is half up, and twice.
func (l *Lab) Down() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var g errgroup.Group
	for _, r := range l.regions {
		g.Go(r.stop)
	}
	err := g.Wait()
	if l.control != nil {
		err = errors.Join(err, l.control.Close())
	}
	if l.s3 != nil {
		err = errors.Join(err, l.s3.Close())
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	l.control, l.s3, l.lock = nil, nil, nil
	return err
}

// Regions names the lab's regions, in the order in which they were given.
func (l *Lab) Regions() (names []events.Region) {
	for _, r := range l.settings.Regions {
		names = append(names, r.Name)
	}
	return names
}

// Client is a client of a region's API.
func (l *Lab) Client(name events.Region) (*api.Client, error) {
	r, err := l.region(name)
	if err != nil {
		return nil, err
	}
	return api.NewClient("http://" + loopback(r.settings.API))
}

// Address is where a part of the lab is reached.
type Address struct {
	Region events.Region `json:"region"`
	State  string        `json:"state"` // running or stopped
	API    string        `json:"api"`
	More   []string      `json:"more_apis,omitempty"` // of further nodes
	Kafka  string        `json:"kafka"`
	Bucket string        `json:"bucket"`
}

// Addresses lists where everything is.
func (l *Lab) Addresses() (rows []Address) {
	for _, rs := range l.settings.Regions {
		row := Address{
			Region: rs.Name, State: l.regions[rs.Name].state(), API: "http://" + loopback(rs.API),
			Kafka: rs.Kafka, Bucket: bucketName(rs.Name),
		}
		for _, port := range rs.More {
			row.More = append(row.More, "http://"+loopback(port))
		}
		rows = append(rows, row)
	}
	return rows
}

// Control is the address of the control page.
func (l *Lab) Control() string { return "http://" + loopback(l.settings.Control) }

// S3 is the address of the S3 server and the keys to it.
func (l *Lab) S3() (url, accessKey, secretKey string) {
	accessKey, secretKey = l.s3.Credentials()
	return l.s3.URL(), accessKey, secretKey
}

func (l *Lab) region(name events.Region) (*region, error) {
	r, ok := l.regions[name]
	if !ok {
		return nil, events.Errorf(events.KindNotFound, "the lab has no region %q; it has %v", name, l.Regions())
	}
	return r, nil
}
