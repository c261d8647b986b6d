package linkbench

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func codecNamed(name string) (kgo.CompressionCodec, error) {
	c, ok := codecs[name]
	if !ok {
		return c, fmt.Errorf("codec %q: want none, gzip, snappy, lz4 or zstd", name)
	}
	return c, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encoder makes record batches of magic 2, as a producer without an id sends
// them. Batches made once can be produced any number of times, which is what
// makes the filling of a log as fast as its broker.
type encoder struct {
	compressor kgo.Compressor // nil for none
	records    []byte
	compressed bytes.Buffer
}

func newEncoder(codec string) (*encoder, error) {
	c, err := codecNamed(codec)
	if err != nil {
		return nil, err
	}
	compressor, err := kgo.DefaultCompressor(c)
	return &encoder{compressor: compressor}, err
}

// batch encodes records, all of one time.
func (e *encoder) batch(records []payload.Record, unixMilli int64) []byte {
	e.records = e.records[:0]
	var body []byte
	for i, r := range records {
		body = append(body[:0], 0, 0) // no attributes; as old as the batch
		body = binary.AppendVarint(body, int64(i))
		body = appendField(body, r.Key)
		body = appendField(body, r.Value)
		body = append(body, 0) // no headers
		e.records = append(binary.AppendVarint(e.records, int64(len(body))), body...)
	}
	payload, attributes := e.records, int16(0)
	if e.compressor != nil {
		e.compressed.Reset()
		out, codec := e.compressor.Compress(&e.compressed, e.records)
		payload, attributes = out, int16(codec)
	}

	// From the CRC's field on first: it covers all that follows it.
	b := binary.BigEndian
	tail := b.AppendUint16(make([]byte, 0, 40+len(payload)), uint16(attributes))
	tail = b.AppendUint32(tail, uint32(len(records)-1))
	tail = b.AppendUint64(tail, uint64(unixMilli))
	tail = b.AppendUint64(tail, uint64(unixMilli))
	tail = b.AppendUint64(tail, noProducer)
	tail = b.AppendUint16(tail, 0xffff)
	tail = b.AppendUint32(tail, 0xffffffff)
	tail = b.AppendUint32(tail, uint32(len(records)))
	tail = append(tail, payload...)

	out := b.AppendUint64(make([]byte, 0, 21+len(tail)), 0) // the broker sets the offset
	out = b.AppendUint32(out, uint32(9+len(tail)))
	out = b.AppendUint32(out, 0xffffffff)
	out = append(out, 2)
	out = b.AppendUint32(out, crc32.Checksum(tail, castagnoli))
	return append(out, tail...)
}

const noProducer = ^uint64(0)

func appendField(b, field []byte) []byte {
	return append(binary.AppendVarint(b, int64(len(field))), field...)
}
