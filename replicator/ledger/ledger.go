package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrSuperseded says that another writer came first. The ledger knows by then what
// the other one wrote.
var ErrSuperseded = errors.New("superseded by another instance of the link")

// ErrClosed says that the ledger has been closed.
var ErrClosed = errors.New("the ledger is closed")

// Partition is one partition of a log, by its topic's name at the source.
type Partition struct {
	Topic     string
	Partition int32
}

func (p Partition) String() string { return fmt.Sprintf("%s/%d", p.Topic, p.Partition) }

// Config says whose ledger it is. All but Replication is required.
type Config struct {
	Topic       string // the link topic
	Link        string // e.g. us-east-1→eu-central-1; links do not see each other
	Instance    string // names who writes, for those who read the topic by hand
	Replication int16  // of the topic if it has to be created; 0 and -1: the cluster's default
}

func (c Config) validate() error {
	for name, value := range map[string]string{"topic": c.Topic, "link": c.Link, "instance": c.Instance} {
		if value == "" {
			return fmt.Errorf("ledger: config has no %s", name)
		}
	}
	return nil
}

// metadataAgeMin is short, because a topic that has just been created has to be
// believed in soon.
const metadataAgeMin = 250 * time.Millisecond

// Ledger is one link's part of the link topic.
type Ledger struct {
	cfg    Config
	client *kgo.Client
	writer string        // unique to this Ledger
	writes atomic.Uint64 // numbers keys, so that no write replaces another

	close  func()
	closed chan struct{}

	reading chan struct{} // held by who moves reader
	reader  reader

	mu        sync.Mutex
	state     *state
	confirmed int64                       // offset before which the state is that of every reader
	appending map[Partition]chan struct{} // held by who appends runs
	failed    error                       // why the topic cannot be read any more
}

// Open makes sure that the topic exists and is fit, and reads it to its end. The
// options say how to reach the destination cluster. It writes nothing but the topic.
func Open(ctx context.Context, opts []kgo.Opt, cfg Config) (*Ledger, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := ensureTopic(ctx, opts, cfg); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.MetadataMinAge(metadataAgeMin),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// Nothing here minds a record that is written twice, and the client would
		// ask for a producer id without a pause while brokers refuse connections.
		kgo.DisableIdempotentWrite(),
		kgo.MaxProduceRequestsInflightPerBroker(1), // in order, all the same
		kgo.ProducerLinger(0),
	)...)
	if err != nil {
		return nil, fmt.Errorf("link topic %s: %w", cfg.Topic, err)
	}
	closed := make(chan struct{})
	l := &Ledger{
		cfg: cfg, client: client, writer: cfg.Instance + "/" + rand.Text()[:8],
		closed: closed, close: sync.OnceFunc(func() { close(closed); client.Close() }),
		reading: make(chan struct{}, 1), reader: reader{client: client, topic: cfg.Topic, closed: closed, bytes: fetchBytes},
		state: newState(cfg.Link), appending: map[Partition]chan struct{}{},
	}
	if err := l.Refresh(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends the ledger. Calls under way and later ones fail with ErrClosed. To
// close it again does nothing.
func (l *Ledger) Close() { l.close() }

// Refresh reads on to the topic's present end.
func (l *Ledger) Refresh(ctx context.Context) error {
	l.mu.Lock()
	seen := l.confirmed
	l.mu.Unlock()
	end, err := l.reader.end(ctx)
	if err == nil && end < seen {
		err = l.reader.shorter(end, seen)
	}
	if err != nil {
		return l.note(err)
	}
	return l.readTo(ctx, end)
}

// Unreadable describes records of the topic that make no sense, the first few of
// them. They are ignored otherwise.
func (l *Ledger) Unreadable() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.unreadable.list()
}

// readTo reads on at least to an offset, and further if the state could not be
// trusted there.
func (l *Ledger) readTo(ctx context.Context, target int64) error {
	select {
	case l.reading <- struct{}{}:
		defer func() { <-l.reading }()
	case <-ctx.Done():
		return fmt.Errorf("link topic %s: %w", l.cfg.Topic, context.Cause(ctx))
	}
	l.mu.Lock()
	done, failed := l.confirmed >= target, l.failed
	l.mu.Unlock()
	if done || failed != nil {
		return failed
	}
	if err := l.reader.readTo(ctx, target, l.apply); err != nil {
		return l.note(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirmed = l.reader.next
	l.state.settle()
	return nil
}

// note remembers an error after which the ledger can never be right again.
func (l *Ledger) note(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil && errors.Is(err, errLost) {
		l.failed = err
	}
	return err
}

func (l *Ledger) apply(records []*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.state.apply(r.Offset, r.Key, r.Value)
	}
}
