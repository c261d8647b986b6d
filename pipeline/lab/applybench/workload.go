package applybench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/lab/payload"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
)

const (
	stream     = events.Stream("session")
	partition  = 0
	keyFormat  = "entity-%09d"
	keyBytes   = len("entity-000000000")
	valuesHeld = 4096 // different values; a block of a table holds a few of them
)

// workload makes a case's events, the same in each process.
type workload struct {
	c      Case
	rule   merge.Rule
	op     events.Op
	typ    string // of the events
	logs   []events.Log
	next   []int64 // offsets in logs
	random *rand.Rand
	zipf   *rand.Zipf
	values [][]byte
	seq    uint64
}

// batch is one batch in the forms in which the systems take it.
type batch struct {
	runs    []projections.Run
	touched []write // in the order of the first touch
	index   map[string]int
}

// write is a slice as the batch leaves it.
type write struct{ key, value []byte }

func newWorkload(c Case) (*workload, error) {
	rule, err := projections.LookupRule(c.Rule)
	if err != nil {
		return nil, err
	}
	w := &workload{c: c, rule: rule, random: rand.New(rand.NewPCG(c.Seed, c.Seed))}
	w.zipf = rand.NewZipf(w.random, 1.1, 1, uint64(c.Keys-1))
	for _, region := range []events.Region{"us-east-1", "us-west-1", "eu-central-1"} {
		w.logs = append(w.logs, events.Log{Origin: events.Origin{Region: region, Incarnation: 1}, Stream: stream, Partition: partition})
	}
	w.next = make([]int64, len(w.logs))
	w.op, w.typ = events.OpPut, events.TypePut
	value := func(json []byte) []byte { return json }
	switch c.Rule {
	case "append":
		w.op, w.typ = events.OpAppend, events.TypeAppend
	case "fieldmap":
		w.op, w.typ, value = events.OpPatch, events.TypePatch, patchOf
	}
	p := payload.New(c.Seed)
	for range valuesHeld {
		w.values = append(w.values, value(p.Record(c.ValueBytes+len("entity-000000")).Value))
	}
	return w, nil
}

// patchOf is a patch of as many bytes as a value has, that sets two fields, counts
// and adds to a set. All patches change the same fields.
func patchOf(value []byte) []byte {
	const begin, end = `{"increment":{"requests":1},"add":{"roles":["admin"]},"set":{"state":"active","note":"`, `"}}`
	note := bytes.ReplaceAll(value, []byte(`"`), []byte("'"))
	return slices.Concat([]byte(begin), note[:len(value)-len(begin)-len(end)], []byte(end))
}

// skipFill goes to where another workload is that has filled a database.
func (w *workload) skipFill() {
	for i := range w.next {
		w.next[i] = int64((w.c.Keys - i + len(w.logs) - 1) / len(w.logs))
	}
	w.seq = uint64(w.c.Keys)
}

// draw picks a key.
func (w *workload) draw() int {
	if w.c.Order == skewed {
		const prime = 2654435761 // spreads what is asked for most over the database
		return int(w.zipf.Uint64() * prime % uint64(w.c.Keys))
	}
	return w.random.IntN(w.c.Keys)
}

// batch makes the next one, of n events of the keys that pick gives.
func (w *workload) batch(n int, pick func() int) (*batch, error) {
	b := &batch{index: make(map[string]int, n)}
	runs := make([]projections.Run, len(w.logs))
	for range n {
		key := pick()
		i := key % len(w.logs) // each key has one origin
		r, err := w.record(key, w.next[i])
		if err != nil {
			return nil, err
		}
		if err := w.touch(b, w.logs[i], r); err != nil {
			return nil, err
		}
		w.next[i]++
		runs[i].Log, runs[i].Records = w.logs[i], append(runs[i].Records, r)
	}
	for _, run := range runs {
		if len(run.Records) > 0 {
			b.runs = append(b.runs, run)
		}
	}
	return b, nil
}

// record is an event as the API writes it.
func (w *workload) record(key int, offset int64) (*kgo.Record, error) {
	w.seq++
	const begin = 1_767_225_600_000 // in ms
	clock := events.HLCFromMillis(begin + int64(w.seq))
	r, err := events.Encode(events.Event{
		Key: fmt.Sprintf(keyFormat, key), Op: w.op, Clock: clock, Value: w.values[w.random.IntN(len(w.values))],
		ContentType: "application/json", ID: fmt.Sprintf("%08x-0000-4000-8000-%012x", w.random.Uint32(), w.seq),
		Source: "evenkeel/us-east-1", Type: w.typ, Time: clock.Time(),
	})
	if err != nil {
		return nil, err
	}
	r.Offset, r.Timestamp = offset, clock.Time()
	return r, nil
}

// touch works out what a record makes of its slice. It knows nothing of earlier
// batches; events are such that these change a few bytes of a slice, clocks and
// counts, but not its size by much, and whether that is so is checked in the end.
func (w *workload) touch(b *batch, l events.Log, r *kgo.Record) error {
	e, err := events.Decode(r)
	if err != nil {
		return err
	}
	i, again := b.index[e.Key]
	if !again {
		i = len(b.touched)
		b.index[e.Key] = i
		b.touched = append(b.touched, write{key: projections.SliceKey(l, e.Key)})
	}
	b.touched[i].value, err = w.rule.Fold(nil, b.touched[i].value, &e, l.At(r.Offset))
	return err
}
