//go:build kafka

package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/replicator"
	"github.com/evenkeel/evenkeel/replicator/follow"
)

// link is a link under test, in this process.
type link struct {
	*replicator.Link
	w      *world
	log    *logBuffer
	cancel context.CancelFunc
	ended  chan struct{}
}

// start runs a new link of the world's topic, unless a change says otherwise.
func (w *world) start(changes ...func(*replicator.Config)) *link {
	w.Helper()
	cfg := replicator.Config{
		Origin: events.FirstOrigin(w.source.region), Destination: w.dest.region, Topics: patterns(w.T, w.topic),
		Internal: follow.Internal(sourceRegion, destRegion, forgetfulRegion),
	}
	for _, change := range changes {
		change(&cfg)
	}
	log := new(logBuffer)
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{
		w: w, log: log, cancel: cancel, ended: make(chan struct{}),
		Link: replicator.NewLink(w.source.reach(), w.dest.reach(), cfg,
			replicator.NewMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(log, nil))),
	}
	go func() {
		defer close(l.ended)
		l.Run(ctx)
	}()
	w.Cleanup(func() {
		l.stop()
		if w.Failed() {
			w.Logf("the link said:\n%s", log)
		}
	})
	return l
}

func patterns(t *testing.T, names ...string) follow.Patterns {
	t.Helper()
	p, err := follow.NewPatterns(names, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// stop ends the link and waits for it; a second time it does nothing.
func (l *link) stop() {
	l.w.Helper()
	l.cancel()
	select {
	case <-l.ended:
	case <-time.After(patience):
		l.w.Fatal("the link does not end")
	}
}

// logBuffer keeps what a link says until somebody wants to see it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// part is what the link says of a partition of the world's topic, nil if nothing.
func (l *link) part(num int32) *replicator.PartitionStatus {
	for _, p := range l.Details().Partitions {
		if p.Topic == l.w.topic && p.Partition == num {
			return &p
		}
	}
	return nil
}

// awaitMirrored waits until the given partitions, by default all, are mirrored up
// to what is stable at the source.
func (l *link) awaitMirrored(nums ...int32) {
	l.w.Helper()
	ends := l.w.source.stables(l.w.topic)
	if len(nums) == 0 {
		for num := range ends {
			nums = append(nums, num)
		}
	}
	l.w.await("mirrored", patience, func() error {
		for _, num := range nums {
			switch p := l.part(num); {
			case p == nil:
				return fmt.Errorf("partition %d is not known to the link: %+v", num, l.Status())
			case p.State.Stopped():
				l.w.Fatalf("partition %d has stopped: %v", num, p.Stop)
			case p.State != replicator.Mirroring || p.SourceNext == nil || *p.SourceNext < ends[num]:
				return fmt.Errorf("partition %d is %s at offset %v of %d: %s", num, p.State, text(p.SourceNext), ends[num], p.Reason)
			}
		}
		return nil
	})
}

func text(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return fmt.Sprint(*n)
}

// awaitStopped waits until a partition has stopped in a state, with a range of
// offsets, while no other has.
func (l *link) awaitStopped(num int32, state replicator.State, from, to int64) {
	l.w.Helper()
	l.awaitState(num, state)
	p := l.part(num)
	if p.Stop.From != from || p.Stop.To != to {
		l.w.Errorf("partition %d: %s, offsets %d to %d, want %d to %d: %s", num, p.State, p.Stop.From, p.Stop.To, from, to, p.Stop.Reason)
	}
	for _, other := range l.Details().Partitions {
		if other.Partition != num && other.State.Stopped() {
			l.w.Errorf("partition %d has stopped too: %v", other.Partition, other.Stop)
		}
	}
}

// awaitState waits until a partition has stopped in a state.
func (l *link) awaitState(num int32, state replicator.State) {
	l.w.Helper()
	l.w.await(fmt.Sprintf("partition %d is %s", num, state), patience, func() error {
		p := l.part(num)
		if p == nil {
			return errors.New("not known to the link")
		}
		if p.State.Stopped() && p.State != state {
			l.w.Fatalf("partition %d has stopped otherwise, want %s: %v", num, state, p.Stop)
		}
		if p.State != state {
			return fmt.Errorf("%s %s", p.State, p.Reason)
		}
		return nil
	})
}

// resume lets a partition, or all, go on as an operator would.
func (l *link) resume(num int32, choice string) {
	l.w.Helper()
	c, err := replicator.ParseChoice(choice)
	if err != nil {
		l.w.Fatal(err)
	}
	if _, err := l.Resume(context.Background(), l.w.topic, num, c); err != nil {
		l.w.Fatalf("resume partition %d from %s: %v", num, choice, err)
	}
}

// verify lets the link compare all partitions, and tells how many records are the
// same and how many the source does not have any more.
func (l *link) verify() (records, expired int64) {
	l.w.Helper()
	for num, end := range l.w.dest.ends(l.w.mirror()) {
		for at := int64(0); at < end; {
			v, err := l.Verify(context.Background(), l.w.topic, num, at)
			if err != nil {
				l.w.Fatalf("verify partition %d from offset %d: %v", num, at, err)
			}
			if v.Difference != nil {
				l.w.Errorf("verify partition %d: %+v", num, *v.Difference)
				break
			}
			if v.Next <= at {
				l.w.Fatalf("verify partition %d stays at offset %d: %+v", num, at, v)
			}
			records, expired, at = records+v.Records, expired+v.Expired, v.Next
		}
	}
	return records, expired
}
