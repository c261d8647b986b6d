package projections

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// logEntry is what a shard holds in memory of one log. Its fields are guarded by
// Shard.mu; Apply alone changes them.
type logEntry struct {
	meta    logMeta
	recent  recentMarks
	buckets digest.Buckets
	journal bucketJournal
}

func newLogEntry(l events.Log, rule string) *logEntry {
	return &logEntry{meta: logMeta{log: l, origin: l.Origin.String(), rule: rule}}
}

// bucketJournal is how a log's buckets are kept in the database: a batch writes
// those that it changed under the next number, and now and then all of them, after
// which what was written before is not needed any more. So a batch of few events
// writes few bytes, and in one place.
//
// A batch moves its log by one offset at least, so no number is higher than the next
// offset of its log. A delta numbers its one entry by that offset: behind all that any
// database has of the log's earlier states.
type bucketJournal struct {
	next  uint64 // number of the next entry
	bytes int    // of entries since one that holds all buckets
}

// journalBytes bounds what is written, and read on opening, between two entries
// that hold all buckets: about as much as these hold.
const journalBytes = 64 << 10

// write puts the log's new state into a batch.
func (t *logTurn) write(batch *pebble.Batch) error {
	if t.meta.next == t.from {
		return nil
	}
	if err := batch.Set(logKey(t.meta.log), t.meta.encode(), nil); err != nil {
		return err
	}
	if t.changes.Len() == 0 {
		t.encoded = t.encoded[:0]
		return nil
	}
	j := &t.log.journal
	t.encoded = t.log.buckets.AppendChanged(t.encoded[:0], &t.changes)
	if j.bytes+len(t.encoded) <= journalBytes {
		return batch.Set(bucketKey(t.meta.log, j.next), t.encoded, nil)
	}
	whole := t.log.buckets.AppendAll(t.encoded[:0], &t.changes)
	t.encoded = whole[:0] // nothing to be counted: the journal begins anew
	if err := batch.DeleteRange(bucketKey(t.meta.log, 0), bucketKey(t.meta.log, j.next), nil); err != nil {
		return err
	}
	return batch.Set(bucketKey(t.meta.log, j.next), whole, nil)
}

// show makes the turn's outcome the log's state. The caller holds Shard.mu.
func (t *logTurn) show() {
	e := t.log
	e.meta = t.meta
	e.recent.add(t.marks)
	if t.changes.Len() == 0 {
		return
	}
	e.buckets.Apply(&t.changes)
	e.journal.next++
	e.journal.bytes += len(t.encoded)
	if len(t.encoded) == 0 {
		e.journal.bytes = 0
	}
}

// readBuckets reads the journals of all logs.
func readBuckets(r pebble.Reader, logs map[events.Log]*logEntry) (err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixBuckets}, UpperBound: []byte{prefixBuckets + 1}})
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	for it.First(); it.Valid(); it.Next() {
		l, n, err := splitNumberedKey(prefixBuckets, it.Key())
		if err != nil {
			return err
		}
		e, ok := logs[l]
		if !ok {
			return fmt.Errorf("digest buckets of %s, of which nothing else is there", l)
		}
		if err := e.buckets.Read(it.Value()); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
		e.journal.next = n + 1
		e.journal.bytes += len(it.Value())
	}
	return it.Error()
}

// logMeta is what the database holds of one log under one key: its state and the
// rule by which it was folded.
type logMeta struct {
	log    events.Log
	origin string // log.Origin as text, as slices' keys hold it
	rule   string
	next   int64
	chain  digest.Sum // of the records
	sum    digest.Sum // of the live slices; what regions compare
	aside  digest.Sum // of what sum leaves out, tombstones and parked records; for Verify alone
	keys   int64
	bytes  int64
	events int64
	parked int64

	// clock is what no slice's effective clock is above: that of an event is its own, or
	// one more than that of the slice before it.
	clock events.HLC
}

// Version 3, which is read too, does not say the clock: none is known then.
const (
	logMetaVersion          = 4
	logMetaVersionClockless = 3
)

