package touched

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// keyBytes is what a key takes in memory besides itself, about.
const keyBytes = 128

// Set is what is remembered of the logs of one shard.
type Set struct {
	most int64

	mu    sync.Mutex
	bytes int64
	clock uint64 // counts notes, so that the oldest of all logs is known
	logs  map[events.Log]*trail
	moved chan struct{} // closed at the next note; nil if nobody waits
}

// trail is what is remembered of one log: every key that was touched from offset from
// to before next, oldest touch first.
type trail struct {
	from, next int64
	keys       map[string]*touch
	ends       touch // of the ring: ends.next is the oldest, ends.prev the newest
}

// touch is the last touch of a key.
type touch struct {
	key        string
	offset     int64
	at         uint64
	prev, next *touch
}

// New makes a set that takes about so many bytes of memory at the most.
func New(mostBytes int64) *Set {
	return &Set{most: max(0, mostBytes), logs: map[events.Log]*trail{}}
}

// Begin says that the records of a log are noted from an offset on. If those before
// it were not, what was known of the log is forgotten. A log that is not
// begun begins at its first record.
func (s *Set) Begin(log events.Log, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, known := s.logs[log]
	if known && offset <= t.next {
		return // it goes on, or is read again
	}
	if known {
		s.forget(t, t.next)
	}
	s.logs[log] = newTrail(offset)
	s.wake()
}

func newTrail(from int64) *trail {
	t := &trail{from: from, next: from, keys: map[string]*touch{}}
	t.ends.prev, t.ends.next = &t.ends, &t.ends
	return t
}

// Note takes in the next record of a log. Offsets between it and the last one are
// no records (of a log with transactions), unless Begin says otherwise. A record that
// was noted before is passed over.
func (s *Set) Note(log events.Log, r *kgo.Record) {
	keys := keysOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	t, known := s.logs[log]
	if !known {
		t = newTrail(r.Offset)
		s.logs[log] = t
	}
	if r.Offset < t.next {
		return
	}
	t.next = r.Offset + 1
	for _, key := range keys {
		s.touch(t, key, r.Offset)
	}
	for s.bytes > s.most {
		s.dropOldest()
	}
	s.wake()
}

// keysOf are the keys whose slices a record may change.
func keysOf(r *kgo.Record) []string {
	e, err := events.Decode(r)
	if err != nil {
		return nil // it is set aside
	}
	if !e.IsUpkeep() {
		return []string{e.Key}
	}
	named, err := e.Upkeep()
	if err != nil {
		return nil
	}
	keys := make([]string, len(named))
	for i, t := range named {
		keys[i] = t.Key
	}
	return keys
}

func (s *Set) touch(t *trail, key string, offset int64) {
	s.clock++
	k, known := t.keys[key]
	if known {
		k.unlink()
	} else {
		k = &touch{key: key}
		t.keys[key] = k
		s.bytes += int64(len(key)) + keyBytes
	}
	k.offset, k.at = offset, s.clock
	k.prev, k.next = t.ends.prev, &t.ends
	k.prev.next, k.next.prev = k, k
}

func (k *touch) unlink() { k.prev.next, k.next.prev = k.next, k.prev }

// dropOldest lets go of the record that was noted longest ago.
func (s *Set) dropOldest() {
	var oldest *trail
	for _, t := range s.logs {
		if first := t.ends.next; first != &t.ends && (oldest == nil || first.at < oldest.ends.next.at) {
			oldest = t
		}
	}
	s.forget(oldest, oldest.ends.next.offset+1)
}

// forget lets go of what lies below an offset.
func (s *Set) forget(t *trail, below int64) {
	t.from = max(t.from, min(below, t.next))
	for k := t.ends.next; k != &t.ends && k.offset < t.from; k = t.ends.next {
		k.unlink()
		delete(t.keys, k.key)
		s.bytes -= int64(len(k.key)) + keyBytes
	}
}

// Forget lets go of what lies below a vector: nobody will ask for it any more.
func (s *Set) Forget(below events.Vector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for log, offset := range below {
		if t, known := s.logs[log]; known {
			s.forget(t, offset)
		}
	}
}

// Since gives, for every log whose next offset is not the same in two vectors,
// the keys that were touched from the first to before the second, in no order, and
// perhaps some more. An error of kind events.KindNotFound says that the set does not
// reach back so far; one of kind events.KindNotReady, that it has not come so far yet
// (Wait).
func (s *Set) Since(from, to events.Vector) (map[events.Log][]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[events.Log][]string{}
	for log, next := range to {
		if from[log] == next {
			continue
		}
		t, known := s.logs[log]
		switch {
		case !known || t.next < next:
			return nil, events.Errorf(events.KindNotReady, "%s: it is not known yet which keys were touched up to offset %d", log, next)
		case t.from > from[log]:
			return nil, events.Errorf(events.KindNotFound, "%s: it is not remembered which keys were touched from offset %d on, only from %d", log, from[log], t.from)
		}
		touched := []string{}
		for k := t.ends.prev; k != &t.ends && k.offset >= from[log]; k = k.prev {
			touched = append(touched, k.key)
		}
		keys[log] = touched
	}
	return keys, nil
}

// Wait returns when Since knows everything up to the second vector.
func (s *Set) Wait(ctx context.Context, from, to events.Vector) error {
	for {
		behind, moved := s.behind(from, to)
		if moved == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return events.Errorf(events.KindNotReady, "%s: its records were not read up to offset %d: %w", behind, to[behind], ctx.Err())
		case <-moved:
		}
	}
}

// behind is a log that has not come so far, and what is closed when one moves; nil:
// all have.
func (s *Set) behind(from, to events.Vector) (events.Log, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for log, next := range to {
		if t, known := s.logs[log]; next != from[log] && (!known || t.next < next) {
			if s.moved == nil {
				s.moved = make(chan struct{})
			}
			return log, s.moved
		}
	}
	return events.Log{}, nil
}

func (s *Set) wake() {
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

// Size is how many keys are remembered, and how many bytes that takes, about.
func (s *Set) Size() (keys int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.logs {
		keys += len(t.keys)
	}
	return keys, s.bytes
}
