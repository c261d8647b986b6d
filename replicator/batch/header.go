package batch

import (
	"encoding/binary"
	"fmt"
)

// HeaderBytes is the size of a batch without its records.
const HeaderBytes = 61

// Where the fields of a header are.
const (
	atLength          = 8
	atLeaderEpoch     = 12
	atMagic           = 16
	atCRC             = 17
	atAttributes      = 21
	atLastOffsetDelta = 23
	atFirstTimestamp  = 27
	atMaxTimestamp    = 35
	atProducerID      = 43
	atProducerEpoch   = 51
	atBaseSequence    = 53
	atCount           = 57

	afterLength = 12 // where the bytes begin that the length counts
)

// The bits of the attributes.
const (
	codecBits        = 0x07
	logAppendTimeBit = 0x08
	transactionalBit = 0x10
	controlBit       = 0x20
	deleteHorizonBit = 0x40
)

const magicV2 = 2

// Header is the head of a batch.
type Header struct {
	BaseOffset      int64
	Length          int32 // in bytes, of what follows this field
	LeaderEpoch     int32
	CRC             uint32
	Attributes      int16
	LastOffsetDelta int32
	FirstTimestamp  int64 // in ms; the timestamps of records are relative to it
	MaxTimestamp    int64 // in ms
	ProducerID      int64
	ProducerEpoch   int16
	BaseSequence    int32
	Count           int32
}

func readHeader(raw []byte) Header {
	be := binary.BigEndian
	return Header{
		BaseOffset:      int64(be.Uint64(raw)),
		Length:          int32(be.Uint32(raw[atLength:])),
		LeaderEpoch:     int32(be.Uint32(raw[atLeaderEpoch:])),
		CRC:             be.Uint32(raw[atCRC:]),
		Attributes:      int16(be.Uint16(raw[atAttributes:])),
		LastOffsetDelta: int32(be.Uint32(raw[atLastOffsetDelta:])),
		FirstTimestamp:  int64(be.Uint64(raw[atFirstTimestamp:])),
		MaxTimestamp:    int64(be.Uint64(raw[atMaxTimestamp:])),
		ProducerID:      int64(be.Uint64(raw[atProducerID:])),
		ProducerEpoch:   int16(be.Uint16(raw[atProducerEpoch:])),
		BaseSequence:    int32(be.Uint32(raw[atBaseSequence:])),
		Count:           int32(be.Uint32(raw[atCount:])),
	}
}

// write puts the header at the beginning of raw, without the CRC.
func (h Header) write(raw []byte) {
	be := binary.BigEndian
	be.PutUint64(raw, uint64(h.BaseOffset))
	be.PutUint32(raw[atLength:], uint32(h.Length))
	be.PutUint32(raw[atLeaderEpoch:], uint32(h.LeaderEpoch))
	raw[atMagic] = magicV2
	be.PutUint16(raw[atAttributes:], uint16(h.Attributes))
	be.PutUint32(raw[atLastOffsetDelta:], uint32(h.LastOffsetDelta))
	be.PutUint64(raw[atFirstTimestamp:], uint64(h.FirstTimestamp))
	be.PutUint64(raw[atMaxTimestamp:], uint64(h.MaxTimestamp))
	be.PutUint64(raw[atProducerID:], uint64(h.ProducerID))
	be.PutUint16(raw[atProducerEpoch:], uint16(h.ProducerEpoch))
	be.PutUint32(raw[atBaseSequence:], uint32(h.BaseSequence))
	be.PutUint32(raw[atCount:], uint32(h.Count))
}

// LastOffset is the last offset that the batch covers, be there a record or not.
func (h Header) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// NextOffset is the first offset after the batch.
func (h Header) NextOffset() int64 { return h.LastOffset() + 1 }

// Codec is how the records are compressed.
func (h Header) Codec() Codec { return Codec(h.Attributes & codecBits) }

// Transactional tells whether the records belong to a transaction.
func (h Header) Transactional() bool { return h.Attributes&transactionalBit != 0 }

// Control tells whether the records are marks of transactions.
func (h Header) Control() bool { return h.Attributes&controlBit != 0 }

// LogAppendTime tells whether the broker's time counts, MaxTimestamp for every
// record, and not the records' own.
func (h Header) LogAppendTime() bool { return h.Attributes&logAppendTimeBit != 0 }

// DeleteHorizon tells whether compaction has put the time at which tombstones
// may go into FirstTimestamp. The records' timestamps are relative to it then,
// as they are to the first timestamp otherwise.
func (h Header) DeleteHorizon() bool { return h.Attributes&deleteHorizonBit != 0 }

// Dense tells whether there is a record at each offset of the batch. A broker
// takes no other batch from a producer.
func (h Header) Dense() bool { return h.Count > 0 && h.LastOffsetDelta == h.Count-1 }

// Codec is a compression codec, by its number in batches.
type Codec int8

// The codecs that Kafka knows.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

func (c Codec) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("unknown(%d)", int8(c))
}
