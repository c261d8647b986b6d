package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

// The streams that a world of all rules has besides session, which is the last writer's.
const (
	registry = events.Stream("registry") // multivalue: entries that have siblings
	usage    = events.Stream("usage")    // fieldmap: counters, sets and fields
	metrics  = events.Stream("metrics")  // append: how many there were
)

// streams are those of the world, each with the name of its merge rule.
func (w *World) streams() map[events.Stream]string {
	all := map[events.Stream]string{"session": "lww"}
	if w.shape.AllRules {
		all[registry], all[usage] = "multivalue", "fieldmap"
		if w.shape.Tombstones == 0 {
			all[metrics] = "append"
		}
	}
	return all
}

// Streams lists them.
func (w *World) Streams() []events.Stream { return slices.Sorted(maps.Keys(w.streams())) }

// rules are what shards are folded by.
func (w *World) rules() map[events.Stream]merge.Rule {
	w.t.Helper()
	rules := map[events.Stream]merge.Rule{}
	for stream, name := range w.streams() {
		rule, err := projections.LookupRule(name)
		if err != nil {
			w.t.Fatal(err)
		}
		rules[stream] = rule
	}
	return rules
}

// Writer writes to the streams of its world in turn, under a few keys that all writers share:
// to some of them on top of what it has just read or has read a while ago, to some on top of what its
// region knows, and to some, past all nodes, without a word of what it has seen.
type Writer struct {
	region *Region
	node   func() *Node // that it writes through; nil: none runs
	number int
	rng    *rand.Rand
	turn   int
	read   map[string]events.Vector // contexts of the last answers, by key
}

// Writer makes one that writes through the node.
func (n *Node) Writer(number int) *Writer {
	return n.region.writer(number, func() *Node { return n })
}

// Writer makes one that writes through any of the nodes that run.
func (r *Region) Writer(number int) *Writer {
	return r.writer(number, func() *Node {
		i := slices.IndexFunc(r.Nodes, (*Node).Up)
		if i < 0 {
			return nil
		}
		return r.Nodes[i]
	})
}

func (r *Region) writer(number int, node func() *Node) *Writer {
	rng := rand.New(rand.NewPCG(r.world.seed, uint64(number)))
	return &Writer{region: r, node: node, number: number, rng: rng, read: map[string]events.Vector{}}
}

// Write does the next write. After an error it may or may not be in the log; the ledger holds
// what was acknowledged.
func (w *Writer) Write(ctx context.Context) error {
	n, turn := w.node(), w.turn
	w.turn++
	if n == nil {
		return errors.New("no node runs")
	}
	streams := w.region.world.Streams()
	i := turn / len(streams)
	switch streams[turn%len(streams)] {
	case registry:
		return w.toRegistry(ctx, n, i)
	case usage:
		return w.toUsage(ctx, n, i)
	case metrics:
		return w.toMetrics(ctx, n, i)
	}
	return w.toSession(ctx, n, i)
}

func (w *Writer) toSession(ctx context.Context, n *Node, i int) error {
	p := api.PutParams{Stream: "session", Key: fmt.Appendf(nil, "key-%d", i*7%50), Value: fmt.Appendf(nil, "value-%d-%d", w.number, i)}
	if w.rng.IntN(8) == 0 {
		p.Value, p.Context = nil, w.look(ctx, n, p) // a delete
	}
	return n.Write(ctx, p)
}

func (w *Writer) toMetrics(ctx context.Context, n *Node, i int) error {
	p := api.PutParams{Stream: metrics, Key: fmt.Appendf(nil, "sample-%d", i*7%12), Value: fmt.Appendf(nil, "%d", i), Type: events.TypeAppend}
	switch w.rng.IntN(3) {
	case 0:
		return w.bare(ctx, &kgo.Record{Topic: metrics.String(), Key: p.Key, Value: p.Value})
	case 1:
		p.Context = w.look(ctx, n, p)
	}
	return n.Write(ctx, p)
}