func (m *logMeta) state() events.LogState {
	return events.LogState{
		Log: m.log, Next: m.next, Chain: m.chain.Digest(), Digest: m.sum.Digest(),
		Keys: m.keys, Bytes: m.bytes, Events: m.events, Parked: m.parked,
	}
}

func (m *logMeta) mark() events.Mark {
	return events.Mark{Next: m.next, Chain: m.chain.Digest(), Digest: m.sum.Digest(), Keys: m.keys, Bytes: m.bytes}
}

// add takes a slice into the sums and counts.
func (m *logMeta) add(changes *digest.Changes, slice *touched) {
	if !slice.live {
		m.aside = m.aside.Add(slice.hash)
		return
	}
	size := int64(len(slice.key) + len(slice.now))
	m.sum, m.keys, m.bytes = m.sum.Add(slice.hash), m.keys+1, m.bytes+size
	changes.Add(slice.bucket, slice.hash, size)
}

// remove is the inverse of add.
func (m *logMeta) remove(changes *digest.Changes, slice *touched) {
	if !slice.live {
		m.aside = m.aside.Sub(slice.hash)
		return
	}
	size := int64(len(slice.key) + len(slice.now))
	m.sum, m.keys, m.bytes = m.sum.Sub(slice.hash), m.keys-1, m.bytes-size
	changes.Remove(slice.bucket, slice.hash, size)
}

// merge takes what others have added up of the log into the sums and counts.
func (m *logMeta) merge(other *logMeta) {
	m.sum, m.aside = m.sum.Add(other.sum), m.aside.Add(other.aside)
	m.keys, m.bytes, m.parked = m.keys+other.keys, m.bytes+other.bytes, m.parked+other.parked
}

// addParked takes a parked record, as the database holds it, into the sums and
// counts.
func (m *logMeta) addParked(h *digest.Hasher, dbKey, value []byte) {
	m.aside = m.aside.Add(h.Slice(m.log.Stream, string(dbKey), value))
	m.parked++
}

// encode writes version, chain, digest and aside (16 bytes each), five varints
// (next, keys, bytes, events, parked), the clock as a varint without a sign, and the
// rule's name.
func (m *logMeta) encode() []byte {
	b := []byte{logMetaVersion}
	for _, sum := range []digest.Sum{m.chain, m.sum, m.aside} {
		d := sum.Digest()
		b = append(b, d[:]...)
	}
	for _, n := range []int64{m.next, m.keys, m.bytes, m.events, m.parked} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(m.clock))
	return append(b, m.rule...)
}

func decodeLogMeta(key, value []byte) (logMeta, error) {
	log, err := events.ParseLog(string(key[1:]))
	if err != nil {
		return logMeta{}, err
	}
	m := logMeta{log: log, origin: log.Origin.String()}
	const fixed = 1 + 3*len(events.Digest{})
	if len(value) < fixed || value[0] != logMetaVersion && value[0] != logMetaVersionClockless {
		return logMeta{}, events.Errorf(events.KindRefused,
			"log %s: its state is not of version %d, which this program reads; delete the state and let it be rebuilt", log, logMetaVersion)
	}
	rest := value[1:]
	for _, sum := range []*digest.Sum{&m.chain, &m.sum, &m.aside} {
		*sum = digest.FromDigest(events.Digest(rest[:len(events.Digest{})]))
		rest = rest[len(events.Digest{}):]
	}
	for _, field := range []*int64{&m.next, &m.keys, &m.bytes, &m.events, &m.parked} {
		n, size := binary.Varint(rest)
		if size <= 0 || n < 0 {
			return logMeta{}, fmt.Errorf("log %s: state is corrupt", log)
		}
		*field, rest = n, rest[size:]
	}
	if value[0] != logMetaVersionClockless {
		clock, size := binary.Uvarint(rest)
		if size <= 0 {
			return logMeta{}, fmt.Errorf("log %s: state is corrupt", log)
		}
		m.clock, rest = events.HLC(clock), rest[size:]
	}
	m.rule = string(rest)
	return m, nil
}
