package replicator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// record makes a record whose every part tells what it is.
func record(partition int32, n int) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: partition,
		Key: fmt.Appendf(nil, "key %d", n%7), Value: fmt.Appendf(nil, "value %d of partition %d", n, partition),
		Headers:   []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, n)}},
		Timestamp: time.UnixMilli(1_700_000_000_000 + int64(n)),
	}
}

// write appends n records to every partition of the usual topic, in small
// batches.
func (c *cluster) write(n int) {
	c.w.Helper()
	for p := range int32(partitions) {
		c.writeTo(p, n)
	}
}

// writeTo appends n records to one partition.
func (c *cluster) writeTo(p int32, n int) {
	c.w.Helper()
	at := int(c.end(topic, p))
	for batch := range slices.Chunk(slices.Collect(func(yield func(*kgo.Record) bool) {
		for i := range n {
			if !yield(record(p, at+i)) {
				return
			}
		}
	}), 20) {
		c.produce(batch...)
	}
}

// produce appends records and fails the test if that fails.
func (c *cluster) produce(records ...*kgo.Record) {
	c.w.Helper()
	c.do(c.client.ProduceSync(context.Background(), records...).FirstErr())
}

// end is the high watermark of a partition, 0 if there is none yet.
func (c *cluster) end(topic string, p int32) int64 {
	if info := c.PartitionInfo(topic, p); info != nil {
		return info.HighWatermark
	}
	return 0
}

// topics lists the cluster's topics.
func (c *cluster) topics() []string {
	c.w.Helper()
	listed, err := kadm.NewClient(c.client).ListTopics(context.Background())
	c.do(err)
	return listed.Names()
}

// read returns what a consumer sees of a partition that reads committed records.
func (c *cluster) read(topic string, p int32) []*kgo.Record {
	c.w.Helper()
	info := c.PartitionInfo(topic, p)
	if info == nil || info.LogStartOffset == info.LastStableOffset {
		return nil
	}
	// The last offset of a stable log is never an aborted record's, for markers are
	// kept, nor one that compaction takes.
	client := c.dial(kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {p: kgo.NewOffset().At(info.LogStartOffset)},
	}))
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var records []*kgo.Record
	for len(records) == 0 || records[len(records)-1].Offset < info.LastStableOffset-1 {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(fetches.Err0(), ctx.Err()); err != nil {
			c.w.Fatalf("read %s of %s, partition %d, offsets %d to %d: %v", topic, c.region, p, info.LogStartOffset, info.LastStableOffset-1, err)
		}
		records = append(records, fetches.Records()...)
	}
	return slices.DeleteFunc(records, func(r *kgo.Record) bool { return r.Attrs.IsControl() })
}

// note keeps committed records in mind, whatever compaction takes of them.
func (c *cluster) note(records ...*kgo.Record) {
	for _, r := range records {
		c.journal[spot{r.Topic, r.Partition, r.Offset}] = r
	}
}

// compare says how a mirrored record differs from its original, nil if not.
func compare(source, mirrored *kgo.Record) error {
	if source.Offset != mirrored.Offset {
		return fmt.Errorf("offset %d is at %d of the mirror", source.Offset, mirrored.Offset)
	}
	return compareParts(source, mirrored)
}

// compareParts is compare for records whose offsets may differ.
func compareParts(source, mirrored *kgo.Record) error {
	same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
	switch {
	case !same(source.Key, mirrored.Key):
		return fmt.Errorf("offset %d: key %#v, in the mirror %#v", source.Offset, source.Key, mirrored.Key)
	case !same(source.Value, mirrored.Value):
		return fmt.Errorf("offset %d: value %.60q, in the mirror %.60q", source.Offset, source.Value, mirrored.Value)
	case source.Timestamp.UnixMilli() != mirrored.Timestamp.UnixMilli():
		return fmt.Errorf("offset %d: timestamp %d, in the mirror %d", source.Offset, source.Timestamp.UnixMilli(), mirrored.Timestamp.UnixMilli())
	case !slices.EqualFunc(source.Headers, mirrored.Headers, func(a, b kgo.RecordHeader) bool {
		return a.Key == b.Key && same(a.Value, b.Value)
	}):
		return fmt.Errorf("offset %d: headers %v, in the mirror %v", source.Offset, source.Headers, mirrored.Headers)
	}
	return nil
}

