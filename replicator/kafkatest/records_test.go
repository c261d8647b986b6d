//go:build kafka

package kafkatest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// write produces numbered records, no two alike, to one partition.
func (c *cluster) write(topic string, num int32, n int) {
	c.t.Helper()
	c.do(c.client.ProduceSync(c.ctx(), c.records(topic, num, n)...).FirstErr())
}

// writeAll produces so many records to each partition.
func (c *cluster) writeAll(topic string, n int) {
	c.t.Helper()
	for num := range int32(partitions) {
		c.write(topic, num, n)
	}
}

// records makes numbered records.
func (c *cluster) records(topic string, num int32, n int) []*kgo.Record {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		at := c.written.Add(1)
		rs[i] = &kgo.Record{
			Topic: topic, Partition: num, Key: fmt.Appendf(nil, "key-%d", at%7), Value: fmt.Appendf(nil, "value-%d", at),
			Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(strconv.FormatInt(at, 10))}},
		}
	}
	return rs
}

// kcatWrite lets a foreign producer write one record.
func (c *cluster) kcatWrite(topic string, num int32, value string) {
	c.t.Helper()
	if _, err := c.kcat(strings.NewReader(value), "-P", "-t", topic, "-p", strconv.Itoa(int(num)), "-X", "acks=all"); err != nil {
		c.t.Fatalf("topic %s of %s: %v", topic, c.region, err)
	}
}

// record is all that a consumer sees of a record.
type record struct {
	offset int64
	rest   string // timestamp, lengths and bytes of key and value, headers
}

// read lets an independent consumer read a topic from its beginning to its end,
// committed records only.
func (c *cluster) read(topic string) map[int32][]record {
	c.t.Helper()
	return c.consume(topic)
}

// head reads the first records of a partition, at most so many: the end of one that
// somebody writes to may never be reached.
func (c *cluster) head(topic string, num int32, most int) []record {
	c.t.Helper()
	return c.consume(topic, "-p", strconv.Itoa(int(num)), "-c", strconv.Itoa(most))[num]
}

func (c *cluster) consume(topic string, which ...string) map[int32][]record {
	c.t.Helper()
	out, err := c.kcat(nil, append([]string{"-C", "-e", "-q", "-t", topic, "-o", "beginning",
		"-X", "isolation.level=read_committed", "-X", "fetch.wait.max.ms=50", "-f", "%p %o %T %K:%k %S:%s %h\n"}, which...)...)
	if err != nil {
		c.t.Fatalf("topic %s of %s: %v", topic, c.region, err)
	}
	found := map[int32][]record{}
	for line := range strings.Lines(string(out)) {
		words := strings.SplitN(line, " ", 3)
		if len(words) < 3 {
			c.t.Fatalf("kcat printed %q", line)
		}
		num, errNum := strconv.Atoi(words[0])
		offset, errOffset := strconv.ParseInt(words[1], 10, 64)
		if errNum != nil || errOffset != nil {
			c.t.Fatalf("kcat printed %q", line)
		}
		found[int32(num)] = append(found[int32(num)], record{offset, words[2]})
	}
	return found
}

// sameOffsets checks that every record of the mirror is the source's, at the same
// offset, and that there are none besides. It tells how many there are.
func (w *world) sameOffsets() int {
	w.Helper()
	return same(w.T, w.source.read(w.topic), w.dest.read(w.mirror()), true)
}

// sameRecords checks the same but for the offsets.
func (w *world) sameRecords() int {
	w.Helper()
	return same(w.T, w.source.read(w.topic), w.dest.read(w.mirror()), false)
}

func same(t *testing.T, log, mirror map[int32][]record, offsets bool) (n int) {
	t.Helper()
	for num := range max(int32(len(log)), int32(len(mirror)), partitions) {
		a, b := log[num], mirror[num]
		for i := range min(len(a), len(b)) {
			if a[i].rest != b[i].rest || offsets && a[i].offset != b[i].offset {
				t.Errorf("partition %d: record %d differs:\nlog    %d %smirror %d %s", num, i, a[i].offset, a[i].rest, b[i].offset, b[i].rest)
				break
			}
		}
		if len(a) != len(b) {
			t.Errorf("partition %d: the mirror has %d records, the log %d", num, len(b), len(a))
		}
		n += len(b)
	}
	if n == 0 {
		t.Error("nothing was compared")
	}
	return n
}
