package batch

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

var codecs = []Codec{None, Gzip, Snappy, LZ4, Zstd}

// failer is a test, a benchmark or a property.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// written is a batch as a test has it written, by code that is not this
// package's.
type written struct {
	base       int64
	attributes int16 // codec and bits
	records    []Record
	lastDelta  int32 // if larger than that of the last record
	max        int64 // if the kind of timestamps is LogAppendTime
	horizon    int64 // if the delete horizon's bit is set
	pid        int64
}

func (w written) encode(t failer) []byte {
	t.Helper()
	if len(w.records) == 0 {
		w.attributes &^= codecBits // as compaction writes it
	}
	b := kmsg.RecordBatch{
		FirstOffset: w.base, PartitionLeaderEpoch: 7, Magic: 2, Attributes: w.attributes, LastOffsetDelta: w.lastDelta,
		FirstTimestamp: -1, MaxTimestamp: w.max, ProducerID: w.pid, ProducerEpoch: 3, FirstSequence: 11, NumRecords: int32(len(w.records)),
	}
	if len(w.records) > 0 {
		b.FirstTimestamp = w.records[0].Timestamp
	}
	if w.attributes&deleteHorizonBit != 0 {
		b.FirstTimestamp = w.horizon
	}
	var plain []byte
	for _, r := range w.records {
		if w.attributes&logAppendTimeBit == 0 {
			b.MaxTimestamp = max(b.MaxTimestamp, r.Timestamp)
		}
		b.LastOffsetDelta = max(b.LastOffsetDelta, int32(r.Offset-w.base))
		plain = appendRecord(plain, r, w.base, b.FirstTimestamp)
	}
	b.Records = plain
	if codec := Codec(w.attributes & codecBits); codec != None {
		b.Records = compress(t, plain, codec)
	}
	b.Length = int32(HeaderBytes - afterLength + len(b.Records))
	return sealed(b.AppendTo(nil))
}

func appendRecord(dst []byte, r Record, base, first int64) []byte {
	k := kmsg.Record{TimestampDelta64: r.Timestamp - first, OffsetDelta: int32(r.Offset - base), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
	}
	k.Length = int32(len(k.AppendTo(nil)) - 1) // the length 0 has one byte
	return k.AppendTo(dst)
}

// sealed puts the right CRC in.
func sealed(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

func compress(t failer, plain []byte, codec Codec) []byte {
	t.Helper()
	c, err := kgo.DefaultCompressor(map[Codec]kgo.CompressionCodec{
		Gzip: kgo.GzipCompression(), Snappy: kgo.SnappyCompression(), LZ4: kgo.Lz4Compression(), Zstd: kgo.ZstdCompression(),
	}[codec])
	if err != nil {
		t.Fatal(err)
	}
	packed, used := c.Compress(new(bytes.Buffer), plain)
	if used != kgo.CompressionCodecType(codec) {
		t.Fatalf("%v was not used", codec)
	}
	return bytes.Clone(packed)
}

func read(t failer, raw []byte) Batch {
	t.Helper()
	b, rest, err := Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) > 0 {
		t.Fatalf("%d bytes follow", len(rest))
	}
	if err := b.Verify(); err != nil {
		t.Fatal(err)
	}
	return b
}

// consumed is what the client library makes of batches.
func consumed(t failer, raw []byte) []Record {
	t.Helper()
	p, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{}, &kmsg.FetchResponseTopicPartition{RecordBatches: raw}, kgo.DefaultDecompressor(), nil)
	if p.Err != nil {
		t.Fatal(p.Err)
	}
	var records []Record
	for _, k := range p.Records {
		r := Record{Offset: k.Offset, Timestamp: k.Timestamp.UnixMilli(), Key: k.Key, Value: k.Value}
		for _, h := range k.Headers {
			r.Headers = append(r.Headers, RecordHeader(h))
		}
		records = append(records, r)
	}
	return records
}

// restored are the records of a new batch with their offsets at the source.
func restored(t failer, d Dense) []Record {
	t.Helper()
	records := consumed(t, d.Raw)
	if len(records) != int(d.Count) {
		t.Fatalf("%d records were read, Count is %d", len(records), d.Count)
	}
	i := 0
	for _, run := range d.Runs {
		for n := range int64(run.Count) {
			if records[i].Offset != int64(i) {
				t.Fatalf("record %d has offset %d", i, records[i].Offset)
			}
			records[i].Offset = run.Source + n
			i++
		}
	}
	if i != len(records) {
		t.Fatalf("the runs have %d records, the batch %d", i, len(records))
	}
	return records
}

