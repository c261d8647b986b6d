package ledger

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

func TestOpenRefusesUnfitTopics(t *testing.T) {
	c := newCluster(t)
	for name, topic := range map[string]struct {
		partitions int32
		policy     string
		err        string
	}{
		"deleting":   {1, "delete", "cleanup.policy=delete"},
		"both":       {1, "compact,delete", "cleanup.policy=compact,delete"},
		"partitions": {3, "compact", "3 partitions"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.CreateTopic(name, topic.partitions, map[string]string{"cleanup.policy": topic.policy}); err != nil {
				t.Fatal(err)
			}
			l, err := Open(t.Context(), []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, Config{Topic: name, Link: "l", Instance: "i"})
			if err == nil {
				l.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), topic.err) {
				t.Fatal(err)
			}
			if is := c.TopicInfo(name).Configs["cleanup.policy"]; is == nil || *is != topic.policy {
				t.Fatal("the topic's configuration was changed")
			}
		})
	}
	for _, cfg := range []Config{{}, {Topic: "t", Link: "l"}, {Topic: "t", Instance: "i"}, {Link: "l", Instance: "i"}} {
		if l, err := Open(t.Context(), nil, cfg); err == nil {
			l.Close()
			t.Errorf("%+v was opened", cfg)
		}
	}
}

// Several instances start on a cluster that has no link topic yet.
func TestOpenCreatesTheTopic(t *testing.T) {
	c := newCluster(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			l, err := Open(t.Context(), []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, Config{Topic: "links", Link: "l", Instance: "i"})
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			if err := l.SetPause(t.Context(), "link", true); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	info := c.TopicInfo("links")
	if is := info.Configs["cleanup.policy"]; is == nil || *is != "compact" {
		t.Fatal("the topic is not compacted")
	}
}

func TestTopicCreatedAgainIsNotTheSame(t *testing.T) {
	w := single(t)
	l := w.open()
	defer l.Close()
	w.do(l.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}}))
	w.cluster.DeleteTopic(w.topic)
	w.do(w.cluster.CreateTopic(w.topic, 1, map[string]string{"cleanup.policy": "compact"}))
	if err := l.Refresh(w.ctx); !errors.Is(err, errLost) {
		t.Fatalf("error %v", err)
	}
	if err := l.SetPause(w.ctx, "link", true); !errors.Is(err, errLost) {
		t.Fatalf("error %v", err)
	}
}

func TestLeaderMoves(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w := newWorld(t, t.Context(), c, "links")
	l := w.open()
	defer l.Close()
	for i := range int32(6) {
		w.do(c.MoveTopicPartition(w.topic, 0, i%3))
		m := l.Map(p0)
		w.do(l.AppendRuns(w.ctx, p0, m.Len(), someRuns(m, 1)))
		w.do(l.Refresh(w.ctx))
	}
	w.same([]Partition{p0}, l)
}

// Compaction may have removed what was last in the topic: no record then says that
// the end is reached.
func TestEndWithoutRecord(t *testing.T) {
	w := single(t)
	l := w.open()
	defer l.Close()
	w.do(l.SetPause(w.ctx, "link", true))
	const gone = 7
	w.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		p := kmsg.NewListOffsetsResponseTopicPartition()
		p.Offset = 1 + gone
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic, topic.Partitions = w.topic, []kmsg.ListOffsetsResponseTopicPartition{p}
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	answers := 0
	w.cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		answers++
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		if answers == 1 {
			return resp, nil, true // throttled: no partition at all
		}
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = w.topic, req.(*kmsg.FetchRequest).Topics[0].TopicID
		p := kmsg.NewFetchResponseTopicPartition()
		p.HighWatermark = 1 // a new leader that does not know better yet
		if answers > 2 {
			p.HighWatermark = 1 + gone
		}
		topic.Partitions = append(topic.Partitions, p)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	w.do(l.Refresh(w.ctx))
	if l.reader.next != 1+gone || answers != 3 {
		t.Fatalf("read to %d after %d answers", l.reader.next, answers)
	}
}

// Nothing waits longer than its context, whatever the cluster does.
func TestContextEndsEverything(t *testing.T) {
	w := single(t)
	l := w.open()
	w.do(l.AppendRuns(w.ctx, p0, 0, []mapping.Run{{Source: 5}}))
	reached := make(chan struct{}, 100)
	release := make(chan struct{})
	defer close(release)
	for _, k := range []kmsg.Key{kmsg.Produce, kmsg.ListOffsets, kmsg.Fetch} {
		w.cluster.ControlKey(int16(k), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			reached <- struct{}{}
			w.cluster.SleepControl(func() { <-release })
			return nil, nil, false
		})
	}
	for name, call := range map[string]func(context.Context) error{
		"refresh": l.Refresh,
		"append":  func(ctx context.Context) error { return l.AppendRuns(ctx, p0, 1, []mapping.Run{{Source: 9, Dest: 1}}) },
		"propose": func(ctx context.Context) error {
			_, err := l.Propose(ctx, map[Partition]ProducerID{p0: {ID: 1}})
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- call(ctx) }()
		if name == "refresh" {
			<-reached
		}
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: error %v", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s goes on", name)
		}
	}
	l.Close()
	l.Close()
	if err := l.SetPause(t.Context(), "link", true); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: error %v", err)
	}
	if err := l.Refresh(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: error %v", err)
	}
}
