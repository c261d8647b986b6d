package linkbench

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
)

// Records compress as a service's events do: to between a third and a fifth,
// give or take; gzip and zstd the more, snappy the less.
func TestPayloadCompressesLikeEvents(t *testing.T) {
	encode := func(codec string, records []payload.Record) []byte {
		e, err := newEncoder(codec)
		if err != nil {
			t.Fatal(err)
		}
		return e.batch(records, 0)
	}
	for _, size := range []int{100, 1000, 10_000} {
		p := payload.New(1)
		records := make([]payload.Record, largeBatchBytes/size)
		for i := range records {
			records[i] = p.Record(size)
		}
		plain := len(encode("none", records))
		for codec, want := range map[string][2]float64{
			"lz4": {2.5, 5}, "zstd": {3, 6}, "gzip": {3, 6}, "snappy": {2, 5},
		} {
			ratio := float64(plain) / float64(len(encode(codec, records)))
			if ratio < want[0] || ratio > want[1] {
				t.Errorf("%s, records of %d bytes: compresses %.1f-fold, want %v", codec, size, ratio, want)
			}
		}
	}
}

// A batch says what was put into it, to a reader that is not ours.
func TestBatchIsReadBack(t *testing.T) {
	decompressor := kgo.DefaultDecompressor()
	for codec := range codecs {
		e, err := newEncoder(codec)
		if err != nil {
			t.Fatal(err)
		}
		p := payload.New(3)
		for _, n := range []int{1, 2, 700} { // with one encoder: nothing is left of the batch before
			var records []payload.Record
			for range n {
				records = append(records, p.Record(300))
			}
			if err := readBack(e.batch(records, 1234), records, decompressor); err != nil {
				t.Errorf("%s, %d records: %v", codec, n, err)
			}
		}
	}
}

func readBack(raw []byte, want []payload.Record, d kgo.Decompressor) error {
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil {
		return err
	}
	switch {
	case int(b.Length) != len(raw)-12:
		return fmt.Errorf("length %d of %d bytes", b.Length, len(raw))
	case uint32(b.CRC) != crc32.Checksum(raw[21:], castagnoli):
		return fmt.Errorf("CRC %x", b.CRC)
	case b.Magic != 2 || b.ProducerID != -1 || b.ProducerEpoch != -1 || b.FirstSequence != -1:
		return fmt.Errorf("header %+v", b)
	case int(b.NumRecords) != len(want) || int(b.LastOffsetDelta) != len(want)-1 || b.FirstTimestamp != 1234 || b.MaxTimestamp != 1234:
		return fmt.Errorf("%d records, last delta %d, times %d to %d", b.NumRecords, b.LastOffsetDelta, b.FirstTimestamp, b.MaxTimestamp)
	}
	payload, err := d.Decompress(b.Records, kgo.CompressionCodecType(b.Attributes))
	if err != nil {
		return err
	}
	for i, w := range want {
		length := kmsg.NewRecord()
		if err := length.ReadFrom(payload); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		if int(length.OffsetDelta) != i || !bytes.Equal(length.Key, w.Key) || !bytes.Equal(length.Value, w.Value) {
			return fmt.Errorf("record %d: delta %d, key %q", i, length.OffsetDelta, length.Key)
		}
		payload = payload[len(length.AppendTo(nil)):]
	}
	if len(payload) > 0 {
		return fmt.Errorf("%d bytes are left", len(payload))
	}
	return nil
}

func TestTinyBatches(t *testing.T) {
	pool, err := batches(Case{Codec: "none", RecordBytes: 300, Tiny: true}, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	count := map[int]int{}
	for _, b := range pool {
		count[b.records]++
	}
	if len(count) != 2 || count[1] < len(pool)/3 || count[2] < len(pool)/3 {
		t.Errorf("batches by number of records: %v", count)
	}
}

func TestUnknownCodec(t *testing.T) {
	if _, err := batches(Case{Codec: "brotli", RecordBytes: 100}, 1, 0); err == nil {
		t.Error("made batches with a codec that Kafka has not")
	}
}
