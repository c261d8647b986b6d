package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/pause"
	"github.com/evenkeel/evenkeel/snapshotter/format"
	"github.com/evenkeel/evenkeel/snapshotter/segment"
)

// shard archives one shard, as long as it is the node's.
type shard struct {
	a      *Archiver
	number int32
	log    *slog.Logger

	wake   chan struct{} // when something came to the inbox
	paused atomic.Bool   // its topics are not read at present
	anew   atomic.Bool   // a topic was made anew: it is to be looked where to go on
	own    atomic.Int64  // bytes that were taken out of the inbox, up to the bucket

	// Of its goroutine: the newest segment that it knows of, and how far who is told of
	// what is read was told.
	newest  *format.Segment
	noted   map[events.Log]int64
	damaged time.Time // since when one behind it cannot be read; zero: none is

	mu      sync.Mutex
	inbox   []batch
	waiting int64 // bytes in it
	err     error // why nothing goes on at present; nil: it does
	stopped map[events.Log]error
	gaps    map[events.Log]string
	void    string // what is damaged of the archive, and was gone on behind
	tails   map[events.Log]tail
	reading reading
}

// tail is the end of a log as it was read: behind its last record, and behind what
// is there that is no record, such as the end of a transaction.
type tail struct{ records, read int64 }

func newShard(a *Archiver, number int32) *shard {
	return &shard{
		a: a, number: number, log: a.log.With("shard", number), wake: make(chan struct{}, 1), noted: map[events.Log]int64{},
		stopped: map[events.Log]error{}, gaps: map[events.Log]string{}, tails: map[events.Log]tail{},
	}
}

// errAgain ends a turn after which is looked again where to go on.
var errAgain = errors.New("a log does not have what comes next")

// errUnsure is told only if it lasts: a node that has just started has yet to learn
// which shards are its own.
var errUnsure = errors.New("it is not sure that the shard is the node's")

// run archives until the context ends or the shard is not the node's any more.
func (s *shard) run(ctx context.Context) {
	var unsure time.Time // since when; zero: it is not
	for wait := pauseLeast; ctx.Err() == nil && s.a.node.Archives(s.number); {
		begun := time.Now()
		err := s.archive(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case errors.Is(err, segment.ErrTaken):
			s.a.metrics.taken.Inc()
			s.log.Info("another archiver has gone on with the archive of the shard", "error", err)
			continue
		case errors.Is(err, errUnsure):
			if unsure.IsZero() {
				unsure = begun
			}
			if time.Since(unsure) >= pauseMost {
				s.tell(err)
			}
		case !errors.Is(err, errAgain):
			s.tell(err)
		}
		if !errors.Is(err, errUnsure) {
			unsure = time.Time{}
		}
		if time.Since(begun) > pauseMost {
			wait = pauseLeast
		}
		pause.For(ctx, wait)
		wait = min(2*wait, pauseMost)
	}
}

// archive goes on where the archive ends, until somebody else does.
func (s *shard) archive(ctx context.Context) error {
	if err := s.a.node.Sure(); err != nil {
		return fmt.Errorf("%w: %w", errUnsure, err)
	}
	s.anew.Store(false)
	at, err := s.find(ctx)
	if err != nil {
		s.a.metrics.errors.Inc()
		return err
	}
	s.a.start(s, at.read)
	defer s.a.stop(s)
	s.tell(nil)
	return newTurn(s, at).run(ctx)
}

// put takes in what was read.
func (s *shard) put(b batch) {
	s.mu.Lock()
	s.inbox = append(s.inbox, b)
	s.waiting += b.bytes
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes a batch out of the inbox.
func (s *shard) next() (b batch, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inbox) == 0 {
		return batch{}, false
	}
	b = s.inbox[0]
	s.inbox[0] = batch{}
	s.inbox = s.inbox[1:]
	s.waiting -= b.bytes
	return b, true
}

// forget empties the inbox.
func (s *shard) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox, s.waiting = nil, 0
}

// held is how many bytes of memory it has, about.
func (s *shard) held() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting + s.own.Load()
}

// tell notes why nothing goes on, or that it does.
func (s *shard) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		s.log.Warn("the archive of the shard does not go on and is tried again", "error", err)
	}
	s.err = err
}

// stopLog ends the archive of a log until the shard is looked at anew.
func (s *shard) stopLog(l events.Log, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped[l] == nil {
		s.log.Error("the archive of a log has stopped", "log", l.String(), "error", reason)
	}
	s.stopped[l] = reason
}

func (s *shard) isStopped(l events.Log) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped[l] != nil
}

// gap notes what is missing of a log for good.
func (s *shard) gap(l events.Log, from, to int64, reason string) {
	text := fmt.Sprintf("the archive of %s lacks offsets %d to %d: %s", l, from, to-1, reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gaps[l] != text {
		s.log.Error("the archive of a log has a gap", "log", l.String(), "from", from, "to", to, "reason", reason)
	}
	s.gaps[l] = text
}

// voided notes that the archive goes on behind what is damaged.
func (s *shard) voided(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.void != text {
		s.log.Error("the archive goes on behind a damaged segment", "error", text)
		s.a.metrics.void.Inc()
	}
	s.void = text
}

func (s *shard) setTail(l events.Log, t tail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tails[l] = t
}

// problems says what needs an eye.
func (s *shard) problems() (problems []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		problems = append(problems, fmt.Sprintf("the archive of shard %d does not go on: %s; nothing is lost as long as the logs keep it", s.number, s.err))
	}
	if s.void != "" {
		problems = append(problems, s.void)
	}
	for _, l := range slices.SortedFunc(maps.Keys(s.stopped), events.Log.Compare) {
		problems = append(problems, fmt.Sprintf("the archive of %s has stopped: %s", l, s.stopped[l]))
	}
	for _, l := range slices.SortedFunc(maps.Keys(s.gaps), events.Log.Compare) {
		problems = append(problems, s.gaps[l])
	}
	return problems
}

// goOn says that the archive of a log is not stopped any more.
func (s *shard) goOn(l events.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stopped, l)
}
