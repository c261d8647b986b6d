package wire

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"
)

// What is written in pieces is what the general encoding writes.
func TestPiecesAreTheRequest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		req := kmsg.NewPtrProduceRequest()
		req.Version = rapid.Int16Range(produceFlexible, produceByID).Draw(t, "version")
		req.Acks = -1
		req.TimeoutMillis = rapid.Int32().Draw(t, "timeout")
		for range rapid.IntRange(0, 3).Draw(t, "topics") {
			topic := kmsg.NewProduceRequestTopic()
			topic.Topic = rapid.StringN(1, 200, -1).Draw(t, "topic")
			copy(topic.TopicID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
			for range rapid.IntRange(0, 3).Draw(t, "partitions") {
				p := kmsg.NewProduceRequestTopicPartition()
				p.Partition = rapid.Int32().Draw(t, "partition")
				p.Records = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "records")
				topic.Partitions = append(topic.Partitions, p)
			}
			req.Topics = append(req.Topics, topic)
		}
		client := rapid.StringN(0, 20, -1).Draw(t, "client")
		id := rapid.Int32().Draw(t, "id")
		c := &Conn{clientID: client}
		var got bytes.Buffer
		pieces := c.pieces(req, id)
		if _, err := pieces.WriteTo(&got); err != nil {
			t.Fatal(err)
		}
		want := kmsg.NewRequestFormatter(kmsg.FormatterClientID(client)).AppendRequest(nil, req, id)
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("version %d\n got %x\nwant %x", req.Version, got.Bytes(), want)
		}
	})
}
