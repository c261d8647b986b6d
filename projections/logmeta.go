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
	sum    digest.Sum
	keys   int64
	bytes  int64
	events int64
	parked int64
}

const logMetaVersion = 1

func (m *logMeta) state() events.LogState {
	return events.LogState{
		Log: m.log, Next: m.next, Digest: m.sum.Digest(),
		Keys: m.keys, Bytes: m.bytes, Events: m.events, Parked: m.parked,
	}
}

// encode writes version, digest (16 bytes), five varints (next, keys, bytes,
// events, parked) and the rule's name.
func (m *logMeta) encode() []byte {
	d := m.sum.Digest()
	b := append([]byte{logMetaVersion}, d[:]...)
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
	if len(value) < 17 || value[0] != logMetaVersion {
		return nil, fmt.Errorf("log %s: state is not of version %d", log, logMetaVersion)
	}
	m := &logMeta{log: log, origin: log.Origin.String(), sum: digest.FromDigest(events.Digest(value[1:17]))}
	rest := value[17:]
	for _, field := range []*int64{&m.next, &m.keys, &m.bytes, &m.events, &m.parked} {
		n, size := binary.Varint(rest)
		if size <= 0 {
			return nil, fmt.Errorf("log %s: state is cut short", log)
		}
		*field, rest = n, rest[size:]
	}
	m.rule = string(rest)
	return m, nil
}
