package projections

import (
	"maps"

	"github.com/evenkeel/evenkeel/events"
)

// recentBytesMost bounds what a shard remembers of its steps; the newest one is
// remembered whatever its size.
const recentBytesMost = 1 << 20

// What a remembered step takes, about, and each change in it besides its key.
const (
	stepBytes   = 512
	changeBytes = 48
)

// step is what one Apply has changed.
type step struct {
	moved   events.Vector // the logs that it moved, and to where
	changed []change
	bytes   int
}

// change names a key whose slice was changed.
type change struct {
	stream events.Stream
	key    string
	upkeep bool // by nothing else
}

// recent are the last steps of a shard, oldest first. The shard's mu guards it.
type recent struct {
	steps []step
	first int64         // number of the first of them, from 0 since the shard was opened
	bytes int           // of all of them
	base  events.Vector // where the logs stood before the first of them
}

func (r *recent) end() int64 { return r.first + int64(len(r.steps)) }

func (r *recent) add(s step) {
	r.steps = append(r.steps, s)
	r.bytes += s.bytes
	drop := 0
	for ; r.bytes > recentBytesMost && drop < len(r.steps)-1; drop++ {
		r.bytes -= r.steps[drop].bytes
		maps.Copy(r.base, r.steps[drop].moved)
		r.steps[drop] = step{} // the array behind the slice lives on for a while
	}
	r.steps, r.first = r.steps[drop:], r.first+int64(drop)
}

// stepOf sums up what an applier has committed.
func stepOf(a *applier) step {
	s := step{moved: make(events.Vector, len(a.logs)), changed: make([]change, 0, len(a.order)), bytes: stepBytes}
	for l, t := range a.logs {
		if t.meta.next > t.from {
			s.moved[l] = t.meta.next
		}
	}
	for _, slice := range a.order {
		if !slice.changed {
			continue // its only events were parked
		}
		s.changed = append(s.changed, change{slice.turn.meta.log.Stream, slice.key, !slice.written})
		s.bytes += len(slice.key) + changeBytes
	}
	return s
}

// Feed follows which keys of a stream change in some shards. It belongs to one
// goroutine.
type Feed struct {
	shards []*Shard
	stream events.Stream
	wanted func(key string) bool
	at     []int64       // by shard: number of the next step to look at
	cut    events.Vector // of the stream's logs: everything before it was looked at
	moved  chan struct{}
}

// Follow begins a feed of the keys that are wanted: from now on, or, if from is
// not nil, of what has changed since that cut. A shard remembers its last steps
// only; that they do not reach back to the cut is an error of the kind not found. Where
// the shards have less than the cut, which is of another region or of another node's
// shard then, the feed begins where they stand: what is read of a key that changes has no
// more than that. The feed is to be closed.
func Follow(shards []*Shard, stream events.Stream, wanted func(key string) bool, from events.Vector) (*Feed, error) {
	f := &Feed{shards: shards, stream: stream, wanted: wanted, at: make([]int64, len(shards)), cut: events.Vector{}, moved: make(chan struct{}, 1)}
	for log, next := range from {
		if log.Stream == stream {
			f.cut[log] = next
		}
	}
	for i, s := range shards {
		s.listeners.add(f.moved)
		var err error
		if f.at[i], err = f.begin(s, from != nil); err != nil {
			f.Close()
			return nil, err
		}
	}
	signal(f.moved) // there may be steps already
	return f, nil
}

// Close ends the feed.
func (f *Feed) Close() {
	for _, s := range f.shards {
		s.listeners.remove(f.moved)
	}
}

// begin finds the step of a shard at which to begin.
func (f *Feed) begin(s *Shard, resumed bool) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !resumed {
		for log, m := range s.logs {
			if log.Stream == f.stream {
				f.cut[log] = m.meta.next
			}
		}
		return s.recent.end(), nil
	}
	for log, next := range s.recent.base {
		if log.Stream == f.stream && next > f.cut[log] {
			return 0, events.Errorf(events.KindNotFound, "changes of %s from offset %d on are asked for, but only those from %d on are remembered; "+
				"scan the stream and go on from the context of the last page", log, f.cut[log], next)
		}
	}
	f.stepBack(s)
	for i, step := range s.recent.steps {
		if f.isNew(step) {
			return s.recent.first + int64(i), nil
		}
	}
	return s.recent.end(), nil
}

// stepBack leaves nothing in the cut that a shard has not folded yet. The caller holds
// its mu.
func (f *Feed) stepBack(s *Shard) {
	for log, next := range f.cut {
		if log.Partition != s.cfg.Partition {
			continue
		}
		has := int64(0)
		if m, ok := s.logs[log]; ok {
			has = m.meta.next
		}
		if f.cut[log] = min(next, has); has == 0 {
			delete(f.cut, log)
		}
	}
}

// isNew tells whether a step has events behind the cut.
func (f *Feed) isNew(s step) bool {
	for log, next := range s.moved {
		if log.Stream == f.stream && next > f.cut[log] {
			return true
		}
	}
	return false
}

// Moved tells that there may be something to pull.
func (f *Feed) Moved() <-chan struct{} { return f.moved }

// Cut is the cut up to which changes were pulled. It is the feed's own.
func (f *Feed) Cut() events.Vector { return f.cut }

// Pull gives the keys that were changed since the last Pull, some of them
// repeatedly, and moves the cut. What upkeep alone has changed was seen by nobody: it was a tombstone, or
// hidden; so it only has to be told if it is seen now. An error of the kind not ready means that more has
// happened than the shards remember, or that a shard is somebody else's now: the feed
// is over.
func (f *Feed) Pull(changed func(key string, upkeep bool)) error {
	for i, s := range f.shards {
		steps, err := f.take(s, i)
		if err != nil {
			return err
		}
		for _, step := range steps {
			if !f.isNew(step) {
				continue // of other streams, or looked at before
			}
			for _, c := range step.changed {
				if c.stream == f.stream && f.wanted(c.key) {
					changed(c.key, c.upkeep)
				}
			}
			for log, next := range step.moved {
				if log.Stream == f.stream {
					f.cut[log] = max(f.cut[log], next)
				}
			}
		}
	}
	return nil
}

// take copies the steps that were not looked at yet; what is in them never
// changes.
func (f *Feed) take(s *Shard, i int) ([]step, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if f.at[i] < s.recent.first {
		return nil, events.Errorf(events.KindNotReady, "shard %d has changed faster than the changes could be followed; %d steps are missing", s.cfg.Partition, s.recent.first-f.at[i])
	}
	steps := append([]step(nil), s.recent.steps[f.at[i]-s.recent.first:]...)
	if len(steps) == 0 && s.fence != nil {
		return nil, events.Errorf(events.KindNotReady, "changes cannot be followed any more: %w", s.fence)
	}
	if s.fence != nil {
		signal(f.moved) // nothing else will tell that these were the last
	}
	f.at[i] = s.recent.end()
	return steps, nil
}
