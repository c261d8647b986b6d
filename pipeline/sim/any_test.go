package sim_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/pipeline/sim"
)

// spread waits until both nodes of a region have shards.
func spread(t *testing.T, r *sim.Region) {
	t.Helper()
	for range 600 {
		if len(ownOf(t, r.Nodes[0])) > 0 && len(ownOf(t, r.Nodes[1])) > 0 && len(ownOf(t, r.Nodes[0]))+len(ownOf(t, r.Nodes[1])) == 3 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s: the shards are not spread", r.Name)
}

// Whichever node is asked, the answer is that of the region: reads, also of keys whose
// slices are in several partitions, scans, status, lag, links and backups.
func TestSimAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r := w.Regions[0]
		spread(t, r)
		for i := range 60 {
			// The same keys in all partitions, as from producers with other partitioners.
			r.Produce(&kgo.Record{
				Topic: "session", Partition: int32(i % 3), Key: []byte(fmt.Sprintf("key-%02d", i%20)), Value: []byte(fmt.Sprint(i)),
				Timestamp: time.Now().Add(time.Duration(i) * time.Millisecond),
			})
		}
		w.Settle()
		var pages [2][]api.Entry
		for i, n := range r.Nodes {
			node := n.Process()
			for after := ""; ; {
				page, err := node.Scan(t.Context(), api.ScanParams{Stream: "session", Prefix: api.Bytes("key-"), After: api.Bytes(after), Limit: 7})
				if err != nil {
					t.Fatal(err)
				}
				pages[i] = append(pages[i], page.Entries...)
				if !page.More {
					break
				}
				after = string(page.Entries[len(page.Entries)-1].Key)
			}
			for k := range 20 {
				e, err := node.Get(t.Context(), api.GetParams{Stream: "session", Key: api.Bytes(fmt.Sprintf("key-%02d", k))})
				if err != nil || string(e.Value) != fmt.Sprint(40+k) {
					t.Errorf("%s: key-%02d: %+v, %v", n, k, e, err)
				}
			}
			_, err := node.Get(t.Context(), api.GetParams{Stream: "session", Key: api.Bytes("nothing")})
			if events.KindOf(err) != events.KindNotFound {
				t.Errorf("%s: %v", n, err)
			}
			s, err := node.Status(t.Context())
			if err != nil || !s.Ready || api.Known(s.Events) != 60 || len(s.Nodes) != 2 || len(s.Shards) != 3 || len(s.Links) != 2 {
				t.Errorf("%s: %+v, %v", n, s, err)
			}
			lag, err := node.Lag(t.Context())
			for begun := time.Now(); err == nil && lag.Behind() == "unknown" && time.Since(begun) < time.Minute; { // links are still being made
				time.Sleep(100 * time.Millisecond)
				lag, err = node.Lag(t.Context())
			}
			if err != nil || lag.Behind() != "0" || len(lag.Folds) != 9 || len(lag.Links) != 6 {
				t.Errorf("%s: %+v, %v", n, lag, err)
			}
			b, err := node.CreateBackup(t.Context())
			if err != nil || b.Shards != 3 || len(b.States) != len(s.Logs) {
				t.Errorf("%s: %+v, %v", n, b, err)
			}
			for _, origin := range []string{"us-west-1", "eu-central-1"} {
				p, err := node.PauseLink(t.Context(), api.PauseLinkParams{Origin: origin, What: "topic/session/1"})
				if err != nil || len(p.Partitions) != 1 {
					t.Errorf("%s: pause: %+v, %v", n, p, err)
				}
				if _, err := node.UnpauseLink(t.Context(), api.PauseLinkParams{Origin: origin, What: "topic/session/1"}); err != nil {
					t.Errorf("%s: unpause: %v", n, err)
				}
			}
		}
		if len(pages[0]) != 20 || !reflect.DeepEqual(pages[0], pages[1]) {
			t.Errorf("the nodes see different pages:\n%+v\n%+v", pages[0], pages[1])
		}
	})
}

