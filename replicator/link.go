package replicator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// Config is what a link copies.
type Config struct {
	Origin      events.Origin // whose logs
	Destination events.Region
	Topics      []string // of the logs, in the origin's cluster
	Partitions  int32    // of every log and mirror
}

const (
	pollRecords    = 20_000 // at most so many records are in flight
	fetchMaxBytes  = 16 << 20
	batchMaxBytes  = 1 << 20 // before compression; brokers take 1,048,588 by default
	requestTimeout = 10 * time.Second
	checkInterval  = 10 * time.Second
	backoffLeast   = 100 * time.Millisecond
	backoffMost    = 5 * time.Second
)

// Link mirrors the logs of one origin into one destination.
type Link struct {
	cfg     Config
	source  []kgo.Opt
	dest    []kgo.Opt
	metrics *Metrics
	log     *slog.Logger

	mu        sync.Mutex
	connected error // what keeps the link from mirroring at present; nil if nothing does
	since     time.Time
	stopped   map[partition]error
}

type partition struct {
	topic string // of the log, not of the mirror
	num   int32
}

func (p partition) compare(q partition) int {
	if c := strings.Compare(p.topic, q.topic); c != 0 {
		return c
	}
	return int(p.num - q.num)
}

// NewLink makes a link from the cluster that the source options reach to the
// one that the dest options reach.
func NewLink(source, dest []kgo.Opt, cfg Config, metrics *Metrics, log *slog.Logger) *Link {
	return &Link{
		cfg: cfg, source: source, dest: dest, metrics: metrics,
		log:       log.With("link", cfg.Origin.String()+"→"+cfg.Destination.String()),
		connected: errors.New("not started"),
		since:     time.Now(),
		stopped:   map[partition]error{},
	}
}

// StoppedError says that the mirroring of one partition has stopped for good
// and what an operator has to know.
type StoppedError struct {
	Origin    events.Origin
	Topic     string // of the log
	Partition int32
	Reason    string
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("mirror of %s, topic %s, partition %d: %s", e.Origin, e.Topic, e.Partition, e.Reason)
}

// Status is what a link is doing.
type Status struct {
	Origin      events.Origin `json:"origin"`
	Destination events.Region `json:"destination"`
	Running     bool          `json:"running"`         // everything that is not stopped is being mirrored
	Error       string        `json:"error,omitempty"` // why not, if it is not
	Since       time.Time     `json:"since"`           // of Running's present value
	Stopped     []string      `json:"stopped,omitempty"`
}

// Status tells what the link is doing at present. An outage shows within
// checkInterval and requestTimeout together.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Origin: l.cfg.Origin, Destination: l.cfg.Destination, Running: l.connected == nil, Since: l.since}
	if l.connected != nil {
		s.Error = l.connected.Error()
	}
	for _, p := range sortedKeys(l.stopped) {
		s.Stopped = append(s.Stopped, l.stopped[p].Error())
	}
	return s
}

// Run mirrors until the context ends; whatever fails meanwhile is tried again,
// with growing pauses. It returns only after every write under way has been
// answered, or given up after requestTimeout.
func (l *Link) Run(ctx context.Context) {
	defer l.setConnected(errEnded)
	pause := backoffLeast
	for {
		worked, err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		l.setConnected(err)
		if worked {
			pause = backoffLeast
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		pause = min(2*pause, backoffMost)
	}
}
