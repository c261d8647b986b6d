package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/snapshotter/format"
)

// The layout of a record batch of magic 2.
const (
	batchHeaderBytes = 61
	lengthAt         = 8 // of what follows the length
	afterLength      = 12
	leaderEpochAt    = 12
	magicAt          = 16
	crcAt            = 17
	attributesAt     = 21 // from here on the CRC counts
	lastDeltaAt      = 23
	baseTimeAt       = 27
	maxTimeAt        = 35
	producerIDAt     = 43
	producerEpochAt  = 51
	sequenceAt       = 53
	countAt          = 57

	magic     = 2
	codecNone = 0
	codecZstd = 4
	codecMask = 7
)

const (
	// blockBytes is how large a block gets before it is compressed, unless one
	// record is larger.
	blockBytes = 1 << 20

	// maxBlockBytes bounds what a block is decompressed to: the largest record
	// that a broker could be told to take, and what may be before it.
	maxBlockBytes = 128 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	encoder = mustEncoder()
	decoder = mustDecoder()
)

func mustEncoder() *zstd.Encoder {
	// The levels differ little in size for events, and much in time.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true))
	if err != nil {
		panic(err) // the options are constants
	}
	e.EncodeAll(nil, nil) // it makes what it shares now, and not in the simulation that comes first
	return e
}

func mustDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBlockBytes), zstd.WithDecoderConcurrency(0))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}

// open is a block that records are added to.
type open struct {
	format.Block
	baseTime int64
	records  []byte // encoded, not compressed
}

// fits says whether a record can be added.
func (o *open) fits(offset int64) bool {
	return o.Records == 0 || len(o.records) < blockBytes && offset-o.First <= math.MaxInt32
}

// add appends a record.
func (o *open) add(r *kgo.Record) {
	ms := r.Timestamp.UnixMilli()
	if o.Records == 0 {
		*o = open{Block: format.Block{First: r.Offset, MinTime: ms, MaxTime: ms}, baseTime: ms, records: o.records[:0]}
	}
	o.Last, o.Records = r.Offset, o.Records+1
	o.MinTime, o.MaxTime = min(o.MinTime, ms), max(o.MaxTime, ms)
	o.records = appendRecord(o.records, r, r.Offset-o.First, ms-o.baseTime)
}

// appendTo closes the block: it is appended to a payload as a record batch, and
// described.
func (o *open) appendTo(payload []byte) ([]byte, format.Block) {
	at := len(payload)
	payload = append(payload, make([]byte, batchHeaderBytes)...)
	payload = encoder.EncodeAll(o.records, payload)
	codec := uint16(codecZstd)
	if len(payload)-at-batchHeaderBytes >= len(o.records) {
		payload, codec = append(payload[:at+batchHeaderBytes], o.records...), codecNone
	}
	b := payload[at:]
	put := binary.BigEndian
	put.PutUint64(b, uint64(o.First))
	put.PutUint32(b[lengthAt:], uint32(len(b)-afterLength))
	put.PutUint32(b[leaderEpochAt:], math.MaxUint32) // none
	b[magicAt] = magic
	put.PutUint16(b[attributesAt:], codec)
	put.PutUint32(b[lastDeltaAt:], uint32(o.Last-o.First))
	put.PutUint64(b[baseTimeAt:], uint64(o.baseTime))
	put.PutUint64(b[maxTimeAt:], uint64(o.MaxTime))
	put.PutUint64(b[producerIDAt:], math.MaxUint64) // none
	put.PutUint16(b[producerEpochAt:], math.MaxUint16)
	put.PutUint32(b[sequenceAt:], math.MaxUint32)
	put.PutUint32(b[countAt:], uint32(o.Records))
	put.PutUint32(b[crcAt:], crc32.Checksum(b[attributesAt:], castagnoli))
	block := o.Block
	block.At, block.Length = int64(at), int64(len(b))
	o.Records = 0
	return payload, block
}

// appendRecord appends a record of a batch.
func appendRecord(b []byte, r *kgo.Record, offsetDelta, timeDelta int64) []byte {
	const attributes = 0
	size := 1 + varintLen(timeDelta) + varintLen(offsetDelta) + bytesLen(r.Key) + bytesLen(r.Value) + varintLen(int64(len(r.Headers)))
	for i := range r.Headers {
		size += varintLen(int64(len(r.Headers[i].Key))) + len(r.Headers[i].Key) + bytesLen(r.Headers[i].Value)
	}
	b = binary.AppendVarint(b, int64(size))
	b = append(b, attributes)
	b = binary.AppendVarint(b, timeDelta)
	b = binary.AppendVarint(b, offsetDelta)
	b = appendBytes(b, r.Key)
	b = appendBytes(b, r.Value)
	b = binary.AppendVarint(b, int64(len(r.Headers)))
	for i := range r.Headers {
		b = binary.AppendVarint(b, int64(len(r.Headers[i].Key)))
		b = append(b, r.Headers[i].Key...)
		b = appendBytes(b, r.Headers[i].Value)
	}
	return b
}