// Shards are restored by their owners, whichever node is asked, and the region goes on.
func TestSimRestoreShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r := w.Regions[0]
		spread(t, r)
		for i := range 40 {
			if err := r.Nodes[i%2].Put(t.Context(), fmt.Sprintf("key-%02d", i%20), fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		w.Settle()
		if _, err := r.Nodes[1].Process().CreateBackup(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun, err := r.Nodes[0].Process().RestoreShards(t.Context(), api.RestoreShardsParams{})
		if err != nil || len(begun.Shards) != 3 {
			t.Fatalf("%+v, %v", begun, err)
		}
		nodes := map[string]bool{}
		for i, s := range begun.Shards {
			if nodes[s.Node] = true; s.Partition != int32(i) || s.Step != api.RestoreFetching {
				t.Errorf("%+v", s)
			}
		}
		if len(nodes) != 2 {
			t.Errorf("restored on %v", nodes)
		}
		for _, n := range r.Nodes {
			left := 3
			for begun2 := time.Now(); left > 0 && time.Since(begun2) < time.Minute; time.Sleep(100 * time.Millisecond) {
				s, err := n.Process().Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				left = 3
				for i, row := range s.Shards {
					if row.Restoring == nil && row.Lineage == begun.Shards[i].Lineage {
						left--
					}
				}
			}
			if left > 0 {
				t.Errorf("%s: %d shards are not restored", n, left)
			}
		}
		w.Settle()
		w.Check()
	})
}

// While the owner of a shard is gone there are no partial answers: reads say which shard
// and node is missing, sums are unknown; and after the session timeout all is well.
func TestSimOwnerGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r := w.Regions[0]
		spread(t, r)
		if err := r.Put(t.Context(), "k", "v"); err != nil {
			t.Fatal(err)
		}
		w.Settle()
		gone, left := r.Nodes[0], r.Nodes[1]
		lost := ownOf(t, gone)
		gone.Kill()
		node := left.Process()
		var asked sync.WaitGroup
		for what, ask := range map[string]func() error{
			"get": func() error {
				_, err := node.Get(t.Context(), api.GetParams{Stream: "session", Key: api.Bytes("k")})
				return err
			},
			"scan":   func() error { _, err := node.Scan(t.Context(), api.ScanParams{Stream: "session"}); return err },
			"backup": func() error { _, err := node.CreateBackup(t.Context()); return err },
		} {
			asked.Go(func() {
				err := ask()
				if events.KindOf(err) != events.KindNotReady || !strings.Contains(err.Error(), "shard ") || !strings.Contains(err.Error(), "node ") {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		asked.Wait()
		s, err := node.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		unknown := 0
		for _, row := range s.Shards {
			if row.Events == nil {
				unknown++
			}
		}
		if s.Ready || s.Events != nil || s.Keys != nil || s.Digest != nil || unknown != len(lost) || len(s.Nodes) != 2 {
			t.Errorf("%+v", s)
		}
		if lag, err := node.Lag(t.Context()); err != nil || lag.Behind() != "unknown" {
			t.Errorf("%+v, %v", lag, err)
		}
		time.Sleep(15 * time.Second)
		w.Settle()
		w.Check()
		gone.Start()
		spread(t, r)
		w.Settle()
		w.Check()
	})
}

// A node that stops on purpose is replaced at once.
func TestSimHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r := w.Regions[0]
		spread(t, r)
		r.Nodes[0].Stop()
		begun := time.Now()
		for len(ownOf(t, r.Nodes[1])) < 3 {
			if time.Since(begun) > 5*time.Second {
				t.Fatal("the other node has not taken over")
			}
			time.Sleep(50 * time.Millisecond)
		}
		r.Nodes[0].Start()
		r.Nodes[0].AwaitReady()
		w.Settle()
		w.Check()
	})
}

// Under the brokers' own protocol shards are shared out as well; how soon a node is
// missed is then the brokers' affair.
func TestSimConsumerProtocol(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2, AllRules: true, GroupProtocol: "consumer"}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		for _, r := range w.Regions {
			spread(t, r)
		}
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
		defer stop()
		var writers sync.WaitGroup
		for i, r := range w.Regions {
			writers.Go(func() { writeWith(ctx, r.Nodes[i%2].Writer(i), 100*time.Millisecond) })
		}
		for _, move := range []func(n *sim.Node){(*sim.Node).Stop, (*sim.Node).Kill, (*sim.Node).PowerLoss, (*sim.Node).DiskLoss} {
			n := w.Regions[1].Nodes[0]
			move(n)
			time.Sleep(10 * time.Second)
			n.Start()
			n.AwaitReady()
		}
		writers.Wait()
		w.Settle()
		w.Check()
	})
}

