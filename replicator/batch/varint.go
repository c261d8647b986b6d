package batch

import (
	"encoding/binary"
	"math"
	"math/bits"
)

const varintBytesMax = 5

// unzigzag undoes the mapping that gives small negative numbers short varints.
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// uvarintBytes is the size of an encoded number.
func uvarintBytes(u uint64) int { return (bits.Len64(u|1) + 6) / 7 }

// varlong reads a number of 64 bits at a place, and gives the place after it;
// negative if there is none.
func varlong(b []byte, at int) (v int64, next int) {
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		return unzigzag(uint64(b[at])), at + 1
	}
	return longVarlong(b, at)
}

func longVarlong(b []byte, at int) (v int64, next int) {
	if at < 0 || at > len(b) {
		return 0, -1
	}
	u, n := binary.Uvarint(b[at:])
	if n <= 0 {
		return 0, -1
	}
	return unzigzag(u), at + n
}

// varint reads a number of 32 bits, which has at most five bytes.
func varint(b []byte, at int) (v, next int) {
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		return int(unzigzag(uint64(b[at]))), at + 1
	}
	return longVarint(b, at)
}

func longVarint(b []byte, at int) (v, next int) {
	long, next := longVarlong(b, at)
	if next > at+varintBytesMax || long < math.MinInt32 || long > math.MaxInt32 {
		return 0, -1
	}
	return int(long), next
}

// appendUvarint is for numbers that are zigzag coded already.
func appendUvarint(b []byte, u uint64) []byte {
	if u < 0x80 {
		return append(b, byte(u))
	}
	return binary.AppendUvarint(b, u)
}
