package projections_test

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/projections"
	"github.com/evenkeel/evenkeel/projections/merge"
	"github.com/evenkeel/evenkeel/projections/merge/lww"
)

// A key is read as it was at one moment, whatever is folded meanwhile: of a batch that
// changes it in all logs all is seen or nothing, also of one that begins a log.
func TestPointReadsSeeOneCut(t *testing.T) {
	const batches, batchesALog, readers = 250, 10, 3
	s := openNew(t)
	shards := []*projections.Shard{s}
	logsAt := func(batch int) (logs []events.Log) { // three regions, and the incarnations that they come back as
		for i := range 3 + batch/batchesALog {
			region := []events.Region{"eu", "us", "ap"}[i%3]
			logs = append(logs, events.Log{Origin: events.Origin{Region: region, Incarnation: uint32(1 + i/3)}, Stream: "session"})
		}
		return logs
	}
	write := func(batch int) {
		var runs []projections.Run
		for _, l := range logsAt(batch) {
			r := bare("k", strconv.AppendInt(nil, int64(batch), 10), int64(batch))
			r.Offset = s.Next(l)
			runs = append(runs, projections.Run{Log: l, Records: []*kgo.Record{r}})
		}
		apply(t, s, runs...)
	}
	read := func() (batch int) {
		e, err := projections.EntityOf(shards, "session", "k")
		if err != nil {
			t.Error(err)
		}
		for i, slice := range e.Slices {
			view, err := lww.Rule{}.Join([]merge.Slice{slice})
			if err != nil {
				t.Error(err)
			}
			of, _ := strconv.Atoi(string(view.Value))
			if batch = max(batch, of); of != batch || i > 0 && strings.Compare(e.Slices[i-1].Log.Origin.String(), slice.Log.Origin.String()) >= 0 {
				t.Errorf("slices of batches %d and %d, or not in order: %s", of, batch, slice.Log)
			}
		}
		if len(e.Slices) != len(logsAt(batch)) {
			t.Errorf("batch %d: %d slices, want %d", batch, len(e.Slices), len(logsAt(batch)))
		}
		return batch
	}
	write(0)
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			for last := 0; last < batches-1 && !t.Failed(); {
				batch := read()
				if batch < last {
					t.Errorf("batch %d after batch %d", batch, last)
				}
				last = batch
			}
		})
	}
	for batch := 1; batch < batches && !t.Failed(); batch++ {
		write(batch)
	}
	reading.Wait()
}

// Of a key that lies in one of many layers in the bucket, the others are not asked for more
// than once: their filters say that it is not there.
func TestPointReadsPassOverLayers(t *testing.T) {
	for _, layers := range []int{1, 20} {
		t.Run(fmt.Sprint(layers), func(t *testing.T) { passOverLayers(t, layers) })
	}
}

func passOverLayers(t *testing.T, layers int) {
	const keysEach = 600 // some blocks for each layer
	w, fs, e, source := world{}, vfs.NewMem(), newElsewhere(), openNew(t)
	logs := slices.DeleteFunc(logsOf(0), func(l events.Log) bool { return l.Stream != "session" })
	key := func(layer, i int) string { return fmt.Sprintf("%04d-%02d", i, layer) } // a layer's lie between those of all others
	var chain []projections.Layer
	var states []events.LogState
	for layer := range layers {
		touched := map[events.Log][]string{}
		for i := range keysEach {
			l := logs[i%len(logs)]
			w.write(l, bare(key(layer, i), []byte(strings.Repeat("v", 300)), int64(i)))
			touched[l] = append(touched[l], key(layer, i))
		}
		for _, l := range logs {
			apply(t, source, w.from(l, source.Next(l), keysEach))
		}
		id := fmt.Sprintf("backup-%02d", layer)
		cut, err := source.Freeze()
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, e.putTables(t, fs, id, writeDelta(t, fs, cut, events.VectorOf(states), touched, id, 1<<20)))
		states = cut.States()
		if err := cut.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config(vfs.NewMem())
	cfg.Outside = e
	if err := projections.RestoreInPlace(t.Context(), cfg, "backup", chain, states); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	defer closeShard(t, s)
	getOne(t, []*projections.Shard{s}, "session", key(0, 0)) // has filters read
	for _, k := range []string{key(3%layers, 200), key(15%layers, 400), key(9%layers, 590), key(7%layers, 310) + "-absent", key(8%layers, 500) + "-absent"} {
		want, err := projections.EntityOf([]*projections.Shard{source}, "session", k)
		if err != nil {
			t.Fatal(err)
		}
		before := e.readings()
		if got, err := projections.EntityOf([]*projections.Shard{s}, "session", k); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", k, got, err, want)
		}
		// The block that it is in. Filters, which are asked for each log, are wrong one time in a hundred.
		if n := e.readings() - before; n > len(want.Slices)+layers/4 {
			t.Errorf("%s: %d readings in %d layers", k, n, layers)
		}
	}
}

func (e *elsewhere) readings() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, of := range e.reads {
		n += of
	}
	return n
}