// keyOf is a key whose shard a node owns, and which nothing was written to through the
// other node of its region but a first value.
func keyOf(t *testing.T, owner, other *sim.Node) string {
	t.Helper()
	owned := ownOf(t, owner)
	for i := range 100 {
		key := fmt.Sprint("key-", i)
		res, err := other.Process().Put(t.Context(), api.PutParams{Stream: "session", Key: api.Bytes(key), Value: api.Bytes("first")})
		if err != nil {
			t.Fatal(err)
		}
		if _, is := owned[res.Position.Partition]; is {
			return key
		}
	}
	t.Fatalf("%s owns no key", owner)
	return ""
}

// However many reads of other nodes wait for a mirror that is behind, the owner of the shard
// has room for writes.
func TestSimWaitingReadsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r, far := w.Regions[0], w.Regions[2]
		spread(t, r)
		asks, owner := r.Nodes[0], r.Nodes[1]
		key := keyOf(t, owner, asks)
		w.Settle()
		w.Cut(r, far)
		w.Cut(r, w.Regions[1]) // or the log would come from there
		res, err := far.Node().Put(t.Context(), api.PutParams{Stream: "session", Key: api.Bytes(key), Value: api.Bytes("far")})
		if err != nil {
			t.Fatal(err)
		}
		var reading sync.WaitGroup
		for range 50 { // a node works on 32 calls of others at a time
			reading.Go(func() {
				_, err := asks.Process().Get(t.Context(), api.GetParams{
					Stream: "session", Key: api.Bytes(key), Freshness: api.Freshness{AtLeast: res.AtLeast, TimeoutSeconds: 60},
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		begun := time.Now()
		if err := asks.Put(t.Context(), key, "near"); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("a write took %s", took)
		}
		w.Mend(r, far)
		w.Mend(r, w.Regions[1])
		reading.Wait()
	})
}

// What is written through a node comes after what was read through it, also where another
// node has the key's shard and a region's clock is ahead.
func TestSimWritesComeAfterWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sim.NewShaped(t, 1, sim.Shape{Nodes: 2}, "us-east-1", "us-west-1", "eu-central-1")
		defer w.Close()
		r, far := w.Regions[0], w.Regions[2]
		spread(t, r)
		asks, owner := r.Nodes[0], r.Nodes[1]
		key := keyOf(t, owner, asks)
		at, err := far.Node().Put(t.Context(), api.PutParams{Stream: "session", Key: api.Bytes(key), Value: api.Bytes("before")})
		if err != nil {
			t.Fatal(err)
		}
		ahead := events.HLCAt(time.Now().Add(50 * time.Second))
		record, err := events.Encode(events.Event{Key: key, Op: events.OpPut, Value: []byte("ahead"), Clock: ahead, ID: "1", Source: "s", Type: events.TypePut})
		if err != nil {
			t.Fatal(err)
		}
		record.Topic, record.Partition = "session", at.Position.Partition
		// A clock that is broken is followed by nobody, and hides no other.
		far.Produce(&kgo.Record{Topic: record.Topic, Partition: record.Partition, Key: []byte("broken"), Value: []byte("v"), Timestamp: time.Now().Add(time.Hour)})
		w.Settle()
		// And one behind it, whose effective clock is later still.
		far.Produce(record, &kgo.Record{Topic: record.Topic, Partition: record.Partition, Key: record.Key, Value: []byte("read")})
		w.Settle()
		get := func(n *pipeline.Region, cut events.Vector) string {
			e, err := n.Get(t.Context(), api.GetParams{Stream: "session", Key: api.Bytes(key), Freshness: api.Freshness{AtLeast: cut}})
			if err != nil {
				t.Fatal(err)
			}
			return string(e.Value)
		}
		if value := get(asks.Process().Region, nil); value != "read" {
			t.Fatalf("it reads %q", value)
		}
		res, err := asks.Process().Put(t.Context(), api.PutParams{Stream: "session", Key: api.Bytes(key), Value: api.Bytes("after")})
		if err != nil {
			t.Fatal(err)
		}
		for _, region := range w.Regions {
			if value := get(region.Node(), res.AtLeast); value != "after" {
				t.Errorf("%s reads %q, written with the clock %s after one with %s", region.Name, value, res.Clock, ahead)
			}
		}
	})
}
