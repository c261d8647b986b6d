package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Versions of produce requests that SendProduce can write.
const (
	produceFlexible = 9  // the first with compact fields
	produceByID     = 13 // the first that names topics by id
)

// SendProduce is Send for a produce request of version 9 to 13, without copying
// the batches: they are most of what a link has to move. They must not change
// before it returns.
func (c *Conn) SendProduce(req *kmsg.ProduceRequest, timeout time.Duration, done func(Answer)) error {
	if _, direct := c.nc.(*net.TCPConn); !direct {
		return c.Send(req, timeout, done) // TLS would encrypt each piece by itself
	}
	if req.Version < produceFlexible || req.Version > produceByID {
		return fmt.Errorf("produce requests of version %d cannot be written", req.Version)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.nextID++
	pieces := c.pieces(req, c.nextID)
	if err := c.enqueue(pending{c.nextID, req, time.Now().Add(timeout + AnswerTimeout), done}); err != nil {
		return err
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := pieces.WriteTo(c.nc); err != nil {
		c.fail(fmt.Errorf("write to %s: %w", c.address, err))
	}
	return nil
}

// pieces are the request as it goes over the wire, the batches where they are.
func (c *Conn) pieces(req *kmsg.ProduceRequest, id int32) net.Buffers {
	var cuts []int // where in out a batch follows
	var batches [][]byte
	size := 0
	out := append(c.out[:0], 0, 0, 0, 0)
	out = binary.BigEndian.AppendUint16(out, uint16(req.Key()))
	out = binary.BigEndian.AppendUint16(out, uint16(req.Version))
	out = binary.BigEndian.AppendUint32(out, uint32(id))
	out = binary.BigEndian.AppendUint16(out, uint16(len(c.clientID)))
	out = append(out, c.clientID...)
	const noTags, noTransaction = 0, 0
	out = append(out, noTags, noTransaction)
	out = binary.BigEndian.AppendUint16(out, uint16(req.Acks))
	out = binary.BigEndian.AppendUint32(out, uint32(req.TimeoutMillis))
	out = appendCompactLen(out, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		if req.Version >= produceByID {
			out = append(out, t.TopicID[:]...)
		} else {
			out = append(appendCompactLen(out, len(t.Topic)), t.Topic...)
		}
		out = appendCompactLen(out, len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			out = binary.BigEndian.AppendUint32(out, uint32(p.Partition))
			out = appendCompactLen(out, len(p.Records))
			cuts, batches = append(cuts, len(out)), append(batches, p.Records)
			size += len(p.Records)
			out = append(out, noTags)
		}
		out = append(out, noTags)
	}
	out = append(out, noTags)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4+size))
	c.out = out
	pieces := make(net.Buffers, 0, 2*len(cuts)+1)
	at := 0
	for i, cut := range cuts {
		pieces = append(pieces, out[at:cut], batches[i])
		at = cut
	}
	return append(pieces, out[at:])
}

// appendCompactLen writes a length as flexible versions have it: one more, since
// 0 stands for null.
func appendCompactLen(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)+1) }
