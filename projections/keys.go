package projections

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
)

// First byte of every database key; doc.go draws the layout.
const (
	prefixBuckets = 'B'
	prefixMark    = 'K'
	prefixLog     = 'L'
	prefixFact    = 'M'
	prefixParked  = 'P'
	prefixSlice   = 'S'
)

func factKey(name string) []byte { return append([]byte{prefixFact}, name...) }

func logKey(l events.Log) []byte { return append([]byte{prefixLog}, l.String()...) }

func parkedKey(p events.Position) []byte { return numberedKey(prefixParked, p.Log, uint64(p.Offset)) }

func markKey(l events.Log, offset int64) []byte { return numberedKey(prefixMark, l, uint64(offset)) }

func bucketKey(l events.Log, entry uint64) []byte { return numberedKey(prefixBuckets, l, entry) }

// numberedKey is the key of something that there are many of in a log; they sort
// by number.
func numberedKey(prefix byte, l events.Log, n uint64) []byte {
	k := append([]byte{prefix}, l.String()...)
	k = append(k, 0)
	return binary.BigEndian.AppendUint64(k, n)
}

// splitNumberedKey is the inverse of numberedKey.
func splitNumberedKey(prefix byte, k []byte) (l events.Log, n uint64, err error) {
	i := bytes.IndexByte(k, 0)
	if i < 1 || len(k) != i+9 || k[0] != prefix {
		return events.Log{}, 0, fmt.Errorf("key %q is malformed", k)
	}
	if l, err = events.ParseLog(string(k[1:i])); err != nil {
		return events.Log{}, 0, fmt.Errorf("key %q is malformed: %w", k, err)
	}
	return l, binary.BigEndian.Uint64(k[i+1:]), nil
}

// parseParkedKey is the inverse of parkedKey.
func parseParkedKey(k []byte) (events.Position, error) {
	log, n, err := splitNumberedKey(prefixParked, k)
	if err != nil {
		return events.Position{}, err
	}
	p := log.At(int64(n))
	return p, p.Validate()
}

// appendEntityKey appends the part of a slice's key that all slices of one
// entity share. Keys of one stream sort as their entities' keys do.
func appendEntityKey(b []byte, stream events.Stream, key string) []byte {
	b = appendEntityPrefix(b, stream, key)
	return append(b, 0x00, 0x01)
}

// appendEntityPrefix is appendEntityKey for all entities whose keys begin with
// prefix.
func appendEntityPrefix(b []byte, stream events.Stream, prefix string) []byte {
	b = append(b, prefixSlice)
	b = append(b, stream...)
	b = append(b, 0x00)
	for i := 0; i < len(prefix); i++ {
		b = append(b, prefix[i])
		if prefix[i] == 0x00 {
			b = append(b, 0xff)
		}
	}
	return b
}

// splitSliceKey takes a slice's key apart; entity is the part that
// appendEntityKey makes.
func splitSliceKey(k []byte) (stream events.Stream, key string, entity []byte, origin events.Origin, err error) {
	bad := func() (events.Stream, string, []byte, events.Origin, error) {
		return "", "", nil, events.Origin{}, fmt.Errorf("key %q is no slice's", k)
	}
	if len(k) == 0 || k[0] != prefixSlice {
		return bad()
	}
	i := bytes.IndexByte(k, 0)
	if i < 0 {
		return bad()
	}
	stream = events.Stream(k[1:i])
	plain := make([]byte, 0, len(k)-i)
	for i++; i < len(k); i++ {
		if k[i] != 0x00 {
			plain = append(plain, k[i])
			continue
		}
		if i+1 == len(k) {
			return bad()
		}
		i++
		if k[i] == 0x01 {
			origin, err = events.ParseOrigin(string(k[i+1:]))
			return stream, string(plain), k[:i+1], origin, err
		}
		if k[i] != 0xff {
			return bad()
		}
		plain = append(plain, 0x00)
	}
	return bad()
}

// prefixEnd is the smallest key after all keys that begin with prefix.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil // no upper bound
}
