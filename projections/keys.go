package projections

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/derived"
	"github.com/evenkeel/evenkeel/projections/escape"
)

// First byte of every database key; doc.go draws the layout.
const (
	prefixBuckets = 'B'
	prefixMark    = 'K'
	prefixLog     = 'L'
	prefixFact    = 'M'
	prefixParked  = 'P'
	prefixSlice   = 'S'
	prefixDerived = derived.Prefix // what is made of the rest: in no backup, digest or proof
)

// atState moves an iterator past what is derived, and reports whether it is valid.
func atState(it *pebble.Iterator) bool {
	if it.Valid() && it.Key()[0] == prefixDerived {
		it.SeekGE([]byte{prefixDerived + 1})
	}
	return it.Valid()
}

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

// SliceKey is the key under which a shard's database holds the slice of one log
// and key, for measuring what Pebble does by itself.
func SliceKey(l events.Log, key string) []byte {
	return append(appendEntityKey(nil, l.Stream, key), l.Origin.String()...)
}

// appendEntityKey appends the part of a slice's key that all slices of one
// entity share. Keys of one stream sort as their entities' keys do.
func appendEntityKey(b []byte, stream events.Stream, key string) []byte {
	return escape.End(appendEntityPrefix(b, stream, key))
}

// appendEntityPrefix is appendEntityKey for all entities whose keys begin with
// prefix.
func appendEntityPrefix(b []byte, stream events.Stream, prefix string) []byte {
	b = append(b, prefixSlice)
	b = append(b, stream...)
	b = append(b, 0x00)
	return escape.Append(b, prefix)
}

// splitSliceKey takes a slice's key apart; entity is the part that
// appendEntityKey makes.
func splitSliceKey(k []byte) (stream events.Stream, key string, entity []byte, origin events.Origin, err error) {
	name, key, rest, ok := cutSliceKey(k)
	if !ok {
		return "", "", nil, events.Origin{}, notSliceKey(k)
	}
	origin, err = events.ParseOrigin(string(rest))
	return events.Stream(name), key, k[:len(k)-len(rest)], origin, err
}

// cutSliceKey is splitSliceKey without reading what the parts say.
func cutSliceKey(k []byte) (stream []byte, key string, origin []byte, ok bool) {
	if len(k) == 0 || k[0] != prefixSlice {
		return nil, "", nil, false
	}
	stream, text, ok := bytes.Cut(k[1:], []byte{0x00})
	if !ok {
		return nil, "", nil, false
	}
	key, origin, ok = escape.Cut(text)
	return stream, key, origin, ok
}

func notSliceKey(k []byte) error { return fmt.Errorf("key %q is no slice's", k) }
