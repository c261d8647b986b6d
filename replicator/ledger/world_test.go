package ledger

import (
	"context"
	"fmt"

	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/replicator/mapping"
)

// tester is a test or one case of a property.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

const linkName = "us→eu"

var p0 = Partition{Topic: "session", Partition: 0}

// world is a cluster with one link topic. Its methods fail the test by themselves.
type world struct {
	tester
	ctx     context.Context
	cluster *kfake.Cluster
	topic   string
	opened  int
}

func newCluster(t *testing.T) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// newWorld makes a link topic of which compaction removes all that it may at once.
func newWorld(t tester, ctx context.Context, c *kfake.Cluster, topic string) *world {
	w := &world{tester: t, ctx: ctx, cluster: c, topic: topic}
	w.do(c.CreateTopic(topic, 1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "0"}))
	return w
}

// single is a world of its own for a test.
func single(t *testing.T) *world {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return newWorld(t, ctx, newCluster(t), "links")
}

func (w *world) do(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("%v", err)
	}
}

func (w *world) opts() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(w.cluster.ListenAddrs()...)} }

// open starts an instance; whoever does closes it.
func (w *world) open() *Ledger {
	w.Helper()
	w.opened++
	l, err := Open(w.ctx, w.opts(), Config{Topic: w.topic, Link: linkName, Instance: fmt.Sprintf("i%d", w.opened)})
	w.do(err)
	return l
}

// compact removes all that can be removed: the newest batch always stays, so one
// that nobody heeds is written first.
func (w *world) compact(l *Ledger) {
	w.Helper()
	k := key{Kind: kindPause, Link: "another link", What: "x"}
	w.do(l.produce(w.ctx, []*kgo.Record{{Topic: w.topic, Key: encode(k), Value: encode(pauseValue{})}}))
	w.cluster.Compact()
}

// content is the keys of what is in the topic now, and their number.
func (w *world) content() map[string]int {
	w.Helper()
	kinds := map[string]int{}
	r := w.rawReader()
	defer r.client.Close()
	end, err := r.end(w.ctx)
	w.do(err)
	w.do(r.readTo(w.ctx, end, func(records []*kgo.Record) {
		for _, rec := range records {
			var k key
			w.do(decode(rec.Key, &k))
			if k.Link != linkName {
				continue
			}
			if rec.Value == nil {
				k.Kind = "tombstone"
			}
			kinds[k.Kind]++
		}
	}))
	return kinds
}

func (w *world) rawReader() *reader {
	w.Helper()
	client, err := kgo.NewClient(w.opts()...)
	w.do(err)
	return &reader{client: client, topic: w.topic, bytes: fetchBytes}
}

// picture is all that a ledger says, comparable by its text.
func picture(l *Ledger, partitions ...Partition) string {
	s := fmt.Sprintf("pauses %v\n", l.Pauses())
	for _, p := range partitions {
		id, ok := l.Producer(p)
		m, has := l.Mirror(p.Topic)
		s += fmt.Sprintf("%s: producer %v %v, mirror %v %v, epochs %v, runs %v\n", p, id, ok, m, has, l.Epochs(p), l.Map(p).Runs())
	}
	return s + fmt.Sprintf("unreadable %q", l.Unreadable())
}

// same checks that ledgers that have read everything, and one that is new, say the
// same, and returns it.
func (w *world) same(partitions []Partition, ledgers ...*Ledger) string {
	w.Helper()
	fresh := w.open()
	defer fresh.Close()
	want := picture(fresh, partitions...)
	for _, l := range ledgers {
		w.do(l.Refresh(w.ctx))
		if got := picture(l, partitions...); got != want {
			w.Fatalf("%s says\n%s\na new one says\n%s", l.cfg.Instance, got, want)
		}
	}
	return want
}

// someRuns are n runs that come after those of a map.
func someRuns(m *mapping.Map, n int) []mapping.Run {
	last := mapping.Run{Source: 3}
	if m.Len() > 0 {
		last = m.Runs()[m.Len()-1]
	}
	runs := make([]mapping.Run, n)
	for i := range runs {
		last = mapping.Run{Source: last.Source + 10 + int64(i%3), Dest: last.Dest + 9}
		runs[i] = last
	}
	return runs
}

// keep takes back all runs but the first, as a plan that has landed may.
func (w *world) keep(l *Ledger, p Partition, first int) error {
	return l.appendChunk(w.ctx, p, l.Map(p).Len(), runsValue{Keep: &first})
}

// fill writes chunks of one run each, as an instance that was here before, without
// ever making a block.
func (w *world) fill(l *Ledger, p Partition, chunks int) {
	w.Helper()
	runs := someRuns(l.Map(p), chunks)
	first := l.state.partition(p).next
	var records []*kgo.Record
	for i := range runs {
		number := first + int64(i)
		records = append(records, l.record(key{
			Kind: kindRuns, Topic: p.Topic, Partition: &p.Partition, Generation: l.state.partition(p).generation,
			Number: &number, Writer: l.writerOfThis(),
		}, runsValue{Runs: runs[i : i+1]}))
	}
	if len(records) > 0 {
		w.do(l.write(w.ctx, records...))
	}
}
