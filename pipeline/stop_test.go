package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/evenkeel/evenkeel/events"
	"github.com/evenkeel/evenkeel/pipeline/api"
)

// stopLimit is how long a stop may take, whatever has happened: a link gives
// writes under way ten seconds, everything else takes less.
const stopLimit = 11 * time.Second

// Every way in which Kafka can be gone while everything is under way: writes
// through the API, a load, the fold, a link that writes a mirror. Stop is quick,
// ends all of them, and what was acknowledged is in the log.
func TestStopWithoutKafka(t *testing.T) {
	long(t)
	for name, gone := range map[string]struct {
		take, bringBack func(r *region, g *gate)
		since           time.Duration
	}{
		"it is there":                   {func(*region, *gate) {}, func(*region, *gate) {}, time.Second},
		"it is down":                    {func(r *region, _ *gate) { r.down() }, func(r *region, _ *gate) { r.up() }, time.Second},
		"it has been down for a minute": {func(r *region, _ *gate) { r.down() }, func(r *region, _ *gate) { r.up() }, time.Minute},
		"it is deaf":                    {func(_ *region, g *gate) { g.freeze() }, func(_ *region, g *gate) { g.melt() }, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			two(t, func(a, b *region) {
				g := a.gated()
				a.start()
				b.start()
				b.put("before", "all")
				a.has("before", "all") // the link works
				var writers sync.WaitGroup
				acked := &ledger{}
				for i := range 4 {
					writers.Go(func() { acked.write(a, "put-"+strconv.Itoa(i)) })
				}
				writers.Go(func() { acked.load(a) })
				producer := b.dial()
				writers.Go(func() {
					for n := range 300 {
						record := &kgo.Record{Topic: "session", Partition: int32(n % partitions), Key: []byte("b"), Value: []byte("b")}
						if err := producer.ProduceSync(context.Background(), record).FirstErr(); err != nil {
							t.Errorf("peer: %v", err)
						}
						time.Sleep(10 * time.Millisecond)
					}
				})
				time.Sleep(time.Second) // all of it is under way
				gone.take(a, g)
				time.Sleep(gone.since)
				acked.close()
				synctest.Wait() // from here on there are only calls under way
				node := a.Region
				a.within(stopLimit, "stop", func() {
					if err := node.Stop(); err != nil {
						t.Error(err)
					}
				})
				a.Region = nil
				writers.Wait()
				producer.Close()
				gone.bringBack(a, g)
				acked.check(a)
				a.start()
				a.put("after", "all")
				a.has("after", "all")
				b.has("after", "all")
			})
		})
	}
}

// ledger is what was acknowledged.
type ledger struct {
	mu     sync.Mutex
	closed bool
	acked  map[events.Position]string // value
}

func (l *ledger) add(p events.Position, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked == nil {
		l.acked = map[events.Position]string{}
	}
	l.acked[p] = value
}

// close ends the writers.
func (l *ledger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (l *ledger) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// write puts values until one is not acknowledged.
func (l *ledger) write(r *region, key string) {
	node := r.Region
	for n := 0; !l.isClosed(); n++ {
		value := strconv.Itoa(n)
		res, err := node.Put(context.Background(), api.PutParams{Stream: "session", Key: []byte(key), Value: []byte(value)})
		if err != nil {
			return
		}
		l.add(res.Position, value)
		time.Sleep(5 * time.Millisecond)
	}
}

// load writes batches until one is not acknowledged.
func (l *ledger) load(r *region) {
	node := r.Region
	for n := 0; !l.isClosed(); n++ {
		p := api.LoadParams{Stream: "config", Source: "load"}
		for i := range 100 {
			id := strconv.Itoa(100*n + i)
			p.Events = append(p.Events, api.LoadEvent{ID: id, Key: []byte(id), Value: []byte(id)})
		}
		if _, err := node.Load(context.Background(), p); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// check looks up everything acknowledged.
func (l *ledger) check(r *region) {
	r.w.Helper()
	logs := map[int32][]*kgo.Record{}
	for p := range int32(partitions) {
		logs[p] = r.read("session", p)
	}
	if len(l.acked) == 0 {
		r.w.Error("nothing was acknowledged")
	}
	for p, value := range l.acked {
		var err error
		if records := logs[p.Partition]; p.Offset >= int64(len(records)) {
			err = fmt.Errorf("the log ends at %d", len(records))
		} else if got := string(records[p.Offset].Value); got != value {
			err = errors.New("there is " + got)
		}
		if err != nil {
			r.w.Errorf("%s was acknowledged with %s: %v", p, value, err)
		}
	}
}
