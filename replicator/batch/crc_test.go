package batch

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// The CRC of a batch that was stamped is that of its bytes, however long it is.
func TestStampedCRC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.IntRange(HeaderBytes, 3*derivedLeast), rapid.IntRange(1<<20, 1<<20+9)).Draw(t, "bytes")
		raw := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(raw) // never fails, by its contract
		binary.BigEndian.PutUint32(raw[atCRC:], crc32.Checksum(raw[atAttributes:], castagnoli))
		for range 2 { // a batch that has to be sent again is stamped again
			Stamp(raw, rapid.Int64().Draw(t, "producer"), rapid.Int16().Draw(t, "epoch"), rapid.Int32().Draw(t, "sequence"))
			if got, want := binary.BigEndian.Uint32(raw[atCRC:]), crc32.Checksum(raw[atAttributes:], castagnoli); got != want {
				t.Fatalf("%d bytes: CRC %08x, want %08x", size, got, want)
			}
		}
	})
}

// What has happened to the records of a large batch since they were compared with its CRC is
// not covered up.
func TestStampCoversNothingUp(t *testing.T) {
	raw := make([]byte, 2*derivedLeast)
	binary.BigEndian.PutUint32(raw[atCRC:], crc32.Checksum(raw[atAttributes:], castagnoli))
	raw[derivedLeast] ^= 1
	Stamp(raw, 7, 0, 100)
	if binary.BigEndian.Uint32(raw[atCRC:]) == crc32.Checksum(raw[atAttributes:], castagnoli) {
		t.Error("the CRC is that of the changed bytes")
	}
}

// BenchmarkStamp shows from where on a CRC that follows from the one before is quicker.
func BenchmarkStamp(b *testing.B) {
	for name, size := range map[string]int{"16K-1": derivedLeast - 1, "16K": derivedLeast, "1M": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			raw := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				Stamp(raw, 7, 0, 100)
			}
		})
	}
}
