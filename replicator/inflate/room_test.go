package inflate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// record is a record as it stands in a batch.
func record(value []byte, headers int) []byte {
	body := []byte{0, 0, 0, 1} // attributes, time, offset, no key
	body = append(binary.AppendVarint(body, int64(len(value))), value...)
	body = binary.AppendVarint(body, int64(headers))
	for range headers {
		body = append(body, 0, 1) // no name, no value
	}
	return append(binary.AppendVarint(nil, int64(len(body))), body...)
}

// Small records and headers take far more memory than they have bytes.
func TestMemoryOf(t *testing.T) {
	small, large, headers := record(nil, 0), record(make([]byte, 1_000), 0), record(nil, 100)
	for name, c := range map[string]struct {
		plain []byte
		want  int
	}{
		"nothing":          {nil, 0},
		"a small one":      {small, len(small) + recordBytes},
		"many small ones":  {bytes.Repeat(small, 500), 500 * (len(small) + recordBytes)},
		"a large one":      {large, len(large) + recordBytes},
		"headers":          {headers, len(headers) + recordBytes + 100*headerBytes},
		"cut off":          {append(bytes.Clone(small), large[:50]...), len(small) + recordBytes + 50},
		"no records":       {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 6},
		"a length below 0": {[]byte{1, 1, 1}, 3},
		"too many headers": {[]byte{12, 0, 0, 0, 1, 1, 100}, 7 + recordBytes},
	} {
		if got := memoryOf(c.plain); got != int64(c.want) {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}

func FuzzMemoryOf(f *testing.F) {
	f.Add(record([]byte("v"), 3))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, plain []byte) {
		if got := memoryOf(plain); got < int64(len(plain)) || got > int64(len(plain))*(1+recordBytes+headerBytes) {
			t.Errorf("%d bytes of %d", got, len(plain))
		}
	})
}

// zeros are so many MiB of zeros, compressed.
func zeros(t *testing.T, codec kgo.CompressionCodecType, mib int) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	if codec == kgo.CodecGzip {
		w, err = gzip.NewWriterLevel(&out, gzip.BestSpeed)
	} else {
		w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	}
	block := make([]byte, 1<<20)
	for range mib {
		if err == nil {
			_, err = w.Write(block)
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Many zeros take little more memory than a batch may, and is told to be too large. So is what is
// small but makes many records.
func TestBatchThatIsTooLarge(t *testing.T) {
	r := newRoom(1<<20, 16<<20)
	for name, c := range map[string]struct {
		src   []byte
		codec kgo.CompressionCodecType
	}{
		"zstd": {zeros(t, kgo.CodecZstd, 512), kgo.CodecZstd},
		"gzip": {zeros(t, kgo.CodecGzip, 512), kgo.CodecGzip},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := r.Decompress(c.src, c.codec)
		runtime.ReadMemStats(&after)
		if !errors.As(err, new(*TooLargeError)) {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 256<<20 {
			t.Errorf("%s: %d bytes took %d MiB", name, len(c.src), took>>20)
		}
	}
	many := bytes.Repeat(record(nil, 0), 200_000)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Decompress(enc.EncodeAll(many, nil), kgo.CodecZstd); !errors.As(err, new(*TooLargeError)) {
		t.Errorf("%d bytes of records: %v", len(many), err)
	}
	if _, err := newRoom(1<<20, 32<<20).Decompress(enc.EncodeAll(many, nil), kgo.CodecZstd); err != nil {
		t.Errorf("%d bytes of records, with more memory: %v", len(many), err)
	}
	// Records of 256 bytes have no more overhead than that.
	usual := bytes.Repeat(record(make([]byte, 256), 0), 50_000)
	if _, err := r.Decompress(enc.EncodeAll(usual, nil), kgo.CodecZstd); err != nil {
		t.Errorf("%d bytes of records of 256 bytes, of %d: %v", len(usual), r.batchMost, err)
	}
	if r.held() != 0 {
		t.Error("what was refused is held")
	}
}

// A client that is far behind reads everything, in order and once, and holds no more than
// its room and two batches of each broker; a batch that is too large stops its partition alone.
func TestRoomOfAClient(t *testing.T) {
	const (
		perBatch = 1 << 20
		batches  = 40 // of each partition
		most     = 4 << 20
	)
	synctest.Test(t, func(t *testing.T) {
		var net kfake.VirtualNetwork
		kafka, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.Ports(9001, 9002, 9003), kfake.ListenFn(net.Listen), kfake.SeedTopics(6, "t"))
		if err != nil {
			t.Fatal(err)
		}
		defer kafka.Close()
		client := func(opts ...kgo.Opt) *kgo.Client {
			c, err := kgo.NewClient(append(opts, kgo.SeedBrokers("127.0.0.1:9001"), kgo.Dialer(net.DialContext), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		producer := client(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(16<<20), kgo.ProducerLinger(0))
		defer producer.Close()
		for i := range batches {
			for p := range int32(6) {
				size := perBatch
				if p == 5 && i == batches/2 {
					size = 9 << 20
				}
				value := make([]byte, size)
				copy(value, fmt.Sprint(i))
				if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Partition: p, Value: value}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		from := map[int32]kgo.Offset{}
		for p := range int32(6) {
			from[p] = kgo.NewOffset().At(0)
		}
		c := client(append(Opts(most, 8<<20), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": from}))...)
		defer c.Close()
		next, largest, refused := map[int32]int64{}, int64(0), (*TooLargeError)(nil)
		for read := 0; read < 5*batches+batches/2 || refused == nil; {
			synctest.Wait() // until nothing more is fetched
			largest = max(largest, c.BufferedFetchBytes())
			fetches := c.PollRecords(t.Context(), 3)
			fetches.EachError(func(_ string, p int32, err error) {
				if !errors.As(err, &refused) || p != 5 || next[p] != batches/2 {
					t.Errorf("partition %d, at offset %d: %v", p, next[p], err)
				}
			})
			fetches.EachRecord(func(r *kgo.Record) {
				if r.Offset != next[r.Partition] || !bytes.HasPrefix(r.Value, fmt.Append(nil, r.Offset)) {
					t.Errorf("partition %d: offset %d, want %d", r.Partition, r.Offset, next[r.Partition])
				}
				next[r.Partition]++
				read++
			})
		}
		t.Logf("%d bytes at most", largest)
		if largest > most+2*3*perBatch+1_000 || largest < most/2 {
			t.Errorf("%d bytes were held, want at most %d, and two batches of each broker", largest, most)
		}
		time.Sleep(time.Minute)
		if n := next[5]; n != batches/2 {
			t.Errorf("behind what is too large the client goes on to %d", n)
		}
	})
}