// checkDense looks for all that Dense promises.
func checkDense(t failer, d Dense, codec Codec) {
	t.Helper()
	b := read(t, d.Raw)
	var k kmsg.RecordBatch
	if err := k.ReadFrom(d.Raw); err != nil {
		t.Fatal(err)
	}
	if !b.Dense() || b.BaseOffset != 0 || b.Attributes != int16(codec) || k.ProducerID != -1 || k.ProducerEpoch != -1 || k.FirstSequence != -1 ||
		k.PartitionLeaderEpoch != -1 || k.NumRecords != d.Count {
		t.Fatalf("the new batch is not fit to be produced: %+v", b.Header)
	}
	records := consumed(t, d.Raw)
	latest := slices.MaxFunc(records, func(a, b Record) int { return int(max(min(a.Timestamp-b.Timestamp, 1), -1)) })
	if b.FirstTimestamp != records[0].Timestamp || b.MaxTimestamp != latest.Timestamp {
		t.Fatalf("timestamps %d to %d, want %d to %d", b.FirstTimestamp, b.MaxTimestamp, records[0].Timestamp, latest.Timestamp)
	}
	for i := 1; i < len(d.Runs); i++ {
		if before := d.Runs[i-1]; d.Runs[i].Source <= before.Source+int64(before.Count) {
			t.Fatalf("runs %v are not ascending, or not as long as can be", d.Runs)
		}
	}
}

func same(a, b []Record) bool { return slices.EqualFunc(a, b, sameRecord) }

// sameRecord tells null from empty.
func sameRecord(a, b Record) bool {
	return a.Offset == b.Offset && a.Timestamp == b.Timestamp && equalBytes(a.Key, b.Key) && equalBytes(a.Value, b.Value) &&
		slices.EqualFunc(a.Headers, b.Headers, func(x, y RecordHeader) bool { return x.Key == y.Key && equalBytes(x.Value, y.Value) })
}

func equalBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func genBytes() *rapid.Generator[[]byte] {
	return rapid.OneOf(
		rapid.Just([]byte(nil)), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 100),
		rapid.Map(rapid.IntRange(1, 9000), func(n int) []byte { return bytes.Repeat([]byte("evenkeel"), n/8+1) }),
	)
}

func genRecord() *rapid.Generator[Record] {
	return rapid.Custom(func(t *rapid.T) Record {
		r := Record{Timestamp: rapid.Int64Range(-1, 4e12).Draw(t, "timestamp"), Key: genBytes().Draw(t, "key"), Value: genBytes().Draw(t, "value")}
		for range rapid.SampledFrom([]int{0, 0, 1, 2, 70}).Draw(t, "headers") {
			r.Headers = append(r.Headers, RecordHeader{rapid.SampledFrom([]string{"", "ce_id", "ce_id", "größe"}).Draw(t, "header"), genBytes().Draw(t, "header value")})
		}
		return r
	})
}

// genBatches makes batches as a log may have them: with holes within and
// between, without records, of any codec and kind.
func genBatches() *rapid.Generator[[]written] {
	return rapid.Custom(func(t *rapid.T) []written {
		next := rapid.SampledFrom([]int64{0, 1, 1 << 33}).Draw(t, "base")
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) written {
			gap := rapid.SampledFrom([]int64{0, 0, 0, 1, 300, 1 << 21})
			w := written{
				base:       next + gap.Draw(t, "gap before"),
				attributes: int16(rapid.SampledFrom(codecs).Draw(t, "codec")),
				max:        rapid.Int64Range(-1, 4e12).Draw(t, "max timestamp"),
				horizon:    rapid.Int64Range(0, 4e12).Draw(t, "delete horizon"),
				pid:        rapid.Int64Range(-1, 1000).Draw(t, "producer id"),
			}
			for _, bit := range []int16{logAppendTimeBit, transactionalBit, deleteHorizonBit} {
				if rapid.IntRange(0, 4).Draw(t, "bit") == 0 {
					w.attributes |= bit
				}
			}
			w.records = rapid.SliceOfN(genRecord(), 0, 6).Draw(t, "records")
			next = w.base
			for i := range w.records {
				next += gap.Draw(t, "hole")
				w.records[i].Offset = next
				next++
			}
			next = max(next, w.base+1) + gap.Draw(t, "hole at the end")
			w.lastDelta = int32(next - 1 - w.base)
			return w
		}), 1, 8).Draw(t, "batches")
	})
}

// seen are the records of batches as a consumer of the source sees them.
func seen(batches []written) []Record {
	var records []Record
	for _, w := range batches {
		for _, r := range w.records {
			if w.attributes&logAppendTimeBit != 0 {
				r.Timestamp = w.max
			}
			records = append(records, r)
		}
	}
	return records
}

func small(base int64, attributes int16) written {
	return written{base: base, attributes: attributes, pid: 5, records: []Record{
		{Offset: base, Timestamp: 1700000000000, Key: []byte("k"), Value: []byte("v")},
		{Offset: base + 1, Timestamp: 1700000000500, Key: []byte{}, Headers: []RecordHeader{{"h", nil}, {"h", []byte{}}}},
	}}
}

var _ failer = (*testing.T)(nil)
