package replicator_test

import (
	"context"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/evenkeel/evenkeel/replicator"
)

// How a transaction ends.
const (
	commit = iota
	abort
	leaveOpen // until it times out, within a minute
)

// transaction writes records in one transaction.
func (c *cluster) transaction(end int, records ...*kgo.Record) {
	c.w.Helper()
	ctx := context.Background()
	client := c.dial(kgo.TransactionalID("transaction"))
	defer client.Close()
	c.do(client.BeginTransaction())
	c.do(client.ProduceSync(ctx, records...).FirstErr())
	if end != leaveOpen {
		c.do(client.EndTransaction(ctx, kgo.TransactionEndTry(end == commit)))
	}
}

// around writes records in one transaction, with something else in between.
func (c *cluster) around(end int, records []*kgo.Record, between func()) {
	c.w.Helper()
	ctx := context.Background()
	client := c.dial(kgo.TransactionalID("around"))
	defer client.Close()
	c.do(client.BeginTransaction())
	for _, r := range records {
		c.do(client.ProduceSync(ctx, r).FirstErr())
		between()
	}
	c.do(client.EndTransaction(ctx, kgo.TransactionEndTry(end == commit)))
}

// grow gives a topic more partitions.
func (c *cluster) grow(topic string, to int) {
	c.w.Helper()
	answers, err := kadm.NewClient(c.client).UpdatePartitions(context.Background(), to, topic)
	c.do(err)
	c.do(answers.Error())
	c.redial()
}

// resume lets stopped partitions go on.
func (l *runningLink) resume(topic string, p int32, from string) {
	l.w.Helper()
	if err := l.tryResume(topic, p, from); err != nil {
		l.w.Fatalf("resume from %s: %v", from, err)
	}
}

func (l *runningLink) tryResume(topic string, p int32, from string) error {
	choice, err := replicator.ParseChoice(from)
	if err != nil {
		return err
	}
	list, err := l.Resume(context.Background(), topic, p, choice)
	for _, s := range list {
		if s.Stop != nil || s.State != replicator.Starting {
			l.w.Errorf("resumed: %+v", s)
		}
	}
	return err
}

// recreate deletes a topic and creates it again.
func (c *cluster) recreate(topic string) {
	c.w.Helper()
	c.do(c.DeleteTopic(topic))
	c.create(topic)
	c.redial()
}

// redial makes a new client: the old one would ask for old ids of topics.
func (c *cluster) redial() {
	c.client.Close()
	c.client = c.dial()
}

// configure sets a config of a topic.
func (c *cluster) configure(topic, name, value string) {
	c.w.Helper()
	answers, err := kadm.NewClient(c.client).AlterTopicConfigs(context.Background(), []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	c.do(err)
	c.do(answers[0].Err)
}

// produceAt appends a record with a timestamp that the client library cannot
// express, byte by byte.
func (c *cluster) produceAt(partition int32, millis int64) {
	c.w.Helper()
	r := kmsg.Record{Key: []byte("k"), Value: []byte("v")}
	r.Length = int32(len(r.AppendTo(nil)) - 1) // less the length itself, which is one byte
	body := r.AppendTo(nil)
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, FirstTimestamp: millis, MaxTimestamp: millis,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: body,
	}
	const head, crcEnd = 12, 21 // base offset and length; up to the checksum
	raw := batch.AppendTo(nil)
	batch.Length = int32(len(raw) - head)
	batch.CRC = int32(crc32.Checksum(raw[crcEnd:], crc32.MakeTable(crc32.Castagnoli)))

	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Records = topic, partition, batch.AppendTo(nil)
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	client := c.dial(kgo.MaxVersions(kversion.V3_7_0())) // later ones name topics by their ids
	defer client.Close()
	answer, err := req.RequestWith(context.Background(), client.Broker(int(c.LeaderFor(topic, partition))))
	c.do(err)
	c.do(kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode))
}

// metric is the sum of a metric over all its labels.
func (l *runningLink) metric(name string) (sum float64) {
	l.w.Helper()
	families, err := l.registry.Gather()
	if err != nil {
		l.w.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}
