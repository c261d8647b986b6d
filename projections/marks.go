package projections

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// A shard can say what the state of a log was after any of its last markEvery
// records, and before every markEvery-th record of the last keptMarks*markEvery.
// So another region's word on the log can be compared with this one's although
// both have gone on since.
const (
	markEvery = 1024
	keptMarks = 4096
)

// MarkEvery is the distance of the offsets at which a mark is kept for long.
const MarkEvery = markEvery

// Marks before the last markEvery records are in the database; those in between
// are in memory alone, and not there for a while after a start.

// ErrMarkGone says that the state of a log at an offset is not known any more;
// ErrMarkAhead, that it is not known yet.
var (
	ErrMarkGone  = errors.New("the state at that offset is not remembered any more")
	ErrMarkAhead = errors.New("the log is not folded up to that offset yet")
)

// At is the state of a log when all its records below an offset were folded, and
// no others. Errors are ErrMarkGone, ErrMarkAhead, or those of the database.
func (s *Shard) At(l events.Log, offset int64) (events.Mark, error) {
	s.mu.RLock()
	var mark events.Mark
	next, found := int64(0), false
	if e, ok := s.logs[l]; ok {
		next = e.meta.next
		if mark, found = e.recent.at(offset); !found && offset == next {
			mark, found = e.meta.mark(), true
		}
	}
	s.mu.RUnlock()
	switch {
	case found:
		return mark, nil
	case offset > next:
		return events.Mark{}, ErrMarkAhead
	case offset == 0:
		return events.Mark{}, nil
	case offset%markEvery != 0:
		return events.Mark{}, ErrMarkGone
	}
	value, err := get(s.db, markKey(l, offset))
	if err != nil {
		return events.Mark{}, fmt.Errorf("state in %s: %w", s.cfg.Dir, err)
	}
	if value == nil {
		return events.Mark{}, ErrMarkGone
	}
	return decodeMark(offset, value)
}

// keepMark puts the log's state into the batch if the next record, at offset, is
// the first at or behind a multiple of markEvery.
func (t *logTurn) keepMark(batch *pebble.Batch, offset int64) error {
	at := offset - offset%markEvery
	if at < t.meta.next || at == 0 {
		return nil
	}
	if old := at - keptMarks*markEvery; old > 0 {
		if err := batch.Delete(markKey(t.meta.log, old), nil); err != nil {
			return err
		}
	}
	return batch.Set(markKey(t.meta.log, at), encodeMark(t.meta.mark()), nil)
}

// mark notes the log's state after a record.
func (t *logTurn) mark() {
	if len(t.marks) == 2*markEvery { // only the last markEvery will be kept
		t.marks = append(t.marks[:0], t.marks[markEvery:]...)
	}
	t.marks = append(t.marks, t.meta.mark())
}

// recentMarks are the states of a log after each of its last records, oldest
// first, up to twice markEvery of them.
type recentMarks []events.Mark

func (r *recentMarks) add(marks []events.Mark) {
	if len(marks) >= markEvery { // and there may be a gap before them
		*r = append((*r)[:0], marks...)
		return
	}
	if over := len(*r) + len(marks) - 2*markEvery; over > 0 {
		drop := min(len(*r), max(over, markEvery))
		*r = append((*r)[:0], (*r)[drop:]...)
	}
	*r = append(*r, marks...)
}

// at finds the state before the first record at or behind an offset, if that
// record and the one before it are among the last.
func (r recentMarks) at(offset int64) (events.Mark, bool) {
	i, exact := slices.BinarySearchFunc(r, offset, func(m events.Mark, offset int64) int { return int(m.Next - offset) })
	if exact {
		return r[i], true
	}
	if i == 0 || i == len(r) {
		return events.Mark{}, false
	}
	m := r[i-1] // offset is in a hole behind it
	m.Next = offset
	return m, true
}

// encodeMark writes chain and digest (16 bytes each) and keys and bytes (varints);
// the offset is in the key.
func encodeMark(m events.Mark) []byte {
	b := slices.Concat(m.Chain[:], m.Digest[:])
	b = binary.AppendVarint(b, m.Keys)
	return binary.AppendVarint(b, m.Bytes)
}

func decodeMark(offset int64, value []byte) (events.Mark, error) {
	m := events.Mark{Next: offset}
	const fixed = 2 * len(events.Digest{})
	if len(value) > fixed {
		copy(m.Chain[:], value)
		copy(m.Digest[:], value[len(m.Chain):])
		keys, n := binary.Varint(value[fixed:])
		if n > 0 {
			bytes, k := binary.Varint(value[fixed+n:])
			if k > 0 {
				m.Keys, m.Bytes = keys, bytes
				return m, nil
			}
		}
	}
	return events.Mark{}, fmt.Errorf("mark at offset %d is corrupt", offset)
}

// Buckets are the digest buckets of a log, and the offset up to which they hold.
func (s *Shard) Buckets(l events.Log) (digest.Buckets, int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.logs[l]
	if !ok {
		return digest.Buckets{}, 0
	}
	return e.buckets, e.meta.next
}
