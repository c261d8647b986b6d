package claims_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/claims"
)

const (
	topic      = "evenkeel.shards"
	partitions = 2
)

// world is a cluster in a bubble.
type world struct {
	*testing.T
	cluster *kfake.Cluster
	opts    []kgo.Opt
}

func run(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9001), kfake.ListenFn(network.Listen), kfake.SeedTopics(partitions, topic))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		test(&world{T: t, cluster: cluster, opts: []kgo.Opt{kgo.SeedBrokers("127.0.0.1:9001"), kgo.Dialer(network.DialContext)}})
	})
}

// node is a node that follows the claims; seen are those that it was told of.
type node struct {
	*claims.Log
	w    *world
	seen []string
}

func (w *world) node(name string) *node {
	w.Helper()
	n := &node{w: w}
	var err error
	n.Log, err = claims.New(slices.Clip(w.opts), claims.Config{Topic: topic, Partitions: partitions, Node: name, Address: "http://" + name},
		func(key string, c claims.Claim) {
			n.seen = append(n.seen, fmt.Sprintf("%s %s %d", key, c.Node, c.Epoch))
		}, slog.New(slog.DiscardHandler))
	if err != nil {
		w.Fatal(err)
	}
	go n.Follow(w.Context())
	w.Cleanup(n.Close)
	return n
}

func (n *node) take(key string, stored events.Epoch) events.Epoch {
	n.w.Helper()
	epoch, err := n.Take(n.w.Context(), key, 1, stored)
	if err != nil {
		n.w.Fatal(err)
	}
	return epoch
}

func (n *node) confirm() {
	n.w.Helper()
	if err := n.Confirm(n.w.Context()); err != nil {
		n.w.Fatal(err)
	}
}

// The newest claim says who owns a shard, under an epoch later than all before, and all nodes are
// told in the same order.
func TestTheNewestClaimWins(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		key := claims.ShardKey(1)
		if _, ok := a.Of(key); ok {
			w.Error("what nobody has claimed has an owner")
		}
		first, second := a.take(key, 0), b.take(key, 0)
		if second <= first {
			w.Errorf("epoch %d after %d", second, first)
		}
		a.confirm()
		for _, n := range []*node{a, b} {
			c, ok := n.Of(key)
			if !ok || c.Node != "b" || c.Address != "http://b" || c.Epoch != second || n.IsOwn(c) != (n == b) {
				w.Errorf("%+v, %v", c, ok)
			}
			if known := n.Nodes(); known["a"].Address != "http://a" || known["b"].Address != "http://b" {
				w.Errorf("nodes %+v", known)
			}
		}
		if !slices.Equal(a.seen, b.seen) || len(a.seen) != 2 {
			w.Errorf("a was told of %q, b of %q", a.seen, b.seen)
		}
		if link := a.take(claims.LinkKey(events.FirstOrigin("us-east-1")), 0); link <= second {
			w.Errorf("the claim of a link has epoch %d", link)
		}
		if c, _ := a.Of(key); c.Node != "b" {
			w.Error("the claim of a link is one of the shard")
		}
	})
}

// If the topic is lost, and begins anew, the state still knows of later epochs.
func TestTheStateIsOlderThanTheTopic(t *testing.T) {
	run(t, func(w *world) {
		a, b := w.node("a"), w.node("b")
		first := a.take(claims.ShardKey(1), 1000)
		second := b.take(claims.ShardKey(1), 0) // of a node that has no state
		if first <= 1000 || second <= first {
			w.Errorf("epochs %d and %d after 1000", first, second)
		}
	})
}

// An epoch is the place of a claim, whatever a record says; and no record says one.
func TestEpochIsNoPartOfTheRecord(t *testing.T) {
	text, err := json.Marshal(claims.Claim{Node: "a", Epoch: 7})
	if err != nil || strings.Contains(strings.ToLower(string(text)), "epoch") {
		t.Errorf("%s, %v", text, err)
	}
	run(t, func(w *world) {
		client, err := kgo.NewClient(append(slices.Clip(w.opts), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		if err != nil {
			w.Fatal(err)
		}
		defer client.Close()
		for _, value := range []string{"no claim", `{}`, `{"node":"x","epoch":99,"Epoch":99}`} {
			if err := client.ProduceSync(w.Context(), &kgo.Record{Topic: topic, Partition: 1, Key: []byte("1"), Value: []byte(value)}).FirstErr(); err != nil {
				w.Fatal(err)
			}
		}
		a := w.node("a")
		a.confirm()
		if c, _ := a.Of("1"); c.Node != "x" || c.Epoch != 3 {
			w.Errorf("%+v", c)
		}
	})
}

// A node that has not made sure for a while owns nothing for sure, and says why.
func TestLapsed(t *testing.T) {
	run(t, func(w *world) {
		a := w.node("a")
		if err := a.Lapsed(); events.KindOf(err) != events.KindNotReady {
			w.Errorf("before any claim is read: %v", err)
		}
		a.confirm()
		time.Sleep(9 * time.Second)
		if err := a.Lapsed(); err != nil {
			w.Error(err)
		}
		time.Sleep(2 * time.Second)
		if err := a.Lapsed(); events.KindOf(err) != events.KindNotReady || !strings.Contains(err.Error(), "11s ago") {
			w.Errorf("%v", err)
		}
		w.cluster.ControlKey(2, func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			return nil, errors.New("no offsets"), true
		})
		if err := a.Confirm(w.Context()); err == nil || a.Lapsed() == nil || !strings.Contains(a.Lapsed().Error(), topic) {
			w.Errorf("%v, %v", err, a.Lapsed())
		}
	})
}

// A node that stops is known to have stopped, by those that come later too.
func TestEnterAndLeave(t *testing.T) {
	run(t, func(w *world) {
		a := w.node("a")
		if err := a.Enter(w.Context()); err != nil {
			w.Fatal(err)
		}
		b := w.node("b")
		b.confirm()
		if n, ok := b.Nodes()["a"]; !ok || n.Stopped || n.Address != "http://a" {
			w.Errorf("%+v", n)
		}
		if err := a.Leave(); err != nil {
			w.Fatal(err)
		}
		b.confirm()
		if n := b.Nodes()["a"]; !n.Stopped {
			w.Errorf("%+v", n)
		}
		if len(b.seen) != 0 {
			w.Errorf("what nodes say of themselves is taken for claims: %q", b.seen)
		}
	})
}
