package batch

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// Run is records in a row whose offsets at the source are Source, Source+1, …
type Run struct {
	Source int64
	Count  int32
}

// Dense is a batch that was framed anew: offsets from 0 without holes,
// timestamps of the kind CreateTime, not transactional, no producer id, right
// CRC. It is nearly what a broker takes; Stamp does the rest.
type Dense struct {
	Raw   []byte // nil if there are no records
	Count int32
	Runs  []Run // where the records come from, in order; their counts add up to Count
}

// frame is a batch in the making.
type frame struct {
	buf        []byte // begins with room for the header
	first, max int64  // timestamps in ms
	back       int64  // how long before the first record's timestamp the batch says that it is
	count      int32
	runs       []Run
	next       int64 // the least source offset that may follow
}

// recordHeadBytesMax is the size of what precedes a record's body at most:
// length, attributes, timestamp, offset.
const recordHeadBytesMax = varintBytesMax + 1 + binary.MaxVarintLen64 + varintBytesMax

func newFrame(buf []byte) frame {
	return frame{buf: slices.Grow(buf[:0], HeaderBytes)[:HeaderBytes]}
}

func (f *frame) add(r *record) {
	if f.count == 0 {
		f.first, f.max = r.timestamp-f.back, r.timestamp
	}
	f.max = max(f.max, r.timestamp)
	timestamp, offset := zigzag(r.timestamp-f.first), uint64(f.count)<<1
	length := 1 + uvarintBytes(timestamp) + uvarintBytes(offset) + len(r.body)

	buf := slices.Grow(f.buf, recordHeadBytesMax+len(r.body))
	buf = appendUvarint(buf, uint64(length)<<1)
	buf = append(buf, r.attributes)
	buf = appendUvarint(buf, timestamp)
	buf = appendUvarint(buf, offset)
	f.buf = append(buf, r.body...)

	if f.count == 0 || r.offset != f.next {
		f.runs = append(f.runs, Run{Source: r.offset})
	}
	f.runs[len(f.runs)-1].Count++
	f.next = r.offset + 1
	f.count++
}

// seal completes a batch whose records are in place, after room for the header.
func (f *frame) seal(raw []byte, codec Codec) Dense {
	Header{
		Length:          int32(len(raw) - afterLength),
		LeaderEpoch:     -1,
		Attributes:      int16(codec),
		LastOffsetDelta: f.count - 1,
		FirstTimestamp:  f.first,
		MaxTimestamp:    f.max,
		ProducerID:      -1,
		ProducerEpoch:   -1,
		BaseSequence:    -1,
		Count:           f.count,
	}.write(raw)
	binary.BigEndian.PutUint32(raw[atCRC:], crc32.Checksum(raw[atAttributes:], castagnoli))
	return Dense{Raw: raw, Count: f.count, Runs: f.runs}
}
