//go:build kafka

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// fleet is a deployment with several nodes a region.
type fleet struct {
	*deployment
	all []*fleetNode
}

// fleetNode is one node: a process with a port and a directory of its own.
type fleetNode struct {
	d      *deployment
	region events.Region
	name   string
	client *api.Client

	mu      sync.Mutex
	process *exec.Cmd // nil: it does not run
}

// newFleet starts so many nodes in the first region, and in each of the others.
func newFleet(t *testing.T, protocol string, first, others int) *fleet {
	t.Helper()
	f := &fleet{deployment: prepareDeployment(t)}
	f.protocol, f.usage = protocol, f.topic+"-usage"
	for _, r := range kafkaRegions {
		nodes := others
		if r == kafkaRegions[0] {
			nodes = first
		}
		for i := range nodes {
			port := f.apis[r]
			if i > 0 {
				port = freePort(t)
			}
			n := &fleetNode{d: f.deployment, region: r, name: fmt.Sprintf("%s-%d", r, i)}
			var err error
			if n.client, err = api.NewClient(fmt.Sprintf("http://127.0.0.1:%d", port)); err != nil {
				t.Fatal(err)
			}
			f.writeNodeConfig(n.path(".yaml"), r, n.path(".data"), port)
			f.all = append(f.all, n)
		}
	}
	t.Cleanup(func() {
		for _, n := range f.all {
			n.kill()
		}
	})
	for _, n := range f.all {
		n.start()
	}
	for _, n := range f.all {
		n.awaitReady()
	}
	return f
}

func (n *fleetNode) path(suffix string) string { return filepath.Join(n.d.dir, n.name+suffix) }

func (n *fleetNode) start() {
	n.d.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	log, err := os.OpenFile(n.path(".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.d.t.Fatal(err)
	}
	defer log.Close()
	n.process = exec.Command(n.d.binary, "run", "--config", n.path(".yaml"))
	n.process.Env, n.process.Stderr = n.d.environ(), log
	if err := n.process.Start(); err != nil {
		n.d.t.Fatal(err)
	}
}

func (n *fleetNode) awaitReady() {
	n.d.t.Helper()
	n.d.await(n.name+" serves", func() error {
		s, err := n.client.Status(n.d.t.Context())
		if err == nil && !s.Ready {
			err = fmt.Errorf("problems: %v", s.Problems)
		}
		if err != nil {
			text, _ := os.ReadFile(n.path(".log")) // for a message only
			err = fmt.Errorf("%w\n%s", err, text[max(0, len(text)-2_000):])
		}
		return err
	})
}

func (n *fleetNode) signal(s syscall.Signal) {
	n.d.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.process.Process.Signal(s); err != nil {
		n.d.t.Errorf("%s: %v: %v", n.name, s, err)
	}
}

func (n *fleetNode) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		_ = n.process.Process.Kill()
		_ = n.process.Wait() // says that it was killed
		n.process = nil
	}
}

// stop ends the node by SIGTERM.
func (n *fleetNode) stop() {
	n.d.t.Helper()
	n.signal(syscall.SIGTERM)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.process.Wait(); err != nil {
		n.d.t.Errorf("%s: graceful stop: %v", n.name, err)
	}
	n.process = nil
}