// appendBytes tells null from empty.
func appendBytes(b, data []byte) []byte {
	if data == nil {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(data))), data...)
}

func bytesLen(data []byte) int {
	if data == nil {
		return varintLen(-1)
	}
	return varintLen(int64(len(data))) + len(data)
}

func varintLen(n int64) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutVarint(b[:], n)
}

var errBlock = errors.New("it is no sound record batch")

// decodeBlock reads the records of a block, of which b holds the bytes, and checks
// that they are those that it is said to hold.
func decodeBlock(b []byte, block format.Block) ([]*kgo.Record, error) {
	get := binary.BigEndian
	switch {
	case len(b) < batchHeaderBytes || int64(get.Uint32(b[lengthAt:]))+afterLength != int64(len(b)) || b[magicAt] != magic:
		return nil, errBlock
	case crc32.Checksum(b[attributesAt:], castagnoli) != get.Uint32(b[crcAt:]):
		return nil, fmt.Errorf("%w: its checksum does not fit", errBlock)
	case int64(get.Uint64(b)) != block.First || block.First+int64(int32(get.Uint32(b[lastDeltaAt:]))) != block.Last ||
		int32(get.Uint32(b[countAt:])) != block.Records || int64(get.Uint64(b[maxTimeAt:])) != block.MaxTime:
		return nil, fmt.Errorf("%w: it is not the one that the header tells of", errBlock)
	}
	data := b[batchHeaderBytes:]
	switch get.Uint16(b[attributesAt:]) & codecMask {
	case codecNone:
	case codecZstd:
		var err error
		if data, err = decoder.DecodeAll(data, nil); err != nil {
			return nil, fmt.Errorf("%w: %w", errBlock, err)
		}
	default:
		return nil, fmt.Errorf("%w: it is compressed in another way than zstd", errBlock)
	}
	d := recordReader{data: data}
	// A record has seven bytes at least, so what is sized here is bounded by data.
	records := make([]*kgo.Record, 0, min(int(block.Records), len(data)/7+1))
	next := block.First
	for range block.Records {
		r := d.record(block.First, int64(get.Uint64(b[baseTimeAt:])))
		if d.bad || r.Offset < next || r.Offset > block.Last {
			return nil, errBlock
		}
		next = r.Offset + 1
		records = append(records, r)
	}
	if len(d.data) > 0 {
		return nil, errBlock
	}
	return records, nil
}

// recordReader reads records one behind the other.
type recordReader struct {
	data []byte
	bad  bool
}

func (d *recordReader) record(baseOffset, baseTime int64) *kgo.Record {
	body := recordReader{data: d.take(d.varint())}
	body.take(1) // attributes
	ms := baseTime + body.varint()
	r := &kgo.Record{Timestamp: time.UnixMilli(ms), Offset: baseOffset + body.varint()}
	r.Key, r.Value = body.bytes(), body.bytes()
	headers := body.varint()
	if headers < 0 || headers > int64(len(body.data)) { // a header has two bytes at least
		d.bad = true
		return r
	}
	if headers > 0 {
		r.Headers = make([]kgo.RecordHeader, headers)
	}
	for i := range r.Headers {
		r.Headers[i] = kgo.RecordHeader{Key: string(body.bytes()), Value: body.bytes()}
	}
	d.bad = d.bad || body.bad || len(body.data) > 0
	return r
}

func (d *recordReader) varint() int64 {
	n, size := binary.Varint(d.data)
	if size <= 0 {
		d.bad, d.data = true, nil
		return 0
	}
	d.data = d.data[size:]
	return n
}

// bytes reads bytes with their length; null is nil, empty is not.
func (d *recordReader) bytes() []byte {
	n := d.varint()
	if n < 0 {
		d.bad = d.bad || n != -1
		return nil
	}
	return d.take(n)
}

func (d *recordReader) take(n int64) []byte {
	if n < 0 || n > int64(len(d.data)) {
		d.bad, d.data = true, nil
		return nil
	}
	taken := d.data[:n:n]
	d.data = d.data[n:]
	return taken
}
