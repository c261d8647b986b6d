package archive_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// produceZeros writes a batch of so many records of so many zeros to shard 0.
func (w *world) produceZeros(stream events.Stream, records, bytes int) {
	w.Helper()
	c, err := kgo.NewClient(append(w.opts(), kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(64<<20), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		w.Fatal(err)
	}
	defer c.Close()
	var batch []*kgo.Record
	for range records {
		batch = append(batch, &kgo.Record{Topic: string(stream), Value: make([]byte, bytes)})
	}
	if err := c.ProduceSync(w.Context(), batch...).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

func (g *gate) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
}

// A log that stops since a batch is too large says so, whether or not the shard has paused just then, as it
// holds all that it may.
func TestTooLargeWhilePaused(t *testing.T) {
	for _, away := range []time.Duration{0, 5 * time.Second, 20 * time.Second, 40 * time.Second} {
		simulateBrokers(t, 2, 1, func(w *world) {
			for p := range int32(partitions) { // what fills the shard comes from another broker
				for i, topic := range []string{"secrets", "session"} {
					if err := w.kafka.MoveTopicPartition(topic, p, int32(i)); err != nil {
						w.Fatal(err)
					}
				}
			}
			w.produceZeros("secrets", 1, 40)
			for range 16 {
				w.produceZeros("session", 5_000, 400)
			}
			w.produceZeros("secrets", 1, 40<<20)
			p := w.start(0, 1)
			p.gate.set(away > 0)
			time.Sleep(away)
			p.gate.set(false)
			w.says(p, "secrets/0 has stopped", "the batch at offset 1 ")
			w.await("archived, the other log", func() error { return w.isArchived("session", 0) })
		})
	}
}

// What was archived with a higher limit and cannot be compared with what the log has now, stops nothing.
func TestLastArchivedIsTooLarge(t *testing.T) {
	simulate(t, 1, func(w *world) {
		w.batchBytesMost = 64 << 20
		w.produceZeros("secrets", 1, 40<<20)
		w.produce("session", 0, 3)
		w.start(0, 1)
		w.archived()
		w.processes[0].end()
		w.batchBytesMost = 32 << 20
		w.produce("secrets", 0, 3)
		w.produce("session", 0, 3)
		w.start(0, 1)
		w.archived()
	})
}
