package projections

import (
	"encoding/binary"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/digest"
)

// logMeta is what the database holds of one log: its state and the rule by
// which it was folded.
type logMeta struct {
	log    events.Log
	origin string // log.Origin as text, as slices' keys hold it
	rule   string
	next   int64
	sum    digest.Sum // of the live slices; what regions compare
	aside  digest.Sum // of what sum leaves out, tombstones and parked records; for Verify alone
	keys   int64
	bytes  int64
	events int64
	parked int64
}

const logMetaVersion = 2

func (m *logMeta) state() events.LogState {
	return events.LogState{
		Log: m.log, Next: m.next, Digest: m.sum.Digest(),
		Keys: m.keys, Bytes: m.bytes, Events: m.events, Parked: m.parked,
	}
}

// add takes a slice into the sums and counts.
func (m *logMeta) add(h *digest.Hasher, key string, slice []byte, live bool) {
	hash := h.Slice(m.log.Stream, key, slice)
	if !live {
		m.aside = m.aside.Add(hash)
		return
	}
	m.sum = m.sum.Add(hash)
	m.keys++
	m.bytes += int64(len(key) + len(slice))
}

// remove is the inverse of add.
func (m *logMeta) remove(h *digest.Hasher, key string, slice []byte, live bool) {
	hash := h.Slice(m.log.Stream, key, slice)
	if !live {
		m.aside = m.aside.Sub(hash)
		return
	}
	m.sum = m.sum.Sub(hash)
	m.keys--
	m.bytes -= int64(len(key) + len(slice))
}

// addParked takes a parked record, as the database holds it, into the sums and
// counts.
func (m *logMeta) addParked(h *digest.Hasher, dbKey, value []byte) {
	m.aside = m.aside.Add(h.Slice(m.log.Stream, string(dbKey), value))
	m.parked++
}

// encode writes version, digest and aside (16 bytes each), five varints (next,
// keys, bytes, events, parked) and the rule's name.
func (m *logMeta) encode() []byte {
	sum, aside := m.sum.Digest(), m.aside.Digest()
	b := append([]byte{logMetaVersion}, sum[:]...)
	b = append(b, aside[:]...)
	for _, n := range []int64{m.next, m.keys, m.bytes, m.events, m.parked} {
		b = binary.AppendVarint(b, n)
	}
	return append(b, m.rule...)
}

func decodeLogMeta(key, value []byte) (*logMeta, error) {
	log, err := events.ParseLog(string(key[1:]))
	if err != nil {
		return nil, err
	}
	const fixed = 33
	if len(value) < fixed || value[0] != logMetaVersion {
		return nil, fmt.Errorf("log %s: state is not of version %d", log, logMetaVersion)
	}
	m := &logMeta{
		log: log, origin: log.Origin.String(),
		sum:   digest.FromDigest(events.Digest(value[1:17])),
		aside: digest.FromDigest(events.Digest(value[17:fixed])),
	}
	rest := value[fixed:]
	for _, field := range []*int64{&m.next, &m.keys, &m.bytes, &m.events, &m.parked} {
		n, size := binary.Varint(rest)
		if size <= 0 || n < 0 {
			return nil, fmt.Errorf("log %s: state is corrupt", log)
		}
		*field, rest = n, rest[size:]
	}
	m.rule = string(rest)
	return m, nil
}
