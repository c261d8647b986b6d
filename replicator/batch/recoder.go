package batch

import (
	"bytes"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// inflatedBytesMax is how much a batch may hold decompressed. Brokers take
	// batches of 1 MiB unless told otherwise.
	inflatedBytesMax = 256 << 20
	// keptBytesMax is how large a buffer is kept for the next call.
	keptBytesMax = 8 << 20
)

// Recoder frames records anew. It keeps compressors and buffers from call to
// call; one goroutine may use it at a time.
type Recoder struct {
	inflater    inflater
	compressors [Zstd + 1]kgo.Compressor // by codec, made when needed
	plain       []byte                   // decompressed records of a batch
	framed      []byte                   // records on their way into a compressor
	packed      bytes.Buffer             // what comes out of it
}

// NewRecoder makes a Recoder. It needs no closing.
func NewRecoder() *Recoder {
	return &Recoder{inflater: inflater{limitBytes: inflatedBytesMax}}
}

// Merge makes one batch of the records of all batches, in order, compressed as
// the first batch is. Batches may have holes, different codecs and any kind of
// timestamp, but their offsets must ascend; those without records add nothing,
// and if there are no records at all, the result is the zero Dense. Errors are
// *CorruptError, *ControlError, and *TooLargeError for more than 256 MiB of
// records.
func (r *Recoder) Merge(batches []Batch) (Dense, error) {
	if len(batches) == 0 {
		return Dense{}, nil
	}
	defer r.trim()
	codec := batches[0].Codec()
	f := newFrame(r.room(codec, batches))
	next := int64(0)
	for i := range batches {
		b := &batches[i]
		if b.BaseOffset < next {
			return Dense{}, corrupt(b.BaseOffset, "the batch before it ends at offset %d", next-1)
		}
		next = b.NextOffset()
		s, err := r.scan(b)
		if err != nil {
			return Dense{}, err
		}
		if err := r.fill(&f, &s); err != nil {
			return Dense{}, err
		}
	}
	return r.finish(&f, codec)
}

// fill adds all records of a batch.
func (r *Recoder) fill(f *frame, s *scanner) error {
	var rec record
	for {
		ok, err := s.next(&rec)
		if !ok {
			return err
		}
		if bytes := len(f.buf) + recordHeadBytesMax + len(rec.body); bytes > r.inflater.limitBytes+HeaderBytes {
			return &TooLargeError{rec.offset, bytes, r.inflater.limitBytes}
		}
		f.add(&rec)
	}
}

// room is the buffer for a frame: if there is nothing to compress, then the
// result's own.
func (r *Recoder) room(codec Codec, batches []Batch) []byte {
	if codec != None {
		return r.framed
	}
	const growthBytes = 6 // of a record, for larger offsets and timestamps; no more than a guess
	bytes := HeaderBytes
	for i := range batches {
		b := &batches[i]
		bytes += len(b.Raw) + min(int(b.Count), len(b.Raw)/recordBytesMin)*growthBytes
	}
	return make([]byte, 0, bytes)
}

// scan begins to read the records of a batch, in memory that the next scan uses
// again.
func (r *Recoder) scan(b *Batch) (scanner, error) {
	if b.Control() {
		return scanner{}, &ControlError{b.BaseOffset}
	}
	data, err := r.records(b)
	if err != nil {
		return scanner{}, err
	}
	return newScanner(b.Header, data)
}

// records are the records of a batch, decompressed.
func (r *Recoder) records(b *Batch) ([]byte, error) {
	if len(b.Raw) < HeaderBytes {
		return nil, corrupt(b.BaseOffset, "it has %d bytes only", len(b.Raw))
	}
	if b.Count == 0 {
		return nil, nil // brokers do not look at what may follow the header either
	}
	data := b.Raw[HeaderBytes:]
	if b.Codec() == None {
		return data, nil
	}
	return r.inflate(b.BaseOffset, data, b.Codec())
}

func (r *Recoder) inflate(offset int64, data []byte, codec Codec) ([]byte, error) {
	plain, err := r.inflater.inflate(r.plain, data, codec)
	if err != nil {
		return nil, corrupt(offset, "its records (%v): %v", codec, err)
	}
	r.plain = plain
	return plain, nil
}

// finish compresses the records and completes the batch.
func (r *Recoder) finish(f *frame, codec Codec) (Dense, error) {
	if f.count == 0 {
		return Dense{}, nil
	}
	if codec == None {
		return f.seal(f.buf, codec), nil
	}
	r.framed = f.buf
	compressor, err := r.compressor(codec)
	if err != nil {
		return Dense{}, err
	}
	r.packed.Reset()
	packed, used := compressor.Compress(&r.packed, f.buf[HeaderBytes:])
	if used != kgo.CompressionCodecType(codec) {
		return Dense{}, fmt.Errorf("compress %d bytes with %v for the records from offset %d: failed", len(f.buf)-HeaderBytes, codec, f.runs[0].Source)
	}
	raw := make([]byte, HeaderBytes+len(packed))
	copy(raw[HeaderBytes:], packed)
	return f.seal(raw, codec), nil
}

func (r *Recoder) compressor(codec Codec) (kgo.Compressor, error) {
	if codec <= None || codec > Zstd {
		return nil, fmt.Errorf("codec %v cannot be compressed with", codec)
	}
	if r.compressors[codec] == nil {
		c, err := kgo.DefaultCompressor([...]kgo.CompressionCodec{
			kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
		}[codec])
		if err != nil {
			return nil, fmt.Errorf("make a compressor for %v: %w", codec, err)
		}
		r.compressors[codec] = c
	}
	return r.compressors[codec], nil
}

// trim lets go of buffers that one unusual batch has made large.
func (r *Recoder) trim() {
	if cap(r.plain) > keptBytesMax {
		r.plain = nil
	}
	if cap(r.framed) > keptBytesMax {
		r.framed = nil
	}
	if r.packed.Cap() > keptBytesMax {
		r.packed = bytes.Buffer{}
	}
}