func (w *Writer) toRegistry(ctx context.Context, n *Node, i int) error {
	p := api.PutParams{Stream: registry, Key: fmt.Appendf(nil, "entry-%d", i*7%15), Value: fmt.Appendf(nil, "value-%d-%d", w.number, i)}
	switch w.rng.IntN(6) {
	case 0:
		return w.bare(ctx, &kgo.Record{Topic: registry.String(), Key: p.Key, Value: p.Value})
	case 1: // on top of what the region knows
	case 2:
		p.Context = w.look(ctx, n, p)
	case 3:
		p.Context = w.before(p)
	case 4:
		if p.Context = w.look(ctx, n, p); p.Context != nil {
			p.Type = events.TypeResolve
		}
	case 5:
		p.Value, p.Context = nil, w.look(ctx, n, p)
	}
	return n.Write(ctx, p)
}

func (w *Writer) toUsage(ctx context.Context, n *Node, i int) error {
	if w.rng.IntN(5) < 2 {
		return w.count(ctx, n, i)
	}
	p := api.PutParams{Stream: usage, Key: fmt.Appendf(nil, "mixed-%d", i*7%10), Type: events.TypePatch}
	by, element := fmt.Sprintf(`"by":"writer-%d-%d"`, w.number, i), fmt.Sprintf(`"element-%d"`, w.rng.IntN(8))
	switch w.rng.IntN(6) {
	case 0:
		p.Value = fmt.Appendf(nil, `{"increment":{"n":%d},"set":{%s}}`, 1+w.rng.IntN(5), by)
	case 1:
		p.Value, p.Context = fmt.Appendf(nil, `{"add":{"s":[%s]}}`, element), w.before(p)
	case 2:
		p.Value, p.Context = fmt.Appendf(nil, `{"remove":{"s":[%s]},"unset":["by"]}`, element), w.look(ctx, n, p)
	case 3:
		return w.unaware(ctx, p.Key, fmt.Appendf(nil, `{"add":{"s":[%s]},"set":{%s}}`, element, by), i)
	case 4:
		p.Type, p.Value, p.Context = "", fmt.Appendf(nil, `{%s,"at":%d}`, by, i), w.before(p)
	case 5:
		p.Type, p.Context = "", w.look(ctx, n, p) // a delete
	}
	return n.Write(ctx, p)
}

// count counts one more under a key under which nothing is done but counting, so that its value says
// how often that was.
func (w *Writer) count(ctx context.Context, n *Node, i int) error {
	p := api.PutParams{Stream: usage, Key: fmt.Appendf(nil, "count-%d", i%5), Type: events.TypePatch, Value: api.Bytes(`{"increment":{"n":1}}`)}
	if w.rng.IntN(2) == 0 {
		p.Context = w.look(ctx, n, p)
	}
	ledger := &w.region.world.ledger
	ledger.count(string(p.Key), counted{attempted: 1})
	err := n.Write(ctx, p)
	if err == nil {
		ledger.count(string(p.Key), counted{acked: 1})
	}
	return err
}

// look reads the key of a write and gives the context of the answer; nil if there is none.
func (w *Writer) look(ctx context.Context, n *Node, p api.PutParams) *events.Vector {
	node := n.node
	if node == nil {
		return nil
	}
	e, err := node.Get(ctx, api.GetParams{Stream: p.Stream, Key: p.Key})
	if err != nil {
		return nil
	}
	w.read[string(p.Key)] = e.Context
	return &e.Context
}

// before gives the context in which the key of a write was read last; nil if it never was.
func (w *Writer) before(p api.PutParams) *events.Vector {
	seen, ok := w.read[string(p.Key)]
	if !ok {
		return nil
	}
	return &seen
}

// unaware writes a patch of whose writer nobody knows what it had seen.
func (w *Writer) unaware(ctx context.Context, key, patch []byte, i int) error {
	record, err := events.Encode(events.Event{
		Key: string(key), Op: events.OpPatch, Type: events.TypePatch, Value: patch, Clock: events.HLCAt(time.Now()),
		ID: fmt.Sprintf("%d-%d", w.number, i), Source: "a client of Kafka",
	})
	if err != nil {
		return err
	}
	record.Topic = usage.String()
	return w.bare(ctx, record)
}

// bare writes a record as any client of Kafka may, past all nodes.
func (w *Writer) bare(ctx context.Context, record *kgo.Record) error {
	client := w.region.client
	if client == nil {
		return errors.New("the region has no power")
	}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return err
	}
	log := events.Log{Origin: events.FirstOrigin(w.region.Name), Stream: events.Stream(record.Topic), Partition: record.Partition}
	w.region.world.ledger.add(log.At(record.Offset), string(record.Key), string(record.Value))
	return nil
}
