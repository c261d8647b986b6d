package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/events"
)

// EncodeFirsts writes the first keys of a shard's tables, in order: each as its length
// (an unsigned varint) and its bytes.
func EncodeFirsts(firsts [][]byte) []byte {
	var b []byte
	for _, first := range firsts {
		b = append(binary.AppendUvarint(b, uint64(len(first))), first...)
	}
	return b
}

// DecodeFirsts reads what EncodeFirsts wrote for so many tables, and verifies that the
// keys ascend. Anything else is of kind events.KindInconsistent.
func DecodeFirsts(b []byte, tables int) ([][]byte, error) {
	firsts, err := decodeFirsts(b)
	if err == nil && len(firsts) != tables {
		err = fmt.Errorf("there are %d", len(firsts))
	}
	if err != nil {
		return nil, events.Errorf(events.KindInconsistent, "first keys of %d tables: %w", tables, err)
	}
	return firsts, nil
}

func decodeFirsts(b []byte) (firsts [][]byte, err error) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, errors.New("malformed")
		}
		b = b[n:]
		first := b[:size:size]
		if len(firsts) > 0 && bytes.Compare(firsts[len(firsts)-1], first) >= 0 {
			return nil, fmt.Errorf("that of table %d does not come after the one before", len(firsts))
		}
		firsts, b = append(firsts, first), b[size:]
	}
	return firsts, nil
}
