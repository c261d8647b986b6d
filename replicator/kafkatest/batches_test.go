//go:build kafka

package kafkatest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator"
)

// Where the source's broker stamps the time of arrival, that is the records'
// time in the mirror too, whose broker would else stamp its own.
func TestLogAppendTime(t *testing.T) {
	t.Parallel()
	w := plainWorld(t, "message.timestamp.type", "LogAppendTime")
	w.source.writeAll(w.topic, 10)
	w.oneBatch(0, 500, 100)
	l := w.start()
	l.awaitMirrored()
	w.source.configure(w.topic, "message.timestamp.type", "CreateTime")
	w.source.writeAll(w.topic, 10)
	w.source.configure(w.topic, "message.timestamp.type", "LogAppendTime")
	w.source.writeAll(w.topic, 10)
	w.oneBatch(1, 500, 100)
	l.awaitMirrored()
	w.sameOffsets()
	if n, _ := l.verify(); n != 90+1000 {
		t.Errorf("verified %d records, want 1090", n)
	}
	if kind := w.dest.config(w.mirror(), "message.timestamp.type"); kind != "CreateTime" {
		t.Errorf("the mirror's message.timestamp.type is %s", kind)
	}
}

// oneBatch writes records of random bytes as one batch.
func (w *world) oneBatch(num int32, records, bytesEach int) {
	w.Helper()
	client := w.source.dial(kgo.ProducerBatchMaxBytes(16<<20), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ManualFlushing(),
		kgo.MaxBufferedRecords(1_000_000))
	random := rand.NewChaCha8([32]byte{byte(records)})
	var failed error
	for range records {
		r := w.source.records(w.topic, num, 1)[0]
		value := make([]byte, bytesEach/2)
		_, _ = random.Read(value) // never fails
		r.Value = fmt.Appendf(nil, "%x", value)
		client.Produce(w.source.ctx(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
	}
	w.source.do(client.Flush(w.source.ctx()))
	w.source.do(failed)
}

// A mirror takes batches as large as its source's, whatever the destination's
// brokers take by default.
func TestLargeBatches(t *testing.T) {
	t.Parallel()
	const limit = "4194304"
	w := plainWorld(t, "max.message.bytes", limit)
	w.oneBatch(0, 300, 10_000) // 3 MB
	l := w.start()
	l.awaitMirrored()
	w.oneBatch(1, 3, 1_200_000)
	w.source.write(w.topic, 0, 10)
	l.awaitMirrored()
	w.sameOffsets()
	if got := w.dest.config(w.mirror(), "max.message.bytes"); got != limit {
		t.Errorf("the mirror's max.message.bytes is %s, want %s", got, limit)
	}
}

// A source that has lowered its limit still has batches larger than the mirror
// takes: they are split. One record that is too large stops its partition, until
// the limit is raised.
func TestBatchesAreSplit(t *testing.T) {
	t.Parallel()
	w := plainWorld(t, "max.message.bytes", "4194304")
	w.oneBatch(0, 300, 10_000)
	w.source.write(w.topic, 0, 10)
	w.oneBatch(1, 1, 300_000)
	w.source.writeAll(w.topic, 10)
	w.source.configure(w.topic, "max.message.bytes", "100000")
	l := w.start()
	l.awaitMirrored(0, 2)
	l.awaitStopped(1, replicator.TooLarge, 0, 0)
	if got := w.dest.config(w.mirror(), "max.message.bytes"); got != "100000" {
		t.Errorf("the mirror's max.message.bytes is %s: nothing had to be split", got)
	}
	w.dest.configure(w.mirror(), "max.message.bytes", "4194304")
	l.resume(1, "retry")
	l.awaitMirrored()
	w.sameOffsets()
}

// Keys and values that are null, empty or binary, and batches of every codec, are
// the same bytes in the mirror.
func TestBytes(t *testing.T) {
	t.Parallel()
	w := plainWorld(t)
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	binary := []byte{0, 1, 0xff, 0x80, 'x'}
	for _, codec := range codecs {
		client := w.source.dial(kgo.ProducerBatchCompression(codec))
		for num := range int32(partitions) {
			w.source.do(client.ProduceSync(w.source.ctx(),
				&kgo.Record{Topic: w.topic, Partition: num},
				&kgo.Record{Topic: w.topic, Partition: num, Key: []byte{}, Value: []byte{}},
				&kgo.Record{Topic: w.topic, Partition: num, Key: binary, Value: bytes.Repeat(binary, 1000)},
				&kgo.Record{Topic: w.topic, Partition: num, Key: []byte("tombstone"), Headers: []kgo.RecordHeader{{Key: "h"}, {Key: "h", Value: []byte{}}, {Key: "", Value: binary}}},
			).FirstErr())
		}
	}
	l := w.start()
	l.awaitMirrored()
	w.sameOffsets()
	if n, _ := l.verify(); n != int64(len(codecs)*partitions*4) {
		t.Errorf("verified %d records", n)
	}
}
