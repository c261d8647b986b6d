package batch

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// Batch is a batch as it was read.
type Batch struct {
	Header
	Raw []byte // the whole batch, part of what it was read from
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordBytesMin is the size of the smallest record: seven fields of a byte.
const recordBytesMin = 7

// Read cuts the first batch off data. Errors are ErrPartial, *OldFormatError
// and *CorruptError; rest is all of the data then. The records are not looked
// at, nor is the CRC.
func Read(data []byte) (b Batch, rest []byte, err error) {
	if len(data) <= atMagic {
		return Batch{}, data, ErrPartial
	}
	size, err := wholeSize(data)
	if err != nil {
		return Batch{}, data, err
	}
	if magic := int8(data[atMagic]); magic != magicV2 {
		return Batch{}, data, &OldFormatError{int64(binary.BigEndian.Uint64(data)), magic}
	}
	b = Batch{readHeader(data), data[:size:size]}
	if err := b.check(); err != nil {
		return Batch{}, data, err
	}
	return b, data[size:], nil
}

// wholeSize is the size in bytes of the batch, or the message of an old format,
// that data begins with. Data reaches to the magic at least.
func wholeSize(data []byte) (int, error) {
	offset := int64(binary.BigEndian.Uint64(data))
	length := int64(int32(binary.BigEndian.Uint32(data[atLength:])))
	least := int64(HeaderBytes - afterLength)
	switch magic := int8(data[atMagic]); magic {
	case 0:
		least = messageV0Bytes - afterLength
	case 1:
		least = messageV1Bytes - afterLength
	case magicV2:
	default:
		return 0, corrupt(offset, "its magic is %d", magic)
	}
	switch size := length + afterLength; {
	case length < least:
		return 0, corrupt(offset, "its length is %d, less than %d", length, least)
	case size > math.MaxInt32:
		return 0, corrupt(offset, "its length is %d", length)
	case size > int64(len(data)):
		return 0, ErrPartial
	default:
		return int(size), nil
	}
}

// check finds what is wrong with a header on the face of it.
func (b Batch) check() error {
	records := len(b.Raw) - HeaderBytes
	switch {
	case b.BaseOffset < 0:
		return corrupt(b.BaseOffset, "its offset is negative")
	case b.LastOffsetDelta < 0 || b.BaseOffset > math.MaxInt64-1-int64(b.LastOffsetDelta):
		return corrupt(b.BaseOffset, "its last offset delta is %d", b.LastOffsetDelta)
	case b.Count < 0 || int64(b.Count) > int64(b.LastOffsetDelta)+1:
		return corrupt(b.BaseOffset, "it counts %d records in %d offsets", b.Count, int64(b.LastOffsetDelta)+1)
	case b.Codec() > Zstd:
		return corrupt(b.BaseOffset, "its compression codec is %d", b.Codec())
	case b.Count > 0 && records == 0, b.Codec() == None && int(b.Count) > records/recordBytesMin:
		return corrupt(b.BaseOffset, "it counts %d records in %d bytes", b.Count, records)
	}
	return nil
}

// Verify compares the batch's bytes with its CRC. The error is a *CorruptError.
func (b Batch) Verify() error {
	if sum := crc32.Checksum(b.Raw[atAttributes:], castagnoli); sum != b.CRC {
		return corrupt(b.BaseOffset, "its CRC is %08x, that of its bytes is %08x", b.CRC, sum)
	}
	return nil
}

// Stamp makes a batch fit to be produced, in place: base offset 0, no leader
// epoch, not transactional, the given producer id, epoch and sequence, and the
// CRC of that. The records' bytes and timestamps stay, for a delete horizon too:
// its bit is cleared, the timestamps remain relative to the same number. Raw is
// a whole batch as from Read or a Recoder; a batch that is not dense, holds
// control records or has LogAppendTime needs Merge first. The CRC of a large one follows
// from the one that it has: if that was wrong, so is this one.
func Stamp(raw []byte, producerID int64, epoch int16, sequence int32) {
	be := binary.BigEndian
	head := raw[atAttributes:HeaderBytes]
	var before [HeaderBytes - atAttributes]byte
	copy(before[:], head)
	be.PutUint64(raw, 0)
	be.PutUint32(raw[atLeaderEpoch:], math.MaxUint32)
	be.PutUint16(raw[atAttributes:], be.Uint16(raw[atAttributes:])&^(transactionalBit|deleteHorizonBit))
	be.PutUint64(raw[atProducerID:], uint64(producerID))
	be.PutUint16(raw[atProducerEpoch:], uint16(epoch))
	be.PutUint32(raw[atBaseSequence:], uint32(sequence))
	var crc uint32
	if len(raw) < derivedLeast {
		crc = crc32.Checksum(raw[atAttributes:], castagnoli)
	} else {
		crc = changed(be.Uint32(raw[atCRC:]), before[:], head, len(raw)-HeaderBytes)
	}
	be.PutUint32(raw[atCRC:], crc)
}