// checkPrefix fails the test unless the mirror of a partition is an exact copy
// of the source's log up to its own end. It returns that end.
func checkPrefix(source, dest *cluster, topic string, p int32) int64 {
	w := source.w
	w.Helper()
	originals, copies := source.read(topic, p), dest.read(mirror(source.region, topic), p)
	start := source.PartitionInfo(topic, p).LogStartOffset
	copies = slices.DeleteFunc(copies, func(r *kgo.Record) bool { return r.Offset < start }) // expired since
	if len(copies) > len(originals) {
		w.Fatalf("partition %d: the mirror has %d records, the source %d", p, len(copies), len(originals))
	}
	for i, c := range copies {
		if err := compare(originals[i], c); err != nil {
			w.Fatalf("mirror of %s in %s, topic %s, partition %d: %v", source.region, dest.region, topic, p, err)
		}
	}
	return dest.end(mirror(source.region, topic), p)
}

// awaitMirrored waits until every mirror of the topics (by default the usual
// one) is as long as its source, and checks that it is the same.
func awaitMirrored(source, dest *cluster, topics ...string) {
	source.w.Helper()
	if len(topics) == 0 {
		topics = []string{topic}
	}
	for _, topic := range topics {
		for p := range int32(partitions) {
			awaitPartition(source, dest, topic, p)
		}
	}
}

func awaitPartition(source, dest *cluster, topic string, p int32) {
	w := source.w
	w.Helper()
	awaitEnd(source, dest, topic, p)
	if end := checkPrefix(source, dest, topic, p); end != source.end(topic, p) {
		w.Fatalf("the mirror of partition %d ends at %d, the source at %d", p, end, source.end(topic, p))
	}
}

// awaitEnd only waits, without a request to either cluster.
func awaitEnd(source, dest *cluster, topic string, p int32) {
	w := source.w
	w.Helper()
	w.await(fmt.Sprintf("mirror of %s in %s, topic %s, partition %d", source.region, dest.region, topic, p), func() error {
		if want, got := source.end(topic, p), dest.end(mirror(source.region, topic), p); got < want {
			return fmt.Errorf("it ends at %d, the source at %d", got, want)
		}
		return nil
	})
}

// The harness itself: a mirror that differs in one byte or one record is seen.
func TestCompare(t *testing.T) {
	original := func() *kgo.Record {
		r := record(1, 5)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "empty", Value: []byte{}})
		r.Value = []byte{}
		return r
	}
	for name, change := range map[string]func(r *kgo.Record){
		"offset":            func(r *kgo.Record) { r.Offset++ },
		"key":               func(r *kgo.Record) { r.Key = []byte("key 6") },
		"no value":          func(r *kgo.Record) { r.Value = nil },
		"value":             func(r *kgo.Record) { r.Value = []byte("v") },
		"timestamp":         func(r *kgo.Record) { r.Timestamp = r.Timestamp.Add(time.Millisecond) },
		"header's value":    func(r *kgo.Record) { r.Headers[0].Value = []byte("6") },
		"no header's value": func(r *kgo.Record) { r.Headers[1].Value = nil },
		"header's name":     func(r *kgo.Record) { r.Headers[0].Key = "m" },
		"number of headers": func(r *kgo.Record) { r.Headers = nil },
	} {
		changed := original()
		change(changed)
		if compare(original(), changed) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
	if err := compare(original(), original()); err != nil {
		t.Errorf("the same: %v", err)
	}
}