// nodesOf are a region's nodes.
func (f *fleet) nodesOf(r events.Region) (nodes []*fleetNode) {
	for _, n := range f.all {
		if n.region == r {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// owns waits until a node has all shards of its region, and tells how long that took.
func (n *fleetNode) owns(what string) {
	n.d.t.Helper()
	begun := time.Now()
	n.d.await(n.name+" has every shard", func() error {
		s, err := n.client.Status(n.d.t.Context())
		if err != nil {
			return err
		}
		for _, row := range s.Shards {
			if row.Node != s.Node || row.State != "open" {
				return fmt.Errorf("shard %d is %s on node %s; problems %v", row.Partition, row.State, row.Node, s.Problems)
			}
		}
		return nil
	})
	n.d.t.Logf("%s: every shard is on %s after %s", what, n.name, time.Since(begun).Round(10*time.Millisecond))
}

// Two nodes a region: nodes are killed by -9, stopped, and frozen for longer than the
// group waits, while all of them are written to. Afterwards every acknowledged write
// is in every region's view, whichever node is asked, counted once, and all digests are equal.
func TestKafkaNodes(t *testing.T) {
	f := newFleet(t, "", 2, 2)
	w := f.write()
	us, other := f.nodesOf("us-east-1")[0], f.nodesOf("us-east-1")[1]
	us.kill()
	other.owns("kill -9")
	us.start()
	us.awaitReady()
	f.awaitSpread("us-east-1")
	us.stop()
	other.owns("SIGTERM")
	us.start()
	us.awaitReady()

	eu, heir := f.nodesOf("eu-central-1")[0], f.nodesOf("eu-central-1")[1]
	f.awaitSpread("eu-central-1")
	eu.signal(syscall.SIGSTOP)
	heir.owns("SIGSTOP")
	eu.signal(syscall.SIGCONT)
	eu.awaitReady()

	f.killAny(6)
	w.check()
	if out, code := f.evenkeel("us-east-1", "backup", "create"); code != 0 {
		t.Errorf("backup: exit %d: %s", code, out)
	}
	if out, code := f.evenkeel("us-east-1", "links", "list"); code != 0 {
		t.Errorf("links: exit %d: %s", code, out)
	}
}

// The same with the group's new protocol (KIP-848), in which the brokers share out the
// shards. Brokers that lack it, as those of Kafka 3.9 do, get the classic one, with
// which everything else is the same.
func TestKafkaConsumerProtocol(t *testing.T) {
	f := newFleet(t, "consumer", 2, 1)
	want := "consumer"
	if strings.HasPrefix(os.Getenv("KAFKA_VERSION"), "3.") {
		want = "classic"
	}
	w := f.write()
	us, other := f.nodesOf("us-east-1")[0], f.nodesOf("us-east-1")[1]
	f.awaitSpread("us-east-1")
	if is := f.groupType("us-east-1"); is != want {
		t.Fatalf("the group is of type %q, want %q", is, want)
	}
	us.kill()
	other.owns("kill -9")
	us.start()
	us.awaitReady()
	f.awaitSpread("us-east-1")
	other.stop()
	us.owns("SIGTERM")
	other.start()
	other.awaitReady()
	f.awaitSpread("us-east-1")
	us.signal(syscall.SIGSTOP)
	other.owns("SIGSTOP")
	us.signal(syscall.SIGCONT)
	us.awaitReady()
	f.killAny(3)
	w.check()
}

// groupType is the type of a region's group, by what its brokers say.
func (f *fleet) groupType(r events.Region) string {
	f.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.kafka[r]))
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	for _, shard := range client.RequestSharded(f.t.Context(), kmsg.NewPtrListGroupsRequest()) {
		if shard.Err != nil {
			f.t.Fatal(shard.Err)
		}
		for _, g := range shard.Resp.(*kmsg.ListGroupsResponse).Groups {
			if g.Group == f.topic {
				return strings.ToLower(g.GroupType)
			}
		}
	}
	f.t.Fatalf("%s has no group %s", r, f.topic)
	return ""
}

// killAny kills nodes by -9, one after the other, and starts each again within the
// group's patience or after it.
func (f *fleet) killAny(times int) {
	f.t.Helper()
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	for range times {
		n := f.all[rng.IntN(len(f.all))]
		n.kill()
		time.Sleep(time.Duration(rng.IntN(15_000)) * time.Millisecond) // within the session timeout, or after it
		n.start()
		n.awaitReady()
	}
}

// writing is writers at all nodes of a fleet, and what was acknowledged to them.
type writing struct {
	f       *fleet
	cancel  context.CancelFunc
	writers sync.WaitGroup
	ledger  acked
	counts  tally
	keys    sync.Map // key → value of what was acknowledged
}

func (f *fleet) write() *writing {
	ctx, cancel := context.WithCancel(f.t.Context())
	w := &writing{f: f, cancel: cancel, ledger: acked{writes: map[events.Position]string{}}}
	for _, n := range f.all {
		w.writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("%s-%06d", n.name, i), fmt.Sprintf("value-%d", i)
				if w.ledger.write(ctx, n.client, key, value) {
					w.keys.Store(key, value)
				}
				w.counts.count(ctx, n.client, i)
				time.Sleep(10 * time.Millisecond) // a writer's pace
			}
		})
	}
	return w
}

// check ends the writers and looks for what they wrote, everywhere.
func (w *writing) check() {
	w.f.t.Helper()
	w.cancel()
	w.writers.Wait()
	w.f.settle(len(w.ledger.writes))
	w.f.checkFolded(w.f.checkMirrors())
	w.f.checkLedger(&w.ledger)
	w.f.checkViews(&w.keys)
	for _, n := range w.f.all {
		w.counts.check(w.f.t, n.name, n.client)
	}
}

// awaitSpread waits until every node of a region has a shard.
func (f *fleet) awaitSpread(r events.Region) {
	f.t.Helper()
	f.await("every node of "+r.String()+" has a shard", func() error {
		s, err := f.nodesOf(r)[0].client.Status(f.t.Context())
		if err != nil {
			return err
		}
		if len(s.Nodes) != len(f.nodesOf(r)) || !s.Ready {
			return fmt.Errorf("nodes %+v, problems %v", s.Nodes, s.Problems)
		}
		for _, n := range s.Nodes {
			if len(n.Shards) == 0 {
				return fmt.Errorf("node %s has none", n.Node)
			}
		}
		return nil
	})
}

// checkViews asks every node for everything.
func (f *fleet) checkViews(keys *sync.Map) {
	f.t.Helper()
	for _, n := range f.all {
		view := map[string]string{}
		for e, err := range n.client.ScanAll(f.t.Context(), api.ScanParams{Stream: "session"}) {
			if err != nil {
				f.t.Fatalf("%s: %v", n.name, err)
			}
			if _, twice := view[string(e.Key)]; twice {
				f.t.Errorf("%s has key %s twice", n.name, e.Key)
			}
			view[string(e.Key)] = string(e.Value)
		}
		count := 0
		keys.Range(func(key, value any) bool {
			if count++; view[key.(string)] != value {
				f.t.Errorf("%s: key %s: acknowledged %q, there is %q", n.name, key, value, view[key.(string)])
			}
			return true
		})
		f.t.Logf("%s: %d keys, %d acknowledged", n.name, len(view), count)
		if count == 0 {
			f.t.Error(errors.New("nothing was acknowledged"))
		}
	}
}
