package events_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
)

// The codec relies on what a client and a broker keep apart: a null and an
// empty value, headers in their order, timestamps to the millisecond.
func TestEventsSurviveKafka(t *testing.T) {
	erase := events.Event{Key: "\x00\xff", Op: events.OpDelete, Clock: 1 << 16, ID: "2", Source: "/test", Type: events.TypeDelete}
	why := erase
	why.Value = []byte("because")
	empty := put()
	empty.Value = []byte{}
	bareEmpty, bareDelete, epoch := barePut(), barePut(), barePut()
	bareEmpty.Value, bareEmpty.ContentType = []byte{}, "text/plain"
	bareDelete.Op, bareDelete.Value, bareDelete.Clock = events.OpDelete, nil, events.HLCFromMillis(1750774237123)
	epoch.Clock = 0
	written := append([]events.Event{put(), empty, erase, why, barePut(), bareEmpty, bareDelete, epoch}, goldenEvents()...)

	const topic = "session"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := fakeKafka(t, topic)
	var records []*kgo.Record
	for _, e := range written {
		r, err := events.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		r.Topic = topic
		records = append(records, r)
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var got []*kgo.Record
	for len(got) < len(records) {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		got = append(got, fetches.Records()...)
	}
	for i, r := range got {
		sent := records[i]
		if (r.Value == nil) != (sent.Value == nil) || !reflect.DeepEqual(r.Headers, sent.Headers) || r.Timestamp.UnixMilli() != sent.Timestamp.UnixMilli() {
			t.Errorf("record %d: sent %+v, got %+v", i, sent, r)
		}
		if e, err := events.Decode(r); err != nil || !same(e, written[i]) {
			t.Errorf("record %d: wrote %+v\nread %+v, %v", i, written[i], e, err)
		}
	}
}

// fakeKafka starts a broker with one topic of one partition and connects to it.
func fakeKafka(t *testing.T, topic string) *kgo.Client {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
