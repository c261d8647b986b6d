package derived

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections/escape"
)

// Prefix is the first byte of every database key of this package.
const Prefix = 'V'

// Below a model's name and 0x00 there is its record (what it is doing), and its
// entries, generation by generation.
const (
	partRecord  = 'm'
	partEntries = 'e'
)

func modelKey(name string) []byte { return append(append([]byte{Prefix}, name...), 0x00) }

func recordKey(name string) []byte { return append(modelKey(name), partRecord) }

// span is where the keys of a generation are.
func span(name string, generation uint64) (lower, upper []byte) {
	return entriesKey(name, generation), entriesKey(name, generation+1)
}

// entriesKey is what all keys of a generation begin with. They go on with the
// entry's own key, escaped, and its source.
func entriesKey(name string, generation uint64) []byte {
	return binary.BigEndian.AppendUint64(append(modelKey(name), partEntries), generation)
}

func appendKey(b []byte, key string) []byte { return escape.End(escape.Append(b, key)) }

// appendViewSource appends the source of an entry of a view. The key is the last
// part, so nothing in it needs to be escaped.
func appendViewSource(b []byte, v *View) []byte {
	b = append(b, v.Stream...)
	b = append(b, 0x00)
	return append(b, v.Key...)
}

// splitEntry takes an entry's key apart, without the generation's part.
func splitEntry(k []byte, ofEvents bool) (r Row, err error) {
	key, source, ok := escape.Cut(k)
	if !ok {
		return r, fmt.Errorf("key %q is no entry's", k)
	}
	r.Key = key
	if ofEvents {
		r.Log, err = events.ParseLog(string(source))
		return r, err
	}
	stream, entity, ok := bytes.Cut(source, []byte{0x00})
	if !ok {
		return r, fmt.Errorf("key %q is no entry's", k)
	}
	r.Stream, r.Of = events.Stream(stream), string(entity)
	return r, nil
}

// checkEntry holds an entry to its bounds.
func checkEntry(key string, value []byte) error {
	if n := len(key); n == 0 || n > MaxKeyBytes {
		return fmt.Errorf("an entry's key has %d bytes: want 1 to %d", n, MaxKeyBytes)
	}
	if n := len(value); n > MaxValueBytes {
		return fmt.Errorf("an entry's value has %d bytes: want at most %d", n, MaxValueBytes)
	}
	return nil
}
